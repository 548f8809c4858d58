"""million: a million rows (--large): memory, and searches during checkpoint and snapshot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import baseline
from benchmarks.harness.bodies import BATCH_ROWS, insert_requests, search_requests
from benchmarks.harness.closed_loop import Probe
from benchmarks.harness.collection import NAME as COLLECTION
from benchmarks.harness.collection import SNAPSHOT_EVENT, create, fill, wait_indexed, wait_snapshot
from benchmarks.harness.context import Context, K
from benchmarks.harness.dataset import BLOCK_ROWS
from benchmarks.harness.figures import Figure, Target
from benchmarks.harness.sending import send_all
from benchmarks.harness.server import Server
from benchmarks.harness.starting import watch_start
from benchmarks.harness.wire import JSON, MSGPACK, write_requests

NAME = "million"
STALL_MS_MAX = 150
MEMORY_RATIO_MAX = 1.4
GROWTH = 0.06
OPTIONS = ("--snapshot-growth-ratio", str(GROWTH - 0.01))
"""So that six hundredths more rows are reason enough for another snapshot."""
QUIET_SECONDS = 3.0
SETTLE_SECONDS = 1.0


def measure(context: Context) -> Iterator[Figure]:
    """Filled once, whatever the number of runs: it takes minutes."""
    count, dimension = context.sizes.large_rows, context.sizes.dimension
    context.say(f"hnswlib alone, {count:,} rows")
    alone = baseline.resident(count, dimension)
    memory = Target(at_most=MEMORY_RATIO_MAX, of_ratio=True)
    with Server(context.volume(), OPTIONS) as server:
        yield from _fill(context, server, count / alone.build_seconds)
        resident = server.facts().resident_mib
        yield Figure(NAME, "resident memory, filled", "MiB", [resident], [alone.mib], target=memory)
        context.say("SIGKILL, and start again")
        yield _restart(context, server)
        resident = server.facts().resident_mib
        yield Figure(NAME, "resident memory, restarted", "MiB", [resident], [alone.mib], target=memory)
        context.say("searching while more rows come in")
        yield from _watched_growth(context, server)


def _fill(context: Context, server: Server, raw_rate: float) -> Iterator[Figure]:
    count = context.sizes.large_rows
    context.say(f"filling {count:,} rows")
    blocks = (
        request
        for start in range(0, count, BLOCK_ROWS)
        for request in insert_requests(
            COLLECTION, context.mixture.rows(min(BLOCK_ROWS, count - start), start), MSGPACK, start
        )
    )
    with server.connect() as connection:
        create(connection, context.sizes.dimension)
    started = time.perf_counter()
    sent = send_all(server, blocks)
    with server.connect() as connection:  # the first one would be closed by now: it was idle for long
        wait_indexed(connection)
        seconds = time.perf_counter() - started
    wait_snapshot(server)
    time.sleep(SETTLE_SECONDS)
    yield Figure(
        NAME, "fully indexed, MessagePack", "vectors/s", [count / seconds], [raw_rate],
        note=f"million: {sent.refusals} batches of {BATCH_ROWS} were answered 429 and sent again.",
    )  # fmt: skip


def _restart(context: Context, server: Server) -> Figure:
    [search] = search_requests(COLLECTION, context.mixture.rows(1), JSON, 1)
    began = time.perf_counter()
    server.kill()
    server.spawn()
    started = watch_start(server, began, search, "0")
    return Figure(NAME, "SIGKILL to the first right answer", "s", [started.answered])


def _watched_growth(context: Context, server: Server) -> Iterator[Figure]:
    count = context.sizes.large_rows
    requests = context.folder / "million.requests"
    write_requests(requests, search_requests(COLLECTION, context.queries, JSON, K))
    more = context.mixture.rows(int(count * GROWTH), start=count)
    snapshots = len(server.log_events(SNAPSHOT_EVENT))
    with Probe(server.port, requests, context.folder / "million") as probe, server.connect() as connection:
        began = time.time()
        time.sleep(QUIET_SECONDS)
        grows = time.time()
        fill(server, more, first_id=count)
        wait_indexed(connection)
        indexed = time.time()
        wait_snapshot(server, snapshots + 1)
        time.sleep(SETTLE_SECONDS)
        sent_at, latency_ms = probe.stop()
    windows = {
        "before it": [(began, grows)],
        "while it grows": [(grows, indexed)],
        "during checkpoints": _spans(server.log_events("checkpoint"), grows),
        "during the snapshot": _spans(server.log_events(SNAPSHOT_EVENT), grows, indexed),
    }
    for name, spans in windows.items():
        inside = _inside(sent_at, latency_ms, spans)
        where = ", ".join(f"{start - grows:+.2f} to {end - grows:+.2f} s" for start, end in spans)
        context.say(f"{name}: {len(inside)} searches, at {where}")
        yield Figure(NAME, f"p99 of searches {name}", "ms", [float(np.percentile(inside, 99))])
        target = None if name == "before it" else Target(at_most=STALL_MS_MAX)
        yield Figure(NAME, f"slowest search {name}", "ms", [float(inside.max())], target=target)


def _spans(
    events: list[dict[str, Any]], since: float, at_latest: float | None = None
) -> list[tuple[float, float]]:
    """When something ran that is logged at its end; `at_latest`: when it began, if unknown."""
    found = []
    for event in events:
        start = event["at"] - event["seconds"] if "seconds" in event else at_latest
        if event["at"] >= since:
            found.append((start, event["at"]))
    return found


def _inside(
    sent_at: NDArray[np.float64], latency_ms: NDArray[np.float64], spans: list[tuple[float, float]]
) -> NDArray[np.float64]:
    """Latencies of the searches that were under way in one of the spans; one zero when there are none."""
    chosen = np.zeros(len(sent_at), bool)
    for start, end in spans:
        chosen |= (sent_at <= end) & (sent_at + latency_ms / 1000 >= start)
    return latency_ms[chosen] if chosen.any() else np.zeros(1)
