"""recall: on real embeddings, for every metric and vector type, at the default ef."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.harness.collection import ask, create, fill, wait_indexed
from benchmarks.harness.context import Context, K
from benchmarks.harness.dataset import Embeddings, read_embeddings
from benchmarks.harness.figures import BenchmarkFailed, Figure, Target
from benchmarks.harness.server import Server
from benchmarks.harness.truth import Truth

NAME = "recall"
METRICS = ("Cosine", "Euclidean", "DotProduct", "Manhattan")
RECALL_MIN = 0.95
LOSS_MAX = {"Float16": 0.01, "Int8": 0.03}
_SAME_DISTANCE = 1e-3


def measure(context: Context) -> Iterator[Figure]:
    """Against exact search of the float32 vectors, whatever the type that is stored."""
    embeddings = read_embeddings(context.data)
    queries = embeddings.queries[: context.sizes.recall_queries]
    note = f"recall: {len(embeddings.rows):,} x {embeddings.rows.shape[1]} rows, {len(queries)} queries."
    with Server(context.volume()) as server:
        for metric in METRICS:
            context.say(f"{metric}: exact search")
            truth = Truth(embeddings.rows, queries, K, metric)
            _compare(truth, embeddings, metric)
            full = _recall(context, server, embeddings, truth, metric, "Float32")
            yield Figure(
                NAME, f"{metric}, Float32", "", [full], target=Target(at_least=RECALL_MIN), note=note
            )
            for vector_type, loss_max in LOSS_MAX.items():
                found = _recall(context, server, embeddings, truth, metric, vector_type)
                yield Figure(NAME, f"{metric}, {vector_type}", "", [found])
                target = Target(at_most=loss_max)
                yield Figure(NAME, f"{metric}, {vector_type}: loss", "", [full - found], target=target)


def _recall(
    context: Context, server: Server, embeddings: Embeddings, truth: Truth, metric: str, vector_type: str
) -> float:
    context.say(f"{metric}, {vector_type}")
    name = f"{metric}-{vector_type}"
    queries = embeddings.queries[: context.sizes.recall_queries]
    with server.connect() as connection:
        create(connection, embeddings.rows.shape[1], name, metric, vector_type)
        fill(server, embeddings.rows, name)
        wait_indexed(connection, name)
        found = ask(connection, queries, K, name)
        connection.call("DELETE", f"/collections/{name}/hard-delete")
    return truth.recall(found)


def _compare(truth: Truth, embeddings: Embeddings, metric: str) -> None:
    """Check that the neighbours in the folder are as near as those that were computed here."""
    if metric != "Cosine" or embeddings.cosine_distance is None:
        return
    given = embeddings.cosine_distance[: len(truth.nearest_distance), : truth.k]
    if not np.allclose(given, truth.nearest_distance, atol=_SAME_DISTANCE):
        raise BenchmarkFailed("truth.cosine.npz does not belong to the vectors next to it")
