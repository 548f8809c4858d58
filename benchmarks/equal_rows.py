"""equal: recall, and the time to build, where many rows are equal or nearly equal."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.harness.collection import NAME as COLLECTION
from benchmarks.harness.collection import ask, create, fill, wait_indexed
from benchmarks.harness.context import Context, K
from benchmarks.harness.dataset import Rows, with_equal
from benchmarks.harness.figures import Figure, Target
from benchmarks.harness.server import Server
from benchmarks.harness.truth import Truth

NAME = "equal"
METRICS = ("Cosine", "Euclidean", "DotProduct", "Manhattan")
ROWS = 20_000
QUERIES = 500
SHARES = (0.0, 0.05, 0.3, 0.7)
SPREADS = {"equal": 0.0, "nearly equal": 1e-3}
"""Standard deviation of each value around the common one; the rows have unit length."""
RECALL_MIN = 0.95


def measure(context: Context) -> Iterator[Figure]:
    """Queries come from the same mixture as the other rows: they ask for ordinary points."""
    rows, queries = context.rows[:ROWS], context.queries[:QUERIES]
    note = f"equal: {len(rows):,} x {rows.shape[1]} rows, {len(queries)} queries, default ef."
    with Server(context.volume()) as server:
        for metric in METRICS:
            for share in SHARES:
                for kind, spread in SPREADS.items() if share else [("", 0.0)]:
                    name = f"{metric}, {share:.0%} {kind}".rstrip()
                    context.say(name)
                    recall, seconds = _recall(server, with_equal(rows, share, spread), queries, metric)
                    target = Target(at_least=RECALL_MIN)
                    yield Figure(NAME, name, "", [recall], target=target, note=note)
                    yield Figure(NAME, f"{name}: from the first batch to the whole graph", "s", [seconds])


def _recall(server: Server, rows: Rows, queries: Rows, metric: str) -> tuple[float, float]:
    with server.connect() as connection:
        create(connection, rows.shape[1], metric=metric)
        started = time.perf_counter()
        fill(server, rows)
        wait_indexed(connection)
        seconds = time.perf_counter() - started
        found = ask(connection, queries, K)
        connection.call("DELETE", f"/collections/{COLLECTION}/hard-delete")
    return Truth(rows, queries, K, metric).recall(found), seconds
