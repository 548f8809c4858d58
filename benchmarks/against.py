"""against: how fast vectors become durable with this engine, and with that of another checkout beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.harness.bodies import BATCH_ROWS, insert_requests
from benchmarks.harness.collection import NAME as COLLECTION
from benchmarks.harness.collection import create
from benchmarks.harness.context import Context
from benchmarks.harness.figures import BenchmarkFailed, Figure, Series, Target
from benchmarks.harness.sending import send_all
from benchmarks.harness.server import Server
from benchmarks.harness.wire import MSGPACK

NAME = "against"
SMALL_BATCH_ROWS = 10
SMALL_BATCHES = 2_000
RATIO_MIN = 0.95
HERE = Path(__file__).parents[1]


def measure(context: Context) -> Iterator[Figure]:
    """Both in turn, the first of a pair last in the next: a slower moment of the machine meets both."""
    if context.against is None or not (context.against / "engine" / "vecstow_engine").is_dir():
        raise BenchmarkFailed(f"no checkout to compare with: --against {context.against}")
    checkouts = {"here": HERE, "there": context.against}
    for kind, rows in {"large": BATCH_ROWS, "small": SMALL_BATCH_ROWS}.items():
        vectors = context.rows if kind == "large" else context.rows[: rows * SMALL_BATCHES]
        requests = list(insert_requests(COLLECTION, vectors, MSGPACK, batch_rows=rows))
        yield from _compare(context, checkouts, requests, rows, len(vectors))


def _compare(
    context: Context, checkouts: Mapping[str, Path], requests: Sequence[bytes], batch_rows: int, count: int
) -> Iterator[Figure]:
    rates, costs = Series(), Series()
    for run in range(-1, context.runs):
        order = list(checkouts) if run % 2 else list(reversed(checkouts))
        for which in order:
            context.say(f"batches of {batch_rows}, run {run + 1}: {which}")
            rate, cost = _ingest(context, checkouts[which], requests, count)
            if run >= 0:  # the first pair warms caches and compiles bytecode
                rates.add(**{which: rate})
                costs.add(**{which: cost})
    yield Figure(
        NAME, f"acknowledged, batches of {batch_rows}", "vectors/s", rates["here"], rates["there"], "there",
        target=Target(at_least=RATIO_MIN, of_ratio=True),
        note=f"against: this checkout, and beside it {context.against}, in turn.",
    )  # fmt: skip
    yield Figure(
        NAME, f"server's processor time, batches of {batch_rows}", "µs/vector",
        costs["here"], costs["there"], "there",
    )  # fmt: skip


def _ingest(context: Context, checkout: Path, requests: Sequence[bytes], count: int) -> tuple[float, float]:
    """Vectors a second, from the first byte sent to the last answer; and microseconds of the server's."""
    with Server(context.volume(), engine=checkout / "engine") as server, server.connect() as connection:
        create(connection, context.sizes.dimension)
        cpu = server.cpu_seconds()
        sent = send_all(server, requests)
        return count / sent.seconds, (server.cpu_seconds() - cpu) / count * 1e6
