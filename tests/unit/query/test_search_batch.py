"""Several searches in one request: one answer each, and calls of the index that they share."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
import pytest

from tests.unit.query.served import DIMENSION, Asker, store
from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.service import searcher

VECTORS = np.random.default_rng(5).normal(size=(100, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with RunningEngine(tmp_path_factory.mktemp("batch") / "data") as engine:
        asyncio.run(store(engine, "flat", DistanceMetric.EUCLIDEAN, 300))
        asyncio.run(store(engine, "graph", DistanceMetric.COSINE, 1500))
        engine.indexed("graph")
        yield engine


@pytest.fixture(params=[False, True], ids=["json", "msgpack"])
def asker(served, request):
    return Asker(served, packed=request.param)


@pytest.fixture
def calls(monkeypatch):
    """The numbers of searches that the calls had."""
    sizes = []
    together, alone = searcher.search_many, searcher.search_alone
    monkeypatch.setattr(
        searcher, "search_many", lambda found, queries: sizes.append(len(queries)) or together(found, queries)
    )
    monkeypatch.setattr(searcher, "search_alone", lambda found, query: sizes.append(1) or alone(found, query))
    return sizes


MIXED = [
    {"vector": VECTORS[0].tolist()},
    {"id": "p4", "limit": 3, "offset": 2},
    {"vector": VECTORS[1].tolist(), "filter": {"n": {"$lt": 50}}, "limit": 4},
    {"vector": VECTORS[2].tolist(), "diversity": 0.5, "with_vectors": True},
    {"vector": VECTORS[3].tolist(), "max_distance": 1.5, "with_metadata": False},
    {"vector": VECTORS[4].tolist(), "with_metadata": ["n"], "ef_search": 300},
]


@pytest.mark.parametrize("name", ["flat", "graph"])
async def test_each_search_is_answered_as_if_alone(asker, name):
    together = await asker.ask(name, "search/batch", {"searches": MIXED})
    assert together == [await asker.ask(name, "search", search) for search in MIXED]


@pytest.mark.parametrize("name", ["flat", "graph"])
async def test_searches_that_can_share_a_call_do(asker, name, calls):
    searches = [{"vector": vector.tolist()} for vector in VECTORS[:60]]
    searches += [{"id": f"p{n}", "offset": n % 3} for n in range(4)]
    answers = await asker.ask(name, "search/batch", {"searches": searches})
    assert calls == [64]
    assert len(answers) == 64


async def test_a_hundred_searches_take_two_calls(asker, calls):
    searches = [{"vector": vector.tolist()} for vector in VECTORS]
    assert len(await asker.ask("flat", "search/batch", {"searches": searches})) == 100
    assert sorted(calls) == [36, 64]


async def test_a_hundred_filtered_searches_take_one_place_in_the_queue(asker, calls):
    searches = [{"vector": vector.tolist(), "filter": {"n": 5}} for vector in VECTORS]
    answers = await asker.ask("flat", "search/batch", {"searches": searches})
    assert [[hit["id"] for hit in hits] for hits in answers] == [["p5"]] * 100
    assert calls == [1] * 100


async def test_no_searches_have_no_answers(asker):
    assert await asker.ask("flat", "search/batch", {"searches": []}) == []


async def test_the_error_of_the_first_search_that_fails_is_the_answer(asker):
    for failing in (
        [{"id": "nobody"}],
        [{"vector": VECTORS[0].tolist(), "filter": {"n": 1}}, {"id": "nobody"}],
    ):
        reply = await asker.post("flat", "search/batch", {"searches": [*failing, *MIXED]})
        assert reply.status == 404
        assert b"has no point with id 'nobody'" in reply.body


async def test_the_other_searches_of_a_failed_batch_leave_no_unseen_error(served, monkeypatch):
    """asyncio logs an error that nothing has read when its future is collected."""
    unseen = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unseen.append(context))

    def refused(found, queries):
        return [ValueError("each fails")] * len(queries)

    monkeypatch.setattr(searcher, "search_many", refused)
    searches = [{"vector": vector.tolist()} for vector in VECTORS[:5]]
    reply = await Asker(served, packed=False).post("flat", "search/batch", {"searches": searches})
    await asyncio.sleep(0)
    gc.collect()
    assert (reply.status, unseen) == (500, [])
