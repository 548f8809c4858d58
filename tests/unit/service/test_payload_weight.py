"""Payloads, values of groups and values of an order are read no further than their query may have."""

from __future__ import annotations

import contextlib
import sys
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.unit.running_engine import RunningEngine, fill
from tests.unit.store_on_disk import vector
from vecstow_engine.model.errors import TooLarge
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.groups import Group, GroupSearch
from vecstow_engine.model.points import PointBatch
from vecstow_engine.model.scrolls import Order, ScrollQuery
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.query import groups, scroll, search
from vecstow_engine.service import searcher
from vecstow_engine.service.collection import Collection

POINTS = 100
STEP_POINTS = 8


@pytest.fixture
async def engine(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "RESOLVED_POINTS", STEP_POINTS)
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(**fill("p", POINTS))
        yield engine


def query(engine: RunningEngine, limit: int, weigh: Callable[[int], None] | None, **fields) -> SearchQuery:
    manifest = engine.collection("notes").manifest
    point = np.array(vector(1.0), np.float32)
    return SearchQuery.build(manifest, point, limit, weigh=weigh, **fields)


def refusing(seen: list[int]) -> Callable[[int], None]:
    """A weigher that notes what it sees, and refuses everything."""

    def weigh(size: int) -> None:
        seen.append(size)
        raise TooLarge("too much")

    return weigh


async def test_only_the_query_that_may_not_have_more_is_refused(engine):
    seen: list[int] = []
    queries = [query(engine, 40, None), query(engine, 40, refusing(seen)), query(engine, 40, None)]
    first, refused, last = searcher.search_many(engine.collection("notes"), queries)
    assert isinstance(refused, TooLarge)
    assert [hit.id for hit in first] == [hit.id for hit in last] == [f"p{n}" for n in range(40)]
    assert len(seen) == 1


async def test_what_a_refused_query_would_have_is_not_read(engine, monkeypatch):
    view = engine.collection("notes").store.view
    read = []
    resolve = view.resolve
    monkeypatch.setattr(view, "resolve", lambda labels: read.append(len(labels)) or resolve(labels))
    [refused] = searcher.search_many(engine.collection("notes"), [query(engine, POINTS, refusing([]))])
    assert isinstance(refused, TooLarge)
    assert read == [STEP_POINTS]


async def test_payloads_that_do_not_match_a_filter_weigh_nothing(engine):
    seen: list[int] = []
    wanted = query(engine, 2, seen.append, filter=parse_filter({"v": {"$gte": 21}}))
    hits = await engine.search("notes", wanted)
    assert [hit.id for hit in hits] == ["p20", "p21"]
    assert max(seen) == sum(len(hit.payload) for hit in hits)


async def test_a_refused_search_is_an_error_of_its_own(engine):
    with pytest.raises(TooLarge):
        await engine.search("notes", query(engine, 40, refusing([])))
    assert len(await engine.search("notes", query(engine, 40, None))) == 40


async def test_error_of_a_refused_query_keeps_no_frame(engine):
    """A frame would keep what was read for the query while its refusal waits to be sent."""
    [refused] = searcher.search_many(engine.collection("notes"), [query(engine, 40, refusing([]))])
    assert isinstance(refused, TooLarge)
    assert refused.__traceback__ is None


# Groups -----------------------------------------------------------------------------------------------------

LONG = 60_000


@pytest.fixture
async def long(engine, monkeypatch):
    """A hundred points with long values, each of its own, behind ten near points without a value."""
    monkeypatch.setattr(groups, "RESOLVED_POINTS", STEP_POINTS)
    manifest = engine.declare("long")
    await engine.put("long", **fill("near", 10))
    far = np.full((POINTS, 4), 900, np.float32) + np.arange(POINTS, dtype=np.float32)[:, None]
    payloads = [{"g": f"{n:03}" + "x" * LONG} for n in range(POINTS)]
    await engine.upsert("long", PointBatch.build(manifest, [f"far{n}" for n in range(POINTS)], far, payloads))
    return engine.collection("long")


def grouped(collection: Collection, weigh: Callable[[int], None], limit: int = POINTS) -> list[Group]:
    point = np.array(vector(1.0), np.float32)
    wanted = SearchQuery.build(collection.manifest, point, limit, weigh=weigh)
    return searcher.group_alone(collection, wanted, GroupSearch.checked(wanted, "g"))


def limited_to(most: int) -> Callable[[int], None]:
    def weigh(size: int) -> None:
        if size > most:
            raise TooLarge("too much")

    return weigh


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """A list that gets the bytes that Python took at most."""
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
        peak.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("candidates", [10, 20], ids=["no group is known", "some groups are known"])
async def test_values_of_groups_are_refused_before_they_take_the_memory(long, monkeypatch, candidates):
    monkeypatch.setattr(groups, "LIMIT_MAX", candidates)
    with peak_memory() as peak, pytest.raises(TooLarge):
        grouped(long, limited_to(10 * LONG))
    assert peak[0] < (10 + 3 * STEP_POINTS) * LONG < POINTS * LONG


async def test_values_of_groups_are_weighed_with_what_is_held_besides(long, monkeypatch):
    seen: list[int] = []
    found = grouped(long, seen.append)
    values = sum(sys.getsizeof(group.value) for group in found)
    payloads = sum(len(hit.payload) for group in found for hit in group.hits)
    assert len(found) == POINTS
    assert seen[-1] == values + payloads
    monkeypatch.setattr(groups, "LIMIT_MAX", 10)
    seen.clear()
    assert [group.value for group in grouped(long, seen.append)] == [group.value for group in found]
    assert values in seen


async def test_values_of_incomplete_groups_are_weighed_with_those_that_are_completed(long, monkeypatch):
    """Two groups are known and want a second hit, which no point gives them."""
    monkeypatch.setattr(groups, "LIMIT_MAX", 12)
    seen: list[int] = []
    point = np.array(vector(1.0), np.float32)
    wanted = SearchQuery.build(long.manifest, point, 2, weigh=seen.append)
    found = searcher.group_alone(long, wanted, GroupSearch(wanted, "g", 2))
    assert [len(group.hits) for group in found] == [1, 1]
    values = sum(sys.getsizeof(group.value) for group in found)
    payloads = sum(len(hit.payload) for group in found for hit in group.hits)
    assert 2 * values in seen
    assert seen[-1] == 2 * values + payloads


# Scrolls ----------------------------------------------------------------------------------------------------


def scrolled(
    collection: Collection, weigh: Callable[[int], None], limit: int, *, is_descending: bool
) -> list[str]:
    """The ids of a page in the order of the long values."""
    query = ScrollQuery("", limit, order=Order("g", is_descending), weigh=weigh)
    page = scroll.begin_scroll(collection.source(), query)
    found: list[str] = []
    while len(found) < limit and not page.is_done:
        found += [point.position.id for point in page.read(limit - len(found))]
    return found


@pytest.mark.parametrize("is_descending", [False, True])
async def test_values_of_an_order_are_refused_before_they_take_the_memory(long, monkeypatch, is_descending):
    monkeypatch.setattr(scroll, "SPARE_BYTES", 2 * LONG)
    with peak_memory() as peak, pytest.raises(TooLarge, match="field 'g'") as refused:
        scrolled(long, limited_to(10 * LONG), POINTS, is_descending=is_descending)
    assert peak[0] < 30 * LONG < POINTS * LONG
    assert (refused.value.details["field"], refused.value.details["value"]) == ("order_by", "g")


@pytest.mark.parametrize("is_descending", [False, True])
async def test_a_small_page_keeps_few_values_of_its_order(long, monkeypatch, is_descending):
    """Points that come behind the page are dropped by their bytes, long before they are many."""
    monkeypatch.setattr(scroll, "SPARE_BYTES", 2 * LONG)
    expected = [f"far{n}" for n in range(POINTS)]
    for limit in (1, 5):
        with peak_memory() as peak:
            found = scrolled(long, limited_to((limit + 4) * LONG), limit, is_descending=is_descending)
        assert found == (expected[::-1] if is_descending else expected)[:limit]
        assert peak[0] < 30 * LONG < POINTS * LONG
