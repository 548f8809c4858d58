"""restart: from SIGKILL to the first right answer."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.harness.bodies import search_requests
from benchmarks.harness.collection import NAME as COLLECTION
from benchmarks.harness.collection import create, fill, wait_indexed, wait_snapshot
from benchmarks.harness.context import Context
from benchmarks.harness.figures import Figure, Series, Target
from benchmarks.harness.server import Server
from benchmarks.harness.starting import watch_start
from benchmarks.harness.wire import JSON

NAME = "restart"
ANSWER_SECONDS_MAX = 0.8
HOLD_SECONDS = 600
SNAPSHOT_ROWS_MIN = 5_000
STATES = {"snapshot": "all in files", "log": "all in the log alone"}


def measure(context: Context) -> Iterator[Figure]:
    """With checkpoint and index.bin complete; and, held back by a hold, with nothing but the log."""
    for state, spelt in STATES.items():
        series = Series()
        for run in range(context.runs):
            context.say(f"{spelt}: run {run + 1}")
            series.add(**_run(context, state))
        yield Figure(
            NAME, f"SIGKILL to the first right answer, {spelt}", "s", series["answered"],
            target=Target(at_most=ANSWER_SECONDS_MAX),
            note="restart: the clock starts at SIGKILL, so the old process's end is in it; page cache warm.",
        )  # fmt: skip
        yield Figure(NAME, f"SIGKILL to /health/ready, {spelt}", "s", series["ready"])
        yield Figure(NAME, f"of it until the old process is gone, {spelt}", "s", series["gone"])
        yield Figure(NAME, f"processor time of the new process, {spelt}", "s", series["cpu"])
        yield Figure(NAME, f"of it until connections are accepted, {spelt}", "s", series["listening"])


def _run(context: Context, state: str) -> dict[str, float]:
    rows = context.rows
    with Server(context.volume()) as server:
        with server.connect() as connection:
            create(connection, context.sizes.dimension)
            fill(server, rows[:1])
            if state == "log":
                connection.call("POST", "/hold", {"seconds": HOLD_SECONDS})
            fill(server, rows[1:], first_id=1)
            if state == "snapshot":
                wait_indexed(connection)
                if len(rows) >= SNAPSHOT_ROWS_MIN:
                    wait_snapshot(server)
        # The row that was acknowledged last is the one that a careless engine would lose.
        [search] = search_requests(COLLECTION, rows[-1:], JSON, 1)
        began = time.perf_counter()
        server.kill()
        gone = time.perf_counter() - began
        server.spawn()
        started = watch_start(server, began, search, str(len(rows) - 1))
        return {
            "gone": gone,
            "listening": started.listening,
            "ready": started.ready,
            "answered": started.answered,
            "cpu": started.cpu,
        }
