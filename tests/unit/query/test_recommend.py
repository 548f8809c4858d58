"""Searches by examples, over REST in both formats, against numpy."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.unit.query.served import DIMENSION, Asker, store
from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.metrics import DistanceMetric

NEAR = 5e-5
RANDOM = np.random.default_rng(11)
MORE = RANDOM.normal(size=(3, DIMENSION)).astype(np.float32)
"""Vectors that no collection stores."""
FIT = {"at.x": {"$lt": 4}}


def fits(payload):
    return "at" in payload and payload["at"]["x"] < 4


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An engine with a collection of each metric that is searched exactly, and one with a graph."""
    with RunningEngine(tmp_path_factory.mktemp("recommend") / "data") as engine:
        yield engine, asyncio.run(fill(engine))


async def fill(engine):
    stored = {metric.value: await store(engine, metric.value, metric, 300) for metric in DistanceMetric}
    stored["graph"] = await store(engine, "graph", DistanceMetric.COSINE, 1500)
    assert engine.indexed("graph").index.graph_rows
    return stored


@pytest.fixture(params=[False, True], ids=["json", "msgpack"])
def asker(served, request):
    return Asker(served[0], packed=request.param)


@pytest.fixture(params=[*(metric.value for metric in DistanceMetric), "graph"])
def stored(served, request):
    return served[1][request.param]


def rows_of(stored, examples):
    return np.array(
        [stored.row(each) if isinstance(each, str) else each for each in examples], np.float64
    ).reshape(-1, DIMENSION)


def average(stored, positive, negative):
    """The vector that the strategy `average` searches for."""
    rows = [rows_of(stored, positive), rows_of(stored, negative)]
    if stored.metric is DistanceMetric.COSINE and len(positive) + len(negative) > 1:
        rows = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows]
    mean = rows[0].mean(axis=0)
    return mean + (mean - rows[1].mean(axis=0)) if negative else mean


EXAMPLES = [
    pytest.param(["p7"], [], id="one point"),
    pytest.param(["p7", "p20", MORE[0].tolist()], [], id="several"),
    pytest.param(["p7", MORE[0].tolist()], ["p30", MORE[1].tolist()], id="with negative ones"),
    pytest.param([MORE[2].tolist()], ["p9"], id="a vector and a negative point"),
]


@pytest.mark.parametrize(("positive", "negative"), EXAMPLES)
async def test_average_is_the_search_for_the_mean(asker, stored, positive, negative):
    body = {"positive": positive, "negative": negative, "limit": 12, "offset": 2, "ef_search": 1000}
    vector = average(stored, positive, negative)
    ids = [each for each in positive + negative if isinstance(each, str)]
    for more, test in (({}, lambda payload: True), ({"filter": FIT}, fits)):
        hits = await asker.ask(stored.name, "recommend", body | more)
        wanted = stored.nearest(vector, without=ids, fits=test)[2:14]
        apart = stored.distances(vector)[wanted].tolist()
        assert [hit["distance"] for hit in hits] == pytest.approx(apart, rel=NEAR, abs=NEAR)
        assert not {hit["id"] for hit in hits} & set(ids)


async def test_average_is_the_default(asker, stored):
    body = {"positive": ["p7", "p8"], "negative": ["p9"], "limit": 5}
    named = await asker.ask(stored.name, "recommend", body | {"strategy": "average"})
    assert await asker.ask(stored.name, "recommend", body) == named


def best(stored, positive, negative, count, test=lambda payload: True):
    """Positions in the order of `best_score`, and their distances to the nearest positive example."""
    near = np.min([stored.distances(row) for row in rows_of(stored, positive)], axis=0)
    far = np.full(len(near), np.inf)
    if negative:
        far = np.min([stored.distances(row) for row in rows_of(stored, negative)], axis=0)
    ids = [each for each in positive + negative if isinstance(each, str)]
    left = [at for at in range(len(near)) if stored.ids[at] not in ids and test(stored.payloads[at] or {})]
    left.sort(key=lambda at: (far[at] < near[at], -far[at] if far[at] < near[at] else near[at]))
    return left[:count], near


@pytest.mark.parametrize(("positive", "negative"), EXAMPLES)
async def test_best_score_is_the_distance_to_the_nearest_positive_example(asker, stored, positive, negative):
    """Collections that are searched exactly answer all points, those near a negative example included."""
    limit = 15 if stored.name == "graph" else 300
    body = {"positive": positive, "negative": negative, "limit": limit, "strategy": "best_score"}
    body["ef_search"] = 1000
    for more, test in (({}, lambda payload: True), ({"filter": FIT}, fits)):
        hits = await asker.ask(stored.name, "recommend", body | more)
        wanted, near = best(stored, positive, negative, limit, test)
        found = [hit["distance"] for hit in hits]
        assert found == pytest.approx(near[wanted].tolist(), rel=NEAR, abs=NEAR)
        for hit in hits:
            assert hit["distance"] == pytest.approx(near[stored.ids.index(hit["id"])], rel=NEAR, abs=NEAR)
            assert hit["metadata"] == stored.payload(hit["id"])


async def test_best_score_takes_the_options_of_a_search(asker, stored):
    positive, negative = ["p7", "p20"], ["p30"]
    wanted, near = best(stored, positive, negative, len(stored.ids))
    most = float(near[wanted[20]] + near[wanted[21]]) / 2
    body = {"positive": positive, "negative": negative, "strategy": "best_score", "limit": 30, "offset": 4}
    body |= {"max_distance": most, "with_vectors": True, "with_metadata": ["n"], "ef_search": 1000}
    hits = await asker.ask(stored.name, "recommend", body)
    left = [at for at in wanted if near[at] <= most][4:34]
    assert [hit["distance"] for hit in hits] == pytest.approx(near[left].tolist(), rel=NEAR, abs=NEAR)
    for hit in hits:
        payload = stored.payload(hit["id"])
        assert hit["metadata"] == (payload and {"n": payload["n"]})
        assert hit["data"] == stored.row(hit["id"]).tolist()


async def test_more_candidates_are_scored_while_those_near_the_example_are_nearer_to_another(served):
    """A hundred points lie around a negative example, nearer to the positive one than the only good hit."""
    engine, _ = served
    engine.declare("ring", distance_metric=DistanceMetric.EUCLIDEAN)
    await engine.put("ring", **{f"bad{n}": 10 + n / 1000 for n in range(100)}, good=-5.0, start=0.0)
    body = {"positive": ["start"], "negative": [[10.0, 11.0, 12.0, 13.0]], "limit": 1}
    asker = Asker(engine, packed=False)
    # The points around 10 are 20 away from the positive example, the good one is farther with 40.
    await engine.put("ring", good=-20.0)
    [hit] = await asker.ask("ring", "recommend", body | {"strategy": "best_score"})
    assert (hit["id"], hit["distance"]) == ("good", 40.0)


async def test_examples_that_no_point_has_are_answered_like_a_read(asker, stored):
    for name in ("positive", "negative"):
        reply = await asker.post(stored.name, "recommend", {"positive": ["p7"]} | {name: ["p8", "nobody"]})
        assert reply.status == 404
        assert b"has no point with id 'nobody'" in reply.body


async def test_a_collection_without_data_has_no_examples(served):
    engine, _ = served
    engine.declare("empty")
    asker = Asker(engine, packed=False)
    assert (await asker.post("empty", "recommend", {"positive": ["a"]})).status == 404
    assert (await asker.post("empty", "search", {"id": "a"})).status == 404
    for strategy in ("average", "best_score"):
        body = {"positive": [[1, 2, 3, 4]], "strategy": strategy}
        assert await asker.ask("empty", "recommend", body) == []
    body = {"vector": [1, 2, 3, 4], "group_by": "a"}
    assert await asker.ask("empty", "search/groups", body) == {"groups": []}
