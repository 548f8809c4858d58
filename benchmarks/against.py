"""against: ingest and search with this engine, and with that of another checkout in the same runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness.bodies import BATCH_ROWS, insert_requests, search_requests
from benchmarks.harness.collection import NAME as COLLECTION
from benchmarks.harness.collection import create, fill, wait_indexed
from benchmarks.harness.context import Context, K
from benchmarks.harness.dataset import Rows, with_equal
from benchmarks.harness.figures import BenchmarkFailed, Figure, Series, Target
from benchmarks.harness.load import drive
from benchmarks.harness.sending import send_all
from benchmarks.harness.server import Server
from benchmarks.harness.wire import JSON, MSGPACK, write_requests

NAME = "against"
SMALL_BATCH_ROWS = 10
SMALL_BATCHES = 2_000
RATIO_MIN = 0.97
BUILD_RATIO_MAX = 1.1
LOADS = {"JSON, 1 connection": (JSON, 1), "MessagePack, 16 connections": (MSGPACK, 16)}
HERE = Path(__file__).parents[1]


def measure(context: Context) -> Iterator[Figure]:
    """Both in turn, the first of a pair last in the next: a slower moment of the machine meets both."""
    if context.against is None or not (context.against / "engine" / "vecstow_engine").is_dir():
        raise BenchmarkFailed(f"no checkout to compare with: --against {context.against}")
    checkouts = {"here": HERE, "there": context.against}
    for kind, rows in {"large": BATCH_ROWS, "small": SMALL_BATCH_ROWS}.items():
        vectors = context.rows if kind == "large" else context.rows[: rows * SMALL_BATCHES]
        requests = list(insert_requests(COLLECTION, vectors, MSGPACK, batch_rows=rows))
        yield from _compare_ingest(context, checkouts, requests, rows, len(vectors))
    for kind, share in {"ordinary rows": 0.0, "30 % of the rows equal": 0.3}.items():
        yield from _compare_build(context, checkouts, kind, with_equal(context.rows, share))
    yield from _compare_search(context, checkouts)


def _compare_ingest(
    context: Context, checkouts: Mapping[str, Path], requests: Sequence[bytes], batch_rows: int, count: int
) -> Iterator[Figure]:
    rates, costs = Series(), Series()
    for run, which in _turns(context, checkouts):
        context.say(f"batches of {batch_rows}, run {run}: {which}")
        rate, cost = _ingest(context, checkouts[which], requests, count)
        if run:
            rates.add(**{which: rate})
            costs.add(**{which: cost})
    yield _rate(context, f"acknowledged, batches of {batch_rows}", "vectors/s", rates)
    yield _cost(f"batches of {batch_rows}", "µs/vector", costs)


def _compare_build(
    context: Context, checkouts: Mapping[str, Path], kind: str, rows: Rows
) -> Iterator[Figure]:
    """From the first batch until the graph has all rows."""
    times = Series()
    for run, which in _turns(context, checkouts):
        context.say(f"graph, {kind}, run {run}: {which}")
        with Server(context.volume(), engine=checkouts[which] / "engine") as server:
            seconds = _fill(context, server, rows)
        if run:
            times.add(**{which: seconds})
    yield Figure(
        NAME, f"whole graph, {kind}", "s", times["here"], times["there"], "there",
        target=Target(at_most=BUILD_RATIO_MAX, of_ratio=True),
    )  # fmt: skip


def _fill(context: Context, server: Server, rows: Rows) -> float:
    """Seconds until an empty volume's collection has all rows in its graph."""
    with server.connect() as connection:
        create(connection, context.sizes.dimension)
        started = time.perf_counter()
        fill(server, rows)
        wait_indexed(connection)
        return time.perf_counter() - started


def _compare_search(context: Context, checkouts: Mapping[str, Path]) -> Iterator[Figure]:
    """One process of each serves all runs: every run asks the same graphs."""
    with ExitStack() as stack:
        servers = {}
        for which, checkout in checkouts.items():
            context.say(f"search: filling {which}")
            servers[which] = stack.enter_context(Server(context.volume(), engine=checkout / "engine"))
            _fill(context, servers[which], context.rows)
        for load, (media, connections) in LOADS.items():
            requests = context.folder / "against.requests"
            write_requests(requests, search_requests(COLLECTION, context.queries, media, K))
            rates, costs = Series(), Series()
            for run, which in _turns(context, checkouts):
                context.say(f"search, {load}, run {run}: {which}")
                cpu, seconds = servers[which].cpu_seconds(), context.sizes.search_seconds
                rate = drive(servers[which].port, requests, connections, seconds).rate
                if run:
                    rates.add(**{which: rate})
                    costs.add(**{which: (servers[which].cpu_seconds() - cpu) / (rate * seconds) * 1e6})
            yield _rate(context, f"search, {load}", "req/s", rates)
            yield _cost(f"search, {load}", "µs/req", costs)


def _turns(context: Context, checkouts: Mapping[str, Path]) -> Iterator[tuple[int, str]]:
    """Runs with their number; 0 warms caches and compiles bytecode, and is not counted."""
    for run in range(context.runs + 1):
        for which in checkouts if run % 2 else reversed(list(checkouts)):
            yield run, which


def _rate(context: Context, name: str, unit: str, rates: Series) -> Figure:
    return Figure(
        NAME, name, unit, rates["here"], rates["there"], "there",
        target=Target(at_least=RATIO_MIN, of_ratio=True),
        note=f"against: this checkout and {context.against}, in turn.",
    )  # fmt: skip


def _cost(name: str, unit: str, costs: Series) -> Figure:
    return Figure(NAME, f"server's processor time, {name}", unit, costs["here"], costs["there"], "there")


def _ingest(context: Context, checkout: Path, requests: Sequence[bytes], count: int) -> tuple[float, float]:
    """Vectors a second, from the first byte sent to the last answer; and microseconds of the server's."""
    with Server(context.volume(), engine=checkout / "engine") as server, server.connect() as connection:
        create(connection, context.sizes.dimension)
        cpu = server.cpu_seconds()
        sent = send_all(server, requests)
        return count / sent.seconds, (server.cpu_seconds() - cpu) / count * 1e6
