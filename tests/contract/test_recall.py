"""Recall of the whole engine on real embeddings, held against exact search of the float32 vectors."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from vecstow_engine.index import exact
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.points import PointBatch
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.service.engine import Engine
from vecstow_engine.service.settings import Settings, StorageSettings

PACKAGES = Path(__file__).parents[2] / "examples" / "packages"
ROWS = 4000
QUESTIONS = 150
K = 10


@pytest.fixture(scope="module")
def data():
    rows = np.load(PACKAGES / "packages.f16.npy", mmap_mode="r")[:ROWS].astype(np.float32)
    questions = np.load(PACKAGES / "questions.f16.npy")[:QUESTIONS].astype(np.float32)
    assert len(json.loads((PACKAGES / "questions.json").read_text())) >= QUESTIONS
    return rows, questions


async def recall_of(folder, manifest, rows, questions):
    """recall@10 of a fully indexed collection at its default ef_search."""
    engine = Engine(Settings(data=folder, storage=StorageSettings(reserve_bytes=0)))
    await asyncio.to_thread(engine.start)
    try:
        await asyncio.to_thread(engine.catalog.create, manifest)
        for start in range(0, len(rows), 500):
            part = rows[start : start + 500]
            ids = [str(start + line) for line in range(len(part))]
            await engine.upsert(manifest.name, PointBatch.build(manifest, ids, part, None))
        index = engine.collection(manifest.name).index
        while index.pending:
            await asyncio.sleep(0.02)
        found = await asyncio.gather(
            *(engine.search(manifest.name, SearchQuery.build(manifest, q, K)) for q in questions)
        )
    finally:
        await asyncio.to_thread(engine.stop)
    metric = manifest.distance_metric
    labels = np.arange(len(rows), dtype=np.uint64)
    prepared = exact.prepare(metric, rows)
    truth = exact.nearest(metric, exact.prepare(metric, questions), prepared, labels, K)
    hits = [{int(hit.id) for hit in hits} for hits in found]
    shared = [len(ids & set(line.tolist())) for ids, line in zip(hits, truth.labels, strict=True)]
    return sum(shared) / (K * len(questions))


@pytest.mark.parametrize("metric", list(DistanceMetric), ids=str)
def test_recall_at_the_default_ef_search_is_at_least_0_95(tmp_path, data, metric):
    manifest = Manifest(name="packages", dimension=384, distance_metric=metric)
    assert asyncio.run(recall_of(tmp_path, manifest, *data)) >= 0.95


@pytest.mark.parametrize(
    ("vector_type", "loss_max"), [(VectorType.FLOAT16, 0.01), (VectorType.INT8, 0.03)], ids=str
)
def test_recall_of_smaller_types_stays_near_that_of_float32(tmp_path, data, vector_type, loss_max):
    recall = {}
    for kind in (VectorType.FLOAT32, vector_type):
        manifest = Manifest(
            name="packages", dimension=384, distance_metric=DistanceMetric.COSINE, vector_type=kind
        )
        recall[kind] = asyncio.run(recall_of(tmp_path / kind, manifest, *data))
    assert recall[vector_type] >= recall[VectorType.FLOAT32] - loss_max
