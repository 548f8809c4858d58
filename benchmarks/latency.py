"""latency: what a search waits while others write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.bodies import search_requests
from benchmarks.harness.closed_loop import Probe
from benchmarks.harness.collection import NAME as COLLECTION
from benchmarks.harness.collection import create, fill, wait_indexed
from benchmarks.harness.context import Context, K
from benchmarks.harness.figures import Figure, Series
from benchmarks.harness.server import Server
from benchmarks.harness.wire import JSON, write_requests

NAME = "latency"
QUIET_SECONDS = 1.0
WINDOWS = {"writing": "while batches are written", "indexing": "while the graph catches up"}


def measure(context: Context) -> Iterator[Figure]:
    """A collection is doubled while one connection searches it, one search after the other."""
    requests = context.folder / "latency.requests"
    write_requests(requests, search_requests(COLLECTION, context.queries, JSON, K))
    series = Series()
    for run in range(context.runs):
        context.say(f"run {run + 1}")
        series.add(**_run(context, requests))
    for window, spelt in WINDOWS.items():
        for part in ("p50", "p99", "max"):
            yield Figure(
                NAME, f"{part} {spelt}", "ms", series[f"{window}_{part}"], series[f"quiet_{part}"], "quiet",
                note="latency: JSON searches on one connection, MessagePack batches on four others.",
            )  # fmt: skip


def _run(context: Context, requests: Path) -> dict[str, float]:
    count = context.sizes.rows
    more = context.mixture.rows(count, start=count)
    with Server(context.volume()) as server, server.connect() as connection:
        create(connection, context.sizes.dimension)
        fill(server, context.rows)
        wait_indexed(connection)
        with Probe(server.port, requests, context.folder / "latency") as probe:
            marks = [time.time()]
            time.sleep(QUIET_SECONDS)
            marks.append(time.time())
            fill(server, more, first_id=count)
            marks.append(time.time())
            wait_indexed(connection)
            marks.append(time.time())
            sent_at, latency_ms = probe.stop()
    found: dict[str, float] = {}
    for number, window in enumerate(("quiet", "writing", "indexing")):
        inside = (sent_at >= marks[number]) & (sent_at < marks[number + 1])
        found |= {f"{window}_{part}": value for part, value in percentiles(latency_ms[inside]).items()}
    return found


def percentiles(latency_ms: NDArray[np.float64]) -> dict[str, float]:
    """p50, p99 and max; zeros when nothing was measured."""
    values = np.percentile(latency_ms, (50, 99, 100)).tolist() if len(latency_ms) else [0.0, 0.0, 0.0]
    return dict(zip(("p50", "p99", "max"), values, strict=True))
