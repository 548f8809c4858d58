"""Payloads of hits are read no further than the query that asks for them may have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.unit.running_engine import RunningEngine, fill
from tests.unit.store_on_disk import vector
from vecstow_engine.model.errors import TooLarge
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.query import search
from vecstow_engine.service import searcher

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
