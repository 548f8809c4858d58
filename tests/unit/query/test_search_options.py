"""The options of a search, over REST in both formats, against numpy."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from tests.unit.query.served import DIMENSION, Asker, distances, store
from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.metrics import DistanceMetric, VectorType

FLAT = 300
GRAPH = 1500
NEAR = 2e-5
"""The tolerance of a distance that is computed in float32."""
ALL = {"ef_search": 1000}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An engine with a collection of each metric that is searched exactly, and of two with a graph."""
    with RunningEngine(tmp_path_factory.mktemp("options") / "data") as engine:
        yield engine, asyncio.run(fill(engine))


async def fill(engine):
    stored = {metric.value: await store(engine, metric.value, metric, FLAT) for metric in DistanceMetric}
    for metric in (DistanceMetric.COSINE, DistanceMetric.EUCLIDEAN):
        stored[f"graph-{metric.value}"] = await store(engine, f"graph-{metric.value}", metric, GRAPH)
        assert engine.indexed(f"graph-{metric.value}").index.graph_rows
    for name, kind in (("half", VectorType.FLOAT16), ("bytes", VectorType.INT8)):
        stored[name] = await store(engine, name, DistanceMetric.COSINE, FLAT, kind)
    return stored


@pytest.fixture(params=[False, True], ids=["json", "msgpack"])
def asker(served, request):
    return Asker(served[0], packed=request.param)


NAMES = [*(metric.value for metric in DistanceMetric), "graph-Cosine", "graph-Euclidean", "half", "bytes"]


@pytest.fixture(params=NAMES)
def stored(served, request):
    return served[1][request.param]


@pytest.fixture
def vector():
    return np.random.default_rng(7).normal(size=DIMENSION).astype(np.float32)


def check(stored, hits, wanted, vector):
    """Hits have the distances of the wanted positions; each is as far away as it says."""
    apart = stored.distances(vector)
    assert [hit["distance"] for hit in hits] == pytest.approx(apart[wanted].tolist(), rel=NEAR, abs=NEAR)
    assert len({hit["id"] for hit in hits}) == len(hits)
    for hit in hits:
        assert hit["distance"] == pytest.approx(apart[stored.ids.index(hit["id"])], rel=NEAR, abs=NEAR)


async def test_offset_leaves_the_nearest_out(asker, stored, vector):
    for offset, limit in ((0, 5), (3, 7), (290, 30), (2000, 5)):
        body = {"vector": vector.tolist(), "limit": limit, "offset": offset} | ALL
        hits = await asker.ask(stored.name, "search", body)
        check(stored, hits, stored.nearest(vector)[offset : offset + limit], vector)
        assert all(hit["metadata"] == stored.payload(hit["id"]) for hit in hits)


async def test_pages_join_to_the_whole_answer(asker, stored, vector):
    whole = await asker.ask(stored.name, "search", {"vector": vector.tolist(), "limit": 60} | ALL)
    pages = []
    for offset in range(0, 60, 20):
        body = {"vector": vector.tolist(), "limit": 20, "offset": offset} | ALL
        pages += await asker.ask(stored.name, "search", body)
    assert pages == whole


async def test_max_distance_cuts_the_hits_beyond(asker, stored, vector):
    apart = np.sort(stored.distances(vector))
    for most in (float(apart[10] + apart[11]) / 2, float(apart[0]) - 1.0):
        body = {"vector": vector.tolist(), "limit": 30, "max_distance": most} | ALL
        hits = await asker.ask(stored.name, "search", body)
        check(stored, hits, stored.nearest(vector, max_distance=most)[:30], vector)


async def test_a_hit_at_exactly_the_max_distance_stays(asker, stored, vector):
    body = {"vector": vector.tolist(), "limit": 5}
    [*_, last] = await asker.ask(stored.name, "search", body)
    hits = await asker.ask(stored.name, "search", body | {"max_distance": last["distance"]})
    assert hits[-1] == last


async def test_vectors_are_the_stored_ones(asker, stored, vector):
    for fits in (None, {"n": {"$gte": 100}}):
        body = {"vector": vector.tolist(), "limit": 12, "with_vectors": True, "filter": fits}
        for hit in await asker.ask(stored.name, "search", body):
            assert list(hit) == ["id", "distance", "metadata", "data"]
            assert hit["data"] == stored.row(hit["id"]).tolist()


async def test_hits_have_the_chosen_part_of_their_payload(asker, stored, vector):
    body = {"vector": vector.tolist(), "limit": 80}
    for hit in await asker.ask(stored.name, "search", body | {"with_metadata": False}):
        assert list(hit) == ["id", "distance"]
    for extra in ({}, {"offset": 2}, {"diversity": 0.5}):
        for hit in await asker.ask(
            stored.name, "search", body | extra | {"with_metadata": ["n", "at.x", "no"]}
        ):
            payload = stored.payload(hit["id"])
            wanted = payload and {"n": payload["n"], "at": {"x": payload["at"]["x"]}}
            assert hit["metadata"] == wanted


async def test_a_search_by_id_leaves_out_the_point_and_keeps_its_equals(asker, stored):
    for point_id, equal in (("p4", "p5"), ("p55", "p54"), ("p3", None)):
        row = stored.row(point_id)
        for more in ({}, {"offset": 2}, {"filter": {"n": {"$gte": 40}}}, {"with_vectors": True}):
            body = {"id": point_id, "limit": 9} | ALL | more
            hits = await asker.ask(stored.name, "search", body)
            fits = (lambda payload: payload.get("n", 0) >= 40) if "filter" in more else (lambda payload: True)
            start = more.get("offset", 0)
            wanted = stored.nearest(row, without=[point_id], fits=fits)[start : start + 9]
            check(stored, hits, wanted, row)
            assert point_id not in [hit["id"] for hit in hits]
            if equal is not None and not more and stored.metric is not DistanceMetric.DOT_PRODUCT:
                assert hits[0]["id"] == equal


async def test_a_search_by_the_id_of_no_point_is_answered_like_a_read(asker, stored):
    reply = await asker.post(stored.name, "search", {"id": "nobody"})
    assert reply.status == 404
    assert b"has no point with id 'nobody'" in reply.body


def most_diverse(stored, vector, candidates, count, diversity):
    """MMR by its definition."""
    apart = stored.distances(vector)
    chosen, left = [], list(candidates)
    while left and len(chosen) < count:
        scores = []
        for at in left:
            near = min(
                (distances(stored.metric, stored.vectors[at], stored.vectors[[each]])[0] for each in chosen),
                default=0.0,
            )
            scores.append(-(1 - diversity) * apart[at] + diversity * near)
        chosen.append(left.pop(int(np.argmax(scores))))
    return chosen


@pytest.mark.parametrize("diversity", [0.1, 0.5, 0.9])
async def test_diverse_hits_are_those_of_mmr(asker, stored, vector, diversity):
    """The points that are equal have equal scores, so the hits are compared by their distances."""
    for limit, offset in ((5, 0), (20, 3)):
        body = {"vector": vector.tolist(), "limit": limit, "offset": offset, "diversity": diversity} | ALL
        hits = await asker.ask(stored.name, "search", body)
        candidates = stored.nearest(vector)[: max(4 * (limit + offset), 64)]
        wanted = most_diverse(stored, vector, candidates, limit + offset, diversity)[offset:]
        check(stored, hits, wanted, vector)
        assert all(hit["metadata"] == stored.payload(hit["id"]) for hit in hits)


async def test_no_diversity_is_the_plain_order(asker, stored, vector):
    body = {"vector": vector.tolist(), "limit": 40} | ALL
    plain = await asker.ask(stored.name, "search", body)
    assert await asker.ask(stored.name, "search", body | {"diversity": 0}) == plain


async def test_diverse_hits_match_the_filter_and_the_distance(asker, stored, vector):
    most = float(np.sort(stored.distances(vector))[150])
    fits = {"tags": {"$contains": "t1"}}
    body = {
        "vector": vector.tolist(),
        "limit": 8,
        "diversity": 0.6,
        "filter": fits,
        "max_distance": most,
    } | ALL
    hits = await asker.ask(stored.name, "search", body)
    near = stored.nearest(vector, fits=lambda payload: "t1" in payload.get("tags", []), max_distance=most)
    wanted = most_diverse(stored, vector, near[:64], 8, 0.6)
    check(stored, hits, wanted, vector)


async def test_a_diverse_search_by_id_leaves_out_the_point(asker, stored):
    hits = await asker.ask(stored.name, "search", {"id": "p4", "limit": 30, "diversity": 0.3})
    assert len(hits) == 30
    assert "p4" not in [hit["id"] for hit in hits]


async def test_an_answer_without_new_fields_is_what_it_was_byte_for_byte(served):
    engine, stored = served
    reply = await Asker(engine, packed=False).post("Euclidean", "search", {"vector": [0.0] * DIMENSION})
    shown = []
    for at, hit in zip(stored["Euclidean"].nearest([0.0] * DIMENSION)[:10], reply.data, strict=True):
        payload = json.dumps(stored["Euclidean"].payloads[at], separators=(",", ":"))
        shown.append(f'{{"id":"p{at}","distance":{hit["distance"]!r},"metadata":{payload}}}')
    assert reply.body.decode() == '{"success":true,"data":[' + ",".join(shown) + '],"error":null}'
