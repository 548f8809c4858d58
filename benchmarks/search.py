"""search: answers per second and their latency, with the recall that they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hnswlib

from benchmarks.harness import baseline
from benchmarks.harness.bodies import search_requests
from benchmarks.harness.collection import NAME as COLLECTION
from benchmarks.harness.collection import ask, create, fill, wait_indexed, wait_snapshot
from benchmarks.harness.context import Context, K
from benchmarks.harness.figures import Figure, Series, Target
from benchmarks.harness.load import drive, generator
from benchmarks.harness.server import Server
from benchmarks.harness.truth import Truth
from benchmarks.harness.wire import JSON, MSGPACK, write_requests

NAME = "search"
RATIO_MIN = 0.08
LOADS = {
    "JSON, 1 connection": (JSON, 1),
    "JSON, 4 connections": (JSON, 4),
    "JSON, 16 connections": (JSON, 16),
    "MessagePack, 16 connections": (MSGPACK, 16),
}
SNAPSHOT_ROWS_MIN = 5_000
"""A smaller collection gets no snapshot while the engine runs."""


def measure(context: Context) -> Iterator[Figure]:
    """One process serves all runs; in each, hnswlib is measured while the engine gets no requests."""
    rows, queries = context.rows, context.queries
    raw_index, _ = baseline.build(rows)
    with Server(context.volume()) as server, server.connect() as connection:
        context.say("filling the collection")
        create(connection, context.sizes.dimension)
        fill(server, rows)
        wait_indexed(connection)
        if len(rows) >= SNAPSHOT_ROWS_MIN:
            wait_snapshot(server)
        truth = Truth(rows, queries, K, "Cosine")
        recall = truth.recall(ask(connection, queries, K))
        series = _rates(context, server, raw_index)
    yield from _figures(series)
    raw_recall = truth.recall(baseline.search(raw_index, queries, K))
    yield Figure(NAME, f"recall@{K} at the default ef", "", [recall], [raw_recall])


def _rates(context: Context, server: Server, raw_index: hnswlib.Index) -> dict[str, Series]:
    files = {media: _request_file(context, media) for media in (JSON, MSGPACK)}
    series = {name: Series() for name in LOADS}
    for run in range(context.runs):
        raw_rate, raw_cpu = baseline.search_rate(raw_index, context.queries, K)
        for name, (media, connections) in LOADS.items():
            context.say(f"run {run + 1}: {name}")
            cpu = server.cpu_seconds()
            load = drive(server.port, files[media], connections, context.sizes.search_seconds)
            answers = load.rate * context.sizes.search_seconds
            series[name].add(
                rate=load.rate, p50=load.p50_ms, p99=load.p99_ms, hnswlib=raw_rate, hnswlib_cpu=1e6 * raw_cpu,
                cpu=1e6 * (server.cpu_seconds() - cpu) / answers,
            )  # fmt: skip
    return series


def _request_file(context: Context, media: str) -> Path:
    path = context.folder / f"search-{media.rpartition('/')[2]}.requests"
    write_requests(path, search_requests(COLLECTION, context.queries, media, K))
    return path


def _figures(series: dict[str, Series]) -> Iterator[Figure]:
    for name, found in series.items():
        target = Target(at_least=RATIO_MIN, of_ratio=True) if name == "JSON, 16 connections" else None
        yield Figure(
            NAME, name, "req/s", found["rate"], found["hnswlib"], target=target,
            note=f"search: load from {generator()}; hnswlib gets all queries in one call of two threads.",
        )  # fmt: skip
        yield Figure(NAME, f"{name}: p50", "ms", found["p50"])
        yield Figure(NAME, f"{name}: p99", "ms", found["p99"])
        yield Figure(NAME, f"{name}: server's processor time", "µs/req", found["cpu"], found["hnswlib_cpu"])
