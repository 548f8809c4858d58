"""Points with payload indexes in an engine, what filters must find there, and the payloads that are read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from tests.filter_oracle import oracle
from tests.unit.running_engine import RunningEngine, wait_until
from tests.unit.store_on_disk import vector
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.points import PointBatch
from vecstow_engine.query.matching import find_candidates, matching_labels
from vecstow_engine.query.reading import matching_count
from vecstow_engine.service.collection import Collection
from vecstow_engine.storage.view import View

INDEXES = (
    PayloadIndex("n", "integer"), PayloadIndex("word", "keyword"), PayloadIndex("tags", "keyword"),
    PayloadIndex("place.lat", "float"), PayloadIndex("flag", "boolean"), PayloadIndex("at", "datetime"),
)  # fmt: skip
DOCUMENTS: list[dict[str, Any]] = [
    {"n": {"$gte": 5}},
    {"word": {"$in": ["w1", "w3", "none"]}},
    {"tags": {"$contains": "t1"}},
    {"tags": {"$size": 2}},
    {"place.lat": {"$lt": 3.5}},
    {"flag": True},
    {"at": {"$gte": {"datetime": "2024-05-05T00:00:00Z"}}},
    {"$not": {"word": "w0"}},
    {"n": {"$exists": False}},
    {"$or": [{"n": 1}, {"word": "w2", "flag": False}]},
]


def payload(number: int) -> dict[str, Any] | None:
    """The payload of the point of a number; every eleventh has none."""
    if number % 11 == 10:
        return None
    return {
        "n": number % 9,
        "word": f"w{number % 5}",
        "tags": ["all", f"t{number % 3}"],
        "place": {"lat": number % 8 / 2},
        "flag": number % 2 == 0,
        "at": f"2024-05-{number % 9 + 1:02}T10:00:00Z",
    }


class IndexedPoints:
    """The points of one collection, in the engine and as a model."""

    def __init__(self, engine: RunningEngine, name: str = "notes") -> None:
        self.engine = engine
        self.name = name
        self.points: dict[str, dict[str, Any] | None] = {}

    @property
    def collection(self) -> Collection:
        return self.engine.collection(self.name)

    async def put(self, numbers: Iterable[int], shift: int = 0) -> None:
        """Store the points p<number>, with the payloads of the numbers plus `shift`."""
        numbers = list(numbers)
        added = {f"p{number}": payload(number + shift) for number in numbers}
        vectors = np.array([vector(number + 1.0) for number in numbers], np.float32)
        batch = PointBatch.build(self.collection.manifest, list(added), vectors, list(added.values()))
        await self.engine.upsert(self.name, batch)
        self.points |= added

    async def delete(self, numbers: Iterable[int]) -> None:
        """Delete the points of these numbers."""
        ids = [f"p{number}" for number in numbers]
        await self.engine.delete_points(self.name, ids)
        for point_id in ids:
            del self.points[point_id]

    def declare(self, indexes: tuple[PayloadIndex, ...] = INDEXES) -> None:
        """Declare payload indexes as REST does."""
        self.engine.declarations.declare_payload_indexes(self.collection, indexes)

    def complete(self) -> PayloadColumns:
        """The columns, once they answer all declared fields."""
        wait_until(lambda: self.collection.payload_indexes.unfinished is None)
        columns = self.collection.payload_indexes.complete
        assert columns is not None
        return columns

    def check(self, engine: RunningEngine | None = None, name: str | None = None) -> None:
        """Assert that each filter finds its points, by default in the collection of this object."""
        source = (engine or self.engine).collection(name or self.name).source()
        assert source is not None
        for document in DOCUMENTS:
            wanted = {i for i, each in self.points.items() if oracle(document, each, i)}
            parsed = parse_filter(document)
            labels = matching_labels(source, parsed)
            points = [point for point in source.view.resolve(labels) if point is not None]
            assert {point_id for point_id, _ in points} == wanted, document
            assert matching_count(source, parsed) == len(labels) == len(wanted), document

    def are_certain(self, engine: RunningEngine | None = None, name: str | None = None) -> bool:
        """Whether the columns answer each filter without a payload."""
        source = (engine or self.engine).collection(name or self.name).source()
        assert source is not None
        found = [find_candidates(source, parse_filter(document)) for document in DOCUMENTS]
        return all(each.sure_count == each.possible_count for each in found)


class Reads:
    """Counts the points whose payloads are read, and the scans of all of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points = self.scans = 0
        resolve, scan, once = View.resolve, View.scan, View.scan_once

        def counted_resolve(view: View, labels: Any) -> Any:
            self.points += len(labels)
            return resolve(view, labels)

        def counted_scan(view: View) -> Any:
            self.scans += 1
            return scan(view)

        def counted_once(view: View) -> Any:
            self.scans += 1
            return once(view)

        monkeypatch.setattr(View, "resolve", counted_resolve)
        monkeypatch.setattr(View, "scan", counted_scan)
        monkeypatch.setattr(View, "scan_once", counted_once)
