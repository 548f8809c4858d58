"""hybrid: real questions by their vector, by their words, and by both: how often the package comes first."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from benchmarks.harness.collection import wait_indexed
from benchmarks.harness.context import Context, K
from benchmarks.harness.dataset import Rows
from benchmarks.harness.figures import Figure, Target
from benchmarks.harness.server import Server
from benchmarks.harness.wire import Connection

NAME = "hybrid"
COLLECTION = "packages"
BATCH: Final = 1000
TYPED: Final = "typed"
SETS: Final = {TYPED: "questions as typed", "questions": "questions as written"}
FUSED: Final[dict[str, dict[str, float]]] = {
    "": {},
    ", k = 60": {"k": 60},
    ", text 3, k = 0": {"text": 3, "k": 0},
}
"""The weights of `fusion` that are compared."""


def measure(context: Context) -> Iterator[Figure]:
    """The mean of 1 / rank of the package that a question is about, among ten hits (MRR@10)."""
    data = context.data
    wanted = [question["package"] for question in _json(data / "questions.json")]
    with Server(context.volume()) as server, server.connect() as connection:
        context.say("filling the collection")
        _fill(connection, data)
        for file, name in SETS.items():
            vectors = np.load(data / f"{file}.f16.npy").astype(np.float32)
            context.say(name)
            target = Target(at_least=1, of_ratio=True) if file == TYPED else None
            yield from _compared(connection, name, wanted, vectors, _texts(data / f"{file}.json"), target)


def _compared(
    connection: Connection,
    name: str,
    wanted: Sequence[str],
    vectors: Rows,
    texts: Sequence[str],
    target: Target | None,
) -> Iterator[Figure]:
    near = [{"vector": vector.tolist()} for vector in vectors]
    words = [{"text": text} for text in texts]
    alone = {}
    for kind, searches in (("vector", near), ("text", words)):
        alone[kind], milliseconds = _ask(connection, searches, wanted)
        yield Figure(NAME, f"{name}: {kind}", "", [alone[kind]])
        yield Figure(NAME, f"{name}: {kind}, p50", "ms", [milliseconds])
    better = max(alone, key=lambda kind: alone[kind])
    for weights, fusion in FUSED.items():
        both = [{**a, **b, "fusion": fusion} for a, b in zip(near, words, strict=True)]
        found, milliseconds = _ask(connection, both, wanted)
        yield Figure(
            NAME, f"{name}: both{weights}", "", [found], [alone[better]], beside_name=f"{better} alone",
            target=target,
            note=f"hybrid: MRR@{K}, {len(wanted)} questions, 10,000 packages whose summaries are indexed.",
        )  # fmt: skip
        yield Figure(NAME, f"{name}: both{weights}, p50", "ms", [milliseconds])


def _ask(
    connection: Connection, searches: Sequence[Mapping[str, Any]], wanted: Sequence[str]
) -> tuple[float, float]:
    """The MRR of these searches, and the median of their milliseconds."""
    ranks, seconds = [], []
    for search, package in zip(searches, wanted, strict=True):
        started = time.perf_counter()
        hits = connection.call(
            "POST", f"/collections/{COLLECTION}/search", {**search, "limit": K, "with_metadata": False}
        )
        seconds.append(time.perf_counter() - started)
        ids = [hit["id"] for hit in hits]
        ranks.append(1 / (1 + ids.index(package)) if package in ids else 0.0)
    return sum(ranks) / len(ranks), 1000 * median(seconds)


def _fill(connection: Connection, data: Path) -> None:
    rows = np.load(data / "packages.f16.npy").astype(np.float32)
    with gzip.open(data / "packages.jsonl.gz", "rt", encoding="utf-8") as lines:
        payloads = [json.loads(line) for line in lines]
    shape = {"dimension": rows.shape[1], "distance_metric": "Cosine"}
    indexes = [{"field": "summary", "type": "text"}]
    connection.call("POST", "/collections", {"name": COLLECTION, **shape, "payload_indexes": indexes})
    for start in range(0, len(rows), BATCH):
        points = [
            {"id": payload["id"], "data": row.tolist(), "metadata": payload}
            for row, payload in zip(rows[start : start + BATCH], payloads[start : start + BATCH], strict=True)
        ]
        connection.call("POST", f"/collections/{COLLECTION}/vectors/batch", {"vectors": points})
    wait_indexed(connection, COLLECTION)


def _texts(path: Path) -> list[str]:
    return [each if isinstance(each, str) else each["text"] for each in _json(path)]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
