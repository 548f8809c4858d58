"""Searches for words, alone and with a vector, over REST in both formats, against naive BM25 and fusion."""

import asyncio
import json
import random

import numpy as np
import pytest

from tests.unit.index.naive_bm25 import ranked
from tests.unit.query.served import DIMENSION, PACKED, Asker, Stored
from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.points import PointBatch
from vecstow_engine.query import filtered, text_search
from vecstow_engine.service.payload_indexer import PayloadIndexer

COUNT = 240
WORDS = [f"{first}{second}" for first in "abcde" for second in "klmnop"]
INDEXES = (PayloadIndex("n", "integer"), PayloadIndex("text", "text"))
NEAR = 1e-4


async def store(engine, name, indexes=INDEXES, count=COUNT):
    engine.declare(
        name, dimension=DIMENSION, distance_metric=DistanceMetric.EUCLIDEAN, payload_indexes=indexes
    )
    chance, numbers = random.Random(count), np.random.default_rng(count)
    rows = numbers.normal(size=(count, DIMENSION)).astype(np.float32)
    payloads = [
        {
            "n": n,
            "kind": f"k{n % 3}",
            "text": " ".join(chance.choices(WORDS, range(1, 31), k=chance.randrange(9))),
        }
        for n in range(count)
    ]
    payloads[7::40] = [None] * len(payloads[7::40])
    stored = Stored(
        name, DistanceMetric.EUCLIDEAN, [f"p{n}" for n in range(count)], rows.astype(float), payloads
    )
    manifest = engine.collection(name).manifest
    await engine.upsert(name, PointBatch.build(manifest, stored.ids, rows, payloads))
    return stored


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with RunningEngine(tmp_path_factory.mktemp("texts") / "data") as engine:
        stored = asyncio.run(store(engine, "texts"))
        yield engine, stored


@pytest.fixture(params=[False, True], ids=["json", "msgpack"])
def asker(served, request):
    return Asker(served[0], packed=request.param)


@pytest.fixture
def stored(served):
    return served[1]


def by_words(stored, query, fits=lambda payload: True):
    """The score of each id that the words lead to, best first."""
    texts = {at: payload["text"] for at, payload in enumerate(stored.payloads) if payload}
    allowed = [at for at, payload in enumerate(stored.payloads) if fits(payload or {})]
    return {stored.ids[at]: score for at, score in ranked(texts, query, set(allowed)).items()}


def check(hits, wanted):
    """The hits have the wanted scores, best first, and each has its own."""
    assert [-hit["distance"] for hit in hits] == pytest.approx(list(wanted.values())[: len(hits)], rel=NEAR)
    assert [-hit["distance"] for hit in hits] == pytest.approx([wanted[hit["id"]] for hit in hits], rel=NEAR)
    assert len({hit["id"] for hit in hits}) == len(hits)


QUERIES = ["ak", "ek ep bm", "el el el an", "unheard", "", "EN, öl!"]


@pytest.mark.parametrize("text", QUERIES)
async def test_words_alone_rank_by_bm25(asker, stored, text):
    wanted = by_words(stored, text)
    for offset, limit in ((0, 10), (3, 5), (0, 1000), (1000, 5)):
        body = {"text": text, "limit": limit, "offset": offset}
        hits = await asker.ask("texts", "search", body)
        assert len(hits) == len(list(wanted)[offset : offset + limit])
        check(hits, dict(list(wanted.items())[offset:]))
        assert all(hit["metadata"] == stored.payload(hit["id"]) for hit in hits)


FILTERS = [
    pytest.param({"n": {"$lt": 100}}, lambda payload: payload.get("n", 999) < 100, id="indexed"),
    pytest.param({"kind": "k1"}, lambda payload: payload.get("kind") == "k1", id="no index"),
    pytest.param(
        {"$or": [{"n": {"$gte": 200}}, {"kind": "k2"}]},
        lambda payload: payload.get("n", 0) >= 200 or payload.get("kind") == "k2",
        id="both",
    ),
    pytest.param({"$id": "p12"}, lambda payload: payload.get("n") == 12, id="one point"),
    pytest.param({"n": -1}, lambda payload: False, id="none"),
]


@pytest.mark.parametrize(("condition", "fits"), FILTERS)
async def test_filter_leaves_out_points_and_no_scores(asker, stored, condition, fits):
    wanted = by_words(stored, "ek ep bm", fits)
    for limit in (2, 30, 1000):
        hits = await asker.ask("texts", "search", {"text": "ek ep bm", "limit": limit, "filter": condition})
        assert len(hits) == min(limit, len(wanted))
        check(hits, wanted)


@pytest.mark.parametrize(("condition", "fits"), FILTERS)
async def test_points_in_doubt_are_checked_until_enough_match(asker, stored, monkeypatch, condition, fits):
    """Payloads are read in the order of the scores, of more points each time."""
    monkeypatch.setattr(filtered, "DOUBTFUL_MAX", 0)
    monkeypatch.setattr(text_search, "DOUBT_FACTOR", 1)
    monkeypatch.setattr(text_search, "DOUBT_CANDIDATES", 1)
    wanted = by_words(stored, "ek ep bm", fits)
    for limit in (2, 30, 1000):
        hits = await asker.ask("texts", "search", {"text": "ek ep bm", "limit": limit, "filter": condition})
        assert len(hits) == min(limit, len(wanted))
        check(hits, wanted)


async def test_max_distance_is_a_least_score(asker, stored):
    scores = list(by_words(stored, "ek ep").values())
    most = -(scores[4] + scores[5]) / 2
    hits = await asker.ask("texts", "search", {"text": "ek ep", "limit": 50, "max_distance": most})
    assert len(hits) == sum(-score <= most for score in scores)


async def test_hits_have_what_the_search_asks_for(asker, stored):
    body = {"text": "ek", "limit": 3, "with_vectors": True, "with_metadata": ["n"]}
    for more in ({}, {"vector": stored.vectors[0].tolist()}):
        for hit in await asker.ask("texts", "search", body | more):
            assert hit["data"] == stored.row(hit["id"]).tolist()
            assert (
                hit["metadata"] == {"n": stored.payload(hit["id"])["n"]}
                if stored.payload(hit["id"])
                else None
            )


def fused(stored, vector, text, weights, hits, fits=lambda payload: True, without=(), k=2):
    """Reciprocal rank fusion of the exact lists, by the formula."""
    count = max(4 * hits, 100)
    near = [stored.ids[at] for at in stored.nearest(vector, fits=fits, without=without)][:count]
    words = [each for each in by_words(stored, text, fits) if each not in without][:count]
    scores = {}
    for ranking, weight in ((near, weights[0]), (words, weights[1])):
        for rank, point_id in enumerate(ranking if weight else (), 1):
            scores[point_id] = scores.get(point_id, 0) + weight / (k + rank)
    return dict(sorted(scores.items(), key=lambda scored: -scored[1]))


@pytest.mark.parametrize(
    ("fusion", "weights", "k"),
    [
        (None, (1, 1), 2),
        ({}, (1, 1), 2),
        ({"vector": 2, "k": 60}, (2, 1), 60),
        ({"vector": None, "text": 0.25}, (1, 0.25), 2),
        ({"vector": 0, "text": 1, "k": 0}, (0, 1), 0),
        ({"vector": 3, "text": 0, "k": 0.5}, (3, 0), 0.5),
    ],
)
async def test_vector_and_text_are_fused_by_ranks(asker, stored, fusion, weights, k):
    vector = np.random.default_rng(3).normal(size=DIMENSION).astype(np.float32)
    for limit, offset in ((10, 0), (30, 5), (40, 20)):
        wanted = fused(stored, vector, "ek ep bm", weights, limit + offset, k=k)
        body = {
            "vector": vector.tolist(),
            "text": "ek ep bm",
            "fusion": fusion,
            "limit": limit,
            "offset": offset,
        }
        hits = await asker.ask("texts", "search", body)
        assert len(hits) == min(limit, len(wanted) - offset)
        check(hits, dict(list(wanted.items())[offset:]))
        assert all(hit["metadata"] == stored.payload(hit["id"]) for hit in hits)


@pytest.mark.parametrize(("condition", "fits"), FILTERS)
async def test_fused_search_filters_both_lists(asker, stored, condition, fits):
    vector = stored.vectors[5]
    wanted = fused(stored, vector, "ek ep bm", (1, 1), 20, fits)
    body = {"vector": vector.tolist(), "text": "ek ep bm", "limit": 20, "filter": condition}
    hits = await asker.ask("texts", "search", body)
    assert len(hits) == min(20, len(wanted))
    check(hits, wanted)


async def test_search_by_id_and_text_leaves_out_the_point(asker, stored):
    wanted = fused(stored, stored.row("p8"), "ek ep bm", (1, 1), 10, without=("p8",))
    hits = await asker.ask("texts", "search", {"id": "p8", "text": "ek ep bm", "limit": 10})
    check(hits, wanted)
    assert "p8" not in [hit["id"] for hit in hits]


async def test_batch_answers_all_kinds_of_searches(asker, stored):
    vector = stored.vectors[1].tolist()
    searches = [
        {"text": "ek"},
        {"vector": vector},
        {"vector": vector, "text": "ek"},
        {"id": "p8", "text": "ek"},
    ]
    alone = [await asker.ask("texts", "search", search) for search in searches]
    assert await asker.ask("texts", "search/batch", {"searches": searches}) == alone


async def test_text_of_nothing_that_is_known_leaves_the_vector_list(asker, stored):
    body = {"vector": stored.vectors[1].tolist(), "limit": 10}
    near = await asker.ask("texts", "search", body)
    hits = await asker.ask("texts", "search", body | {"text": "?"})
    assert [hit["id"] for hit in hits] == [hit["id"] for hit in near]


FUSED = {"vector": [0] * DIMENSION, "text": "a"}
REFUSED = {
    "a number": ({"text": 3}, 422, "text: Expected str, got int", "text"),
    "long": ({"text": "x" * 4097}, 400, "text has 4097 characters; at most 4096 are allowed", "text"),
    "very long": ({"text": "x" * 60_000}, 400, "texts have at most 4096 characters", "text"),
    "diverse": ({"text": "a", "diversity": 0.5}, 400, "diversity does not go with text", "diversity"),
    "nothing to fuse": ({"text": "a", "fusion": {"text": 2}}, 400, "no vector and no id", "fusion"),
    "no text": ({"id": "p1", "fusion": {}}, 422, "has fusion and no text", "fusion"),
    "no target": ({"limit": 3}, 422, "send vector, the id of a stored point, or text", "vector"),
    "unknown weight": (FUSED | {"fusion": {"words": 1}}, 422, "known: vector, text, k", "fusion.words"),
    "negative": (FUSED | {"fusion": {"text": -1}}, 400, "from 0 to 1000", "fusion.text"),
    "large": (FUSED | {"fusion": {"vector": 1001}}, 400, "from 0 to 1000", "fusion.vector"),
    "large constant": (FUSED | {"fusion": {"k": 1e4}}, 400, "from 0 to 1000", "fusion.k"),
    "no weight": (FUSED | {"fusion": {"vector": 0, "text": 0}}, 400, "both 0", "fusion.vector"),
    "no object": (FUSED | {"fusion": 3}, 422, "fusion: Expected object", "fusion"),
}


@pytest.mark.parametrize(("body", "status", "message", "field"), REFUSED.values(), ids=REFUSED)
async def test_bad_searches_for_words_are_refused(served, body, status, message, field):
    reply = await Asker(served[0], packed=False).post("texts", "search", body)
    assert reply.status == status
    answer = reply.json
    assert message in answer["message"] + str(answer["details"].get("hint"))
    assert answer["details"]["field"] == field


@pytest.mark.parametrize("raw", [b'{"text": "a", "text": "b"}', b'{"text": "a:b", "text": "b"}'])
async def test_repeated_text_is_refused(served, raw):
    client = Asker(served[0], packed=False)._client
    reply = await client.call("POST", "/collections/texts/search", body=raw)
    assert reply.status == 400
    assert b"more than once" in reply.body


async def test_repeated_weight_is_refused(served):
    client = Asker(served[0], packed=False)._client
    raw = b'{"vector": [0, 0, 0, 0, 0, 0], "text": "a: b", "fusion": {"text": 1, "text": 2}}'
    reply = await client.call("POST", "/collections/texts/search", body=raw)
    assert reply.status == 400
    assert b"fusion has a key more than once" in reply.body
    packed = b"\x83\xa2id\xa2p1\xa4text\xa1a\xa6fusion\x82\xa4text\x01\xa4text\x02"
    reply = await client.call("POST", "/collections/texts/search", body=packed, headers=PACKED)
    assert reply.status == 400
    assert b"fusion has a key more than once" in reply.body


@pytest.mark.parametrize("route", ["search/groups", "recommend"])
async def test_other_searches_know_no_text(served, route):
    more = {"group_by": "kind", "vector": [0] * 6} if route == "search/groups" else {"positive": ["p1"]}
    reply = await Asker(served[0], packed=False).post("texts", route, {"text": "a"} | more)
    assert reply.status == 422
    assert b"unknown field 'text'" in reply.body


async def test_collection_without_a_text_index_says_how_to_declare_one(engine):
    reply = await Asker(engine, packed=False).post("notes", "search", {"text": "a"})
    assert reply.status == 400
    answer = reply.json
    assert "collection 'notes' has no payload index of the type text" in answer["message"]
    assert '"payload_indexes": [{"field": "...", "type": "text"}]' in answer["details"]["hint"]


async def test_index_that_is_not_complete_answers_503(engine):
    await store(engine, "texts")
    engine.collection("texts").payload_indexes.complete.is_complete = False
    reply = await Asker(engine, packed=False).post("texts", "search", {"text": "ek"})
    assert reply.status == 503
    assert b"the text index of field 'text' is being built" in reply.body


@pytest.mark.parametrize(
    ("more", "plan", "reason"),
    [
        ({}, "words", "the search has a text, and no vector"),
        ({"filter": {"n": {"$lt": 50}}}, "words", "the search has a text, and no vector"),
        ({"id": "p1"}, "fusion", "100 points by the plan graph, and"),
        ({"id": "p1", "filter": {"n": {"$lt": 50}}}, "fusion", "47 points by the plan exact, and"),
    ],
)
async def test_explanation_has_the_plan_and_the_counts(asker, more, plan, reason):
    reply = await asker.post("texts", "search", {"text": "ek", "explain": True} | more)
    note = json.loads(reply.headers["vecstow-explain"])
    assert note["plan"] == plan
    assert reason in note["reason"]
    assert note["counts"]["points"] == COUNT
    assert note["counts"].get("matching") == (48 if "filter" in more else None)
    assert {"filter", "words", "payloads"} <= set(note["milliseconds"])
    assert note["warnings"] == []


async def found(engine, text, **more):
    hits = await Asker(engine, packed=False).ask("texts", "search", {"text": text, "limit": 1000, **more})
    return [hit["id"] for hit in hits]


async def write(engine, **texts):
    manifest = engine.collection("texts").manifest
    rows = np.ones((len(texts), DIMENSION), np.float32)
    payloads = [None if text is None else {"text": text} for text in texts.values()]
    await engine.upsert("texts", PointBatch.build(manifest, list(texts), rows, payloads))


async def test_first_points_of_a_collection_are_found_at_once(engine, monkeypatch):
    """An index of no points is complete: nothing has to complete it."""
    monkeypatch.setattr(PayloadIndexer, "notify", lambda indexer, collection: None)
    stored = await store(engine, "texts", count=30)
    assert sorted(await found(engine, "ek ep")) == sorted(by_words(stored, "ek ep"))


async def test_writes_are_found_at_once_and_former_texts_are_not(engine):
    await store(engine, "texts", count=10)
    for number in range(30):
        await write(engine, a=f"marker w{number}", b="marker" if number % 2 else None)
        assert await found(engine, f"w{number}") == ["a"]
        assert await found(engine, f"w{number - 1}") == []
        assert sorted(await found(engine, "marker")) == (["a", "b"] if number % 2 else ["a"])
        if number % 7 == 0:
            engine.checkpoint("texts")
    await engine.delete_points("texts", ["a"])
    assert await found(engine, "marker") == ["b"]


async def test_deleted_points_weigh_nothing(engine):
    """The scores equal those of a collection that never had the points."""
    stored = await store(engine, "texts")
    gone = [each for each in stored.ids if int(each[1:]) % 3 == 0]
    await engine.delete_points("texts", gone)
    stored.payloads = [None if each in gone else stored.payload(each) for each in stored.ids]
    hits = await Asker(engine, packed=False).ask("texts", "search", {"text": "ek ep bm", "limit": 1000})
    wanted = by_words(stored, "ek ep bm")
    assert len(hits) == len(wanted)
    check(hits, wanted)


@pytest.mark.parametrize("stop", ["clean", "killed"])
async def test_texts_are_found_after_a_restart(stop, tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        stored = await store(engine, "texts")
        if stop == "killed":
            engine.checkpoint("texts")
            await write(engine, p3="after the checkpoint")
            next_engine = engine.copied()
        await engine.delete_points("texts", ["p5"]) if stop == "clean" else None
    reopened = RunningEngine(tmp_path / "data") if stop == "clean" else next_engine
    with reopened as engine:
        collection = engine.collection("texts")
        wait_until(lambda: collection.payload_indexes.complete is not None)
        changed = {"p5": None} if stop == "clean" else {"p3": {"text": "after the checkpoint"}}
        stored.payloads = [changed.get(each, stored.payload(each)) for each in stored.ids]
        for query in ("ek ep bm", "checkpoint"):
            hits = await Asker(engine, packed=False).ask("texts", "search", {"text": query, "limit": 1000})
            wanted = by_words(stored, query)
            assert len(hits) == len(wanted)
            check(hits, wanted)


async def test_fields_are_searched_together(engine):
    """A point scores the sum over its fields; a word that one field knows is not misspelt in another."""
    indexes = (PayloadIndex("title", "text"), PayloadIndex("body", "text"))
    await store(engine, "texts", indexes, count=1)
    manifest = engine.collection("texts").manifest
    payloads = [
        {"title": "house", "body": "about a house"},
        {"title": "house", "body": "about a mouse"},
        {"title": "tree", "body": "about a mouse and a tree"},
    ]
    rows = np.ones((3, DIMENSION), np.float32)
    await engine.upsert("texts", PointBatch.build(manifest, ["a", "b", "c"], rows, payloads))
    assert await found(engine, "house") == ["a", "b"]
    assert await found(engine, "mouse") == ["b", "c"]
    assert await found(engine, "mouse tree") == ["c", "b"]
    assert await found(engine, "moose") == ["b", "c"], "a word that no field knows"
    titles = ranked({0: "house", 1: "house", 2: "tree"}, "house")
    bodies = ranked({n: payload["body"] for n, payload in enumerate(payloads)}, "house")
    hits = await Asker(engine, packed=False).ask("texts", "search", {"text": "house"})
    assert [-hit["distance"] for hit in hits] == pytest.approx([titles[0] + bodies[0], titles[1]], rel=NEAR)
