"""Filtered searches and counts against the oracle of filters, in each plan and state of the indexes."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.filter_cases import FILTERS, PAYLOADS, POINT_IDS
from tests.filter_oracle import find, oracle
from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.model.explanation import Explanation
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.points import PointBatch
from vecstow_engine.model.scrolls import Order, ScrollQuery, rank
from vecstow_engine.model.searches import SearchOptions
from vecstow_engine.query import filtered, planning, reading
from vecstow_engine.query.facet import facet
from vecstow_engine.query.matching import matching_labels
from vecstow_engine.query.reading import matching_count
from vecstow_engine.query.scroll import first_in_order
from vecstow_engine.query.source import ATTEMPTS_MAX, Source
from vecstow_engine.service.collection import Collection
from vecstow_engine.storage.log.segment import Upsert

DIMENSION = 4
KINDS = ("keyword", "integer", "float", "boolean", "datetime")
FIELDS = ("a", "b", "c", "a.b", "a.a", "b.lat", "b.lon", "c.a")
POINTS = st.dictionaries(POINT_IDS, PAYLOADS, min_size=1, max_size=8)
DECLARED = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(KINDS), max_size=5)
"""The indexed fields of a collection; others are not indexed."""


class Model:
    """A collection next to a dict of its points, each written with another vector."""

    def __init__(self, engine: RunningEngine) -> None:
        self.engine = engine
        self.points: dict[str, tuple[np.ndarray[Any, Any], dict[str, Any] | None]] = {}
        self.random = np.random.default_rng(0)

    @property
    def collection(self) -> Collection:
        return self.engine.collection("notes")

    def declare(self, declared: dict[str, str]) -> None:
        indexes = tuple(PayloadIndex(field, kind) for field, kind in declared.items())
        self.collection.manifest = dataclasses.replace(self.collection.manifest, payload_indexes=indexes)
        self.collection.payload_indexes.declare(indexes)
        self.engine._payload_indexer.notify(self.collection)

    def wait_complete(self) -> None:
        wait_until(lambda: self.collection.payload_indexes.unfinished is None)

    def write(self, points: dict[str, dict[str, Any] | None]) -> None:
        rows = self.random.standard_normal((len(points), DIMENSION)).astype(np.float32)
        batch = PointBatch.build(self.collection.manifest, list(points), rows, list(points.values()))
        asyncio.run(self.engine.upsert("notes", batch))
        self.points |= {
            point_id: (row, payload) for (point_id, payload), row in zip(points.items(), rows, strict=True)
        }

    def delete(self, ids: list[str]) -> None:
        asyncio.run(self.engine.delete_points("notes", ids))
        for point_id in ids:
            self.points.pop(point_id, None)

    def matching(self, document: dict[str, Any]) -> set[str]:
        return {each for each, (_, payload) in self.points.items() if oracle(document, payload, each)}

    def ordered(self, ids: set[str], order: Order) -> list[str]:
        """The ids of the points with a number or a string in the field, in its order."""
        places = {i: rank(find(self.points[i][1] or {}, order.field)) for i in ids}
        placed = sorted(i for i in ids if places[i] is not None)
        return sorted(placed, key=lambda i: places[i], reverse=order.is_descending)

    def check(self, document: dict[str, Any], limit: int) -> None:
        """Set, count and search of a filter are those of the oracle."""
        wanted = self.matching(document)
        parsed, source = parse_filter(document), self.collection.source()
        assert source is not None
        found = [point[0] for point in source.view.resolve(matching_labels(source, parsed)) if point]
        assert sorted(found) == sorted(wanted)
        assert matching_count(source, parsed) == len(wanted)
        for field in ("a", "b", "c.a"):
            counted = facet(source, field, parsed, 1000, lambda size: None)
            assert Counter(dict(map(typed, counted))) == counts_of(field, [self.points[i][1] for i in wanted])
        for order in (Order("a", False), Order("b", True)):
            assert list(in_order(source, order, parsed)) == self.ordered(wanted, order)
        vector = self.random.standard_normal(DIMENSION).astype(np.float32)
        query = SearchOptions.checked(self.collection.manifest, limit, filter=parsed).query(vector)
        apart = {each: np.linalg.norm(self.points[each][0] - vector) for each in wanted}
        nearest = sorted(apart.values())[:limit]
        hits = asyncio.run(self.engine.search("notes", query))
        assert [hit.distance for hit in hits] == pytest.approx(nearest, rel=1e-4)
        assert [apart[hit.id] for hit in hits] == pytest.approx(nearest, rel=1e-4)


def in_order(source: Source, order: Order, parsed: Filter) -> Iterator[str]:
    """The ids of a scroll in an order, read two points at a time."""
    start = None
    query = ScrollQuery("", filter=parsed, order=order)
    while found := first_in_order(source, query, start, 2):
        yield from (point.id for point in found)
        start = found[-1].position


def typed(entry: tuple[Any, int]) -> tuple[tuple[bool, Any], int]:
    """A value and its count, by a key that tells true from 1."""
    return (isinstance(entry[0], bool), entry[0]), entry[1]


def counts_of(field: str, payloads: list[dict[str, Any] | None]) -> Counter[tuple[bool, Any]]:
    """How many of the payloads have each scalar in a field, as its value or in its array."""
    counts: Counter[tuple[bool, Any]] = Counter()
    for payload in payloads:
        value = find(payload or {}, field)
        elements = value if isinstance(value, list) else [value]
        scalars = [each for each in elements if each is None or isinstance(each, bool | int | float | str)]
        counts.update({(isinstance(each, bool), each) for each in scalars})
    return counts


@pytest.fixture
def model(engine):
    return Model(engine)


@pytest.mark.parametrize("plan", ["by cost", "graph", "exact"])
def test_each_plan_answers_as_the_oracle(engine, monkeypatch, plan):
    """Filters over points of many writes, in the overlay, in the table and in both; slots are used again.

    The index is flat, so a search of the graph is exact, too.
    """
    model = Model(engine)
    if plan != "by cost":
        cost = 0.0 if plan == "exact" else 1e9
        monkeypatch.setattr(planning, "ROW_MICROSECONDS", cost)
    if plan == "graph":
        monkeypatch.setattr(filtered, "DOUBTFUL_MAX", 0)
    choice = random.Random(plan)

    @settings(
        max_examples=850,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(points=POINTS, declared=DECLARED, documents=st.lists(FILTERS, min_size=8, max_size=8))
    def run(points, declared, documents):
        if choice.random() < 0.3:
            model.declare(declared)
        model.write(points)
        if choice.random() < 0.3:
            engine.checkpoint()
        if choice.random() < 0.3:
            model.delete(choice.sample(sorted(model.points), min(3, len(model.points))))
        if choice.random() < 0.8:
            model.wait_complete()
        for document in documents:
            model.check(document, limit=choice.choice([1, 3, 20]))

    run()


def test_a_filter_is_answered_again_after_a_write(model):
    """Candidates of a filter are kept only until the next write, and 1 is not true."""
    model.declare({"a": "boolean"})
    model.write({"a": {"a": True}, "b": {"a": 1}})
    model.wait_complete()
    for document in ({"a": True}, {"a": 1}, {"a": True}, {"a": 1.0}):
        model.check(document, limit=3)
    model.write({"b": {"a": True}})
    model.check({"a": True}, limit=3)
    model.delete(["a"])
    model.check({"a": True}, limit=3)
    model.check({"a": 1}, limit=3)


def explained(model: Model, document: dict[str, Any]) -> Explanation:
    note = Explanation()
    options = SearchOptions.checked(
        model.collection.manifest, filter=parse_filter(document), explanation=note
    )
    asyncio.run(model.engine.search("notes", options.query(np.ones(DIMENSION, np.float32))))
    return note


def test_the_explanation_names_plan_counts_and_fields_without_an_index(model):
    model.declare({"n": "integer"})
    model.write({f"p{n}": {"n": n, "m": n} for n in range(3000)})
    model.wait_complete()
    model.engine.indexed()
    few = explained(model, {"n": {"$lt": 30}})
    assert (few.plan, few.counts["matching"], few.warnings) == ("exact", 30, [])
    many = explained(model, {"n": {"$gte": 30}})
    assert (many.plan, many.counts) == (
        "graph", {"points": 3000, "matching": 2970, "in_doubt": 0, "candidates": many.counts["candidates"]},
    )  # fmt: skip
    assert 10 <= many.counts["candidates"] < 50
    none = explained(model, {"n": -1})
    assert (none.plan, none.reason) == ("none", "no point matches")
    unknown = explained(model, {"m": {"$lt": 2}})
    assert (unknown.plan, unknown.counts["in_doubt"]) == ("scan", 3000)
    assert "no payload index answers the conditions on m" in unknown.warnings[0]
    assert set(unknown.steps) >= {"filter", "payloads"}


def rewriting(model: Model, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, times: int) -> None:
    """Write the point `hot` again after each of the first calls of a function."""
    real, left = getattr(module, name), [times]

    def overtaken(*values: Any, **named: Any) -> Any:
        found = real(*values, **named)
        if left[0]:
            left[0] -= 1
            row, payload = model.points["hot"]
            batch = PointBatch.build(model.collection.manifest, ["hot"], row[None], [payload])
            model.collection.commit([Upsert(batch.ids, batch.rows, batch.payloads, batch.all_new)])
        return found

    monkeypatch.setattr(module, name, overtaken)


@pytest.mark.parametrize("indexed", [False, True], ids=["not indexed", "indexed"])
@pytest.mark.parametrize("times", [1, 2, ATTEMPTS_MAX - 1])
@pytest.mark.parametrize(
    ("module", "name"), [(filtered, "find_candidates"), (filtered, "_nearest"), (filtered, "resolve")]
)
def test_a_search_finds_a_point_that_is_written_again_and_again(
    model, monkeypatch, indexed, times, module, name
):
    """The last attempt pauses writes: the writer here is of the same thread, and stops before."""
    if indexed:
        model.declare({"n": "integer"})
    model.write({"hot": {"n": 1}} | {f"p{number}": {"n": 1} for number in range(20)})
    model.wait_complete()
    rewriting(model, monkeypatch, module, name, times)
    model.points["hot"] = np.full(DIMENSION, 9, np.float32), {"n": 1}
    model.write({"hot": {"n": 1}})
    query = SearchOptions.checked(model.collection.manifest, 1, filter=parse_filter({"n": 1}))
    hits = asyncio.run(model.engine.search("notes", query.query(model.points["hot"][0])))
    assert [hit.id for hit in hits] == ["hot"]


@pytest.mark.parametrize("times", [1, ATTEMPTS_MAX - 1])
def test_a_read_of_many_points_meets_one_that_is_written_again_and_again(model, monkeypatch, times):
    model.declare({"n": "integer"})
    model.write({"hot": {"n": 1}} | {f"p{number}": {"n": 1 + number % 8} for number in range(80)})
    model.wait_complete()
    source, parsed = model.collection.source(), parse_filter({"n": 1, "z": {"$exists": False}})
    assert source is not None
    for read in (
        lambda: matching_count(source, parsed),
        lambda: sum(count for _, count in facet(source, "n", parsed, 10, lambda size: None)),
        lambda: len(list(in_order(source, Order("n"), parsed))),
    ):
        rewriting(model, monkeypatch, reading, "find_candidates", times)
        assert read() == 11
        monkeypatch.undo()
