"""Collections behind the REST routes, and the answers that numpy computes of their points."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tests.unit.asgi_client import AsgiClient, Reply
from tests.unit.running_engine import RunningEngine
from vecstow_engine.api.server import create_app
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.points import PointBatch

DIMENSION = 6
Floats = NDArray[np.float64]
PACKED = {"content-type": "application/msgpack", "accept": "application/msgpack"}


@dataclass
class Stored:
    """The points of one collection as they are stored."""

    name: str
    metric: DistanceMetric
    ids: list[str]
    vectors: Floats
    """Shape (n, d)."""
    payloads: list[dict[str, Any] | None]

    def row(self, point_id: str) -> Floats:
        return np.asarray(self.vectors[self.ids.index(point_id)])

    def payload(self, point_id: str) -> dict[str, Any] | None:
        return self.payloads[self.ids.index(point_id)]

    def distances(self, vector: Any) -> Floats:
        """The distance of each point to a vector, in double precision."""
        return distances(self.metric, np.asarray(vector, np.float64), self.vectors)

    def nearest(
        self,
        vector: Any,
        *,
        without: Sequence[str] = (),
        fits: Any = lambda payload: True,
        max_distance: float = np.inf,
    ) -> list[int]:
        """Positions of the points that fit, nearest first."""
        apart = self.distances(vector)
        order = np.argsort(apart, kind="stable")
        return [
            int(at)
            for at in order
            if apart[at] <= max_distance and self.ids[at] not in without and fits(self.payloads[at] or {})
        ]


def distances(metric: DistanceMetric, vector: Floats, rows: Floats) -> Floats:
    """Distances by the metrics' definitions."""
    if metric is DistanceMetric.EUCLIDEAN:
        return np.asarray(np.sqrt(((rows - vector) ** 2).sum(axis=1)))
    if metric is DistanceMetric.MANHATTAN:
        return np.asarray(np.abs(rows - vector).sum(axis=1))
    products = rows @ vector
    if metric is DistanceMetric.COSINE:
        products = products / (np.linalg.norm(rows, axis=1) * np.linalg.norm(vector))
    return np.asarray(1 - products)


async def store(
    engine: RunningEngine,
    name: str,
    metric: DistanceMetric,
    count: int,
    vector_type: VectorType = VectorType.FLOAT32,
    **declared: Any,
) -> Stored:
    """Make a collection of `count` points around a few centres, some of them equal, some without payload."""
    engine.declare(name, dimension=DIMENSION, distance_metric=metric, vector_type=vector_type, **declared)
    random = np.random.default_rng(count + list(DistanceMetric).index(metric))
    centres = random.normal(size=(9, DIMENSION))
    rows = centres[random.integers(9, size=count)] + random.normal(size=(count, DIMENSION)) * 0.5
    rows[5::50] = rows[4::50]
    payloads: list[dict[str, Any] | None] = [
        {"n": n, "doc": f"doc{n % 60}", "tags": [f"t{n % 3}", n % 5, n % 2 == 0], "at": {"x": n % 7}}
        for n in range(count)
    ]
    payloads[3::40] = [None] * len(payloads[3::40])
    ids = [f"p{n}" for n in range(count)]
    manifest = engine.collection(name).manifest
    await engine.upsert(name, PointBatch.build(manifest, ids, rows.astype(np.float32), payloads))
    points = await engine.get_points(name, ids)
    stored = np.array([point.vector for point in points if point is not None], np.float64)
    return Stored(name, metric, ids, stored, payloads)


class Asker:
    """A client that asks in one of the two formats, with vectors as lists."""

    def __init__(self, engine: RunningEngine, *, packed: bool) -> None:
        self._client = AsgiClient(create_app(engine))
        self._packed = packed

    async def post(self, collection: str, route: str, body: Mapping[str, Any]) -> Reply:
        target = f"/collections/{collection}/{route}"
        if not self._packed:
            return await self._client.call("POST", target, body)
        packed = msgspec.msgpack.encode(_with_bins(body))
        return await self._client.call("POST", target, body=packed, headers=PACKED)

    async def ask(self, collection: str, route: str, body: Mapping[str, Any]) -> Any:
        """The `data` of an answer, vectors as lists in both formats."""
        reply = await self.post(collection, route, body)
        answer = msgspec.msgpack.decode(reply.body) if self._packed else json.loads(reply.body)
        assert reply.status == 200, answer
        assert set(answer) == {"success", "data", "error"}
        return _without_bins(answer["data"])


def _with_bins(value: Any, key: str = "") -> Any:
    """A body with its vectors as bins of float32."""
    if isinstance(value, Mapping):
        return {name: inner if name == "filter" else _with_bins(inner, name) for name, inner in value.items()}
    if isinstance(value, list | np.ndarray) and key not in ("searches", "with_metadata"):
        if key in ("positive", "negative"):
            return [each if isinstance(each, str) else _with_bins(each) for each in value]
        return np.asarray(value, "<f4").tobytes()
    return [_with_bins(each) for each in value] if key == "searches" else value


def _without_bins(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_bins(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_bins(each) for each in value]
    return np.frombuffer(value, "<f4").tolist() if isinstance(value, bytes) else value
