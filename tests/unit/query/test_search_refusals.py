"""Searches that break a rule: the error names the field, the value and the limit, in both formats."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest

from tests.unit.asgi_client import AsgiClient
from tests.unit.query.served import Asker
from tests.unit.running_engine import RunningEngine
from vecstow_engine.api.server import create_app
from vecstow_engine.model.metrics import DistanceMetric

VECTOR = [1.0, 2.0, 3.0, 4.0]
NEAR = {"vector": VECTOR}
GROUPED = NEAR | {"group_by": "v"}
RECOMMENDED = {"positive": [VECTOR]}
MANY = [VECTOR] * 101
PACKED_BODY = {"content-type": "application/msgpack"}
OPTIONS = [
    "limit",
    "ef_search",
    "filter",
    "offset",
    "max_distance",
    "with_vectors",
    "with_metadata",
    "explain",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with RunningEngine(tmp_path_factory.mktemp("refusals") / "data") as engine:
        engine.declare()
        engine.declare("cosine", distance_metric=DistanceMetric.COSINE)
        engine.declare("large", dimension=65_536)
        yield engine


@pytest.fixture(params=[False, True], ids=["json", "msgpack"])
def asker(served, request):
    return Asker(served, packed=request.param)


def case(route, body, status, field, limit=None, name=None):
    return pytest.param(route, body, status, field, limit, id=name or f"{route}: {field}")


@pytest.mark.parametrize(
    ("route", "body", "status", "field", "limit"),
    [
        case("search", NEAR | {"offset": -1}, 400, "offset", 0, "offset below zero"),
        case("search", NEAR | {"offset": 10_000}, 400, "offset", 9999, "offset beyond the hits"),
        case("search", NEAR | {"offset": 9991}, 400, "offset", 9990, "offset and limit"),
        case("search", NEAR | {"offset": "1"}, 422, "offset"),
        case("search", NEAR | {"limit": 251, "diversity": 0.1}, 400, "limit", 250, "diverse limit"),
        case("search", NEAR | {"limit": 200, "offset": 51, "diversity": 1}, 400, "offset", 50,
             "diverse offset"),
        case("search", NEAR | {"diversity": 1.1}, 400, "diversity", 1),
        case("search", NEAR | {"diversity": -0.1}, 400, "diversity", 0, "diversity below zero"),
        case("search", NEAR | {"diversity": True}, 422, "diversity", name="diversity as a boolean"),
        case("search", NEAR | {"max_distance": "1"}, 422, "max_distance"),
        case("search", NEAR | {"with_vectors": 1}, 422, "with_vectors"),
        case("search", NEAR | {"with_metadata": []}, 400, "with_metadata", 1, "no fields"),
        case("search", NEAR | {"with_metadata": ["a", 1]}, 422, "with_metadata[1]"),
        case("search", NEAR | {"with_metadata": "a"}, 422, "with_metadata", name="with_metadata as text"),
        case("search", NEAR | {"with_metadata": ["x" * 1025]}, 400, "with_metadata[0]", 1024, "long field"),
        case("search", NEAR | {"with_metadata": ["x"] * 65}, 413, "with_metadata", 64, "many fields"),
        case("search", NEAR | {"id": "a"}, 422, "id", name="vector and id"),
        case("search", {"limit": 3}, 422, "vector", name="neither vector nor id"),
        case("search", {"vector": None, "id": None}, 422, "vector", name="null for both"),
        case("search", {"id": 7}, 422, "id", name="id as a number"),
        case("search", {"id": ""}, 400, "id", 1, "empty id"),
        case("search", {"id": "x" * 257}, 400, "id", 256, "long id"),
        case("search", {"id": "a/../b"}, 400, "id", name="id with dots"),
        case("search/groups", NEAR, 422, "group_by", name="no group_by"),
        case("search/groups", NEAR | {"group_by": 3}, 422, "group_by"),
        case("search/groups", NEAR | {"group_by": "x" * 1025}, 400, "group_by", 1024, "long group_by"),
        case("search/groups", NEAR | {"group_by": "$id"}, 400, "group_by", name="group_by an id"),
        case("search/groups", GROUPED | {"group_size": 0}, 400, "group_size", 1),
        case("search/groups", GROUPED | {"limit": 9, "offset": 1, "group_size": 1001}, 400,
             "group_size", 1000, "hits of groups"),
        case("search/groups", {"group_by": "v"}, 422, "vector", name="groups without a vector"),
        case("recommend", {}, 422, "positive", name="no examples"),
        case("recommend", {"positive": []}, 400, "positive", 1, "empty examples"),
        case("recommend", {"positive": MANY}, 413, "positive", 100),
        case("recommend", RECOMMENDED | {"negative": MANY[:100]}, 413, "negative", 100),
        case("recommend", RECOMMENDED | {"negative": MANY}, 413, "negative", 100, "many negative ones"),
        case("recommend", {"positive": [VECTOR, VECTOR[:3]]}, 400, "positive[1]", name="short example"),
        case("recommend", {"positive": ["a", ""]}, 400, "positive[1]", 1, "empty id of an example"),
        case("recommend", RECOMMENDED | {"strategy": "best"}, 400, "strategy", ["average", "best_score"]),
        case("recommend", {"positive": MANY[:100], "strategy": "best_score", "limit": 101}, 400, "limit", 100,
             "hits of examples"),
        case("search/batch", {}, 422, "searches", name="no searches"),
        case("search/batch", {"searches": [NEAR] * 101}, 413, "searches", 100),
        case("search/batch", {"searches": [NEAR | {"limit": 2000}] * 6}, 400, "searches", 10_000, "hits"),
        case("search/batch", {"searches": [NEAR, NEAR | {"limit": 0}]}, 400, "searches[1].limit", 1),
        case("search/batch", {"searches": [NEAR, {"vector": [1.0]}]}, 400, "searches[1].vector"),
        case("search/batch", {"searches": [NEAR, {}]}, 422, "searches[1].vector", name="empty search"),
        case("search/batch", {"searches": [NEAR | {"filter": {"a": {"$x": 1}}}]}, 400,
             "searches[0].filter.a.$x"),
        case("search/batch", {"searches": [NEAR, NEAR | {"with_metadata": [1]}]}, 422,
             "searches[1].with_metadata[0]"),
    ],
)  # fmt: skip
async def test_a_refusal_names_field_and_limit(asker, route, body, status, field, limit):
    reply = await asker.post("notes", route, body)
    answer = decoded(reply)
    assert (reply.status, answer["details"]["field"]) == (status, field), answer
    if isinstance(limit, list | int):
        assert answer["details"]["limit"] == limit
    assert field.rpartition(".")[2].split("[")[0].strip("$") in answer["message"]


def decoded(reply):
    is_packed = reply.headers["content-type"] == "application/msgpack"
    return msgspec.msgpack.decode(reply.body) if is_packed else json.loads(reply.body)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_a_distance_that_is_no_number_is_refused(served, value):
    reply = await Asker(served, packed=True).post("notes", "search", NEAR | {"max_distance": value})
    answer = decoded(reply)
    assert (reply.status, answer["details"]["field"]) == (400, "max_distance")
    reply = await Asker(served, packed=True).post("notes", "search", NEAR | {"diversity": value})
    assert (reply.status, decoded(reply)["details"]["field"]) == (400, "diversity")


@pytest.mark.parametrize(
    ("route", "body", "known"),
    [
        ("search", NEAR, [*OPTIONS, "vector", "id", "diversity", "text", "fusion"]),
        ("search/groups", GROUPED, [*OPTIONS, "vector", "id", "group_by", "group_size"]),
        ("recommend", RECOMMENDED, [*OPTIONS, "positive", "negative", "strategy"]),
        ("search/batch", {"searches": []}, ["searches"]),
    ],
)
async def test_an_unknown_field_is_named_with_the_known_ones(asker, route, body, known):
    reply = await asker.post("notes", route, body | {"top_k": 3})
    details = decoded(reply)["details"]
    assert (reply.status, details["field"], details["known"]) == (422, "top_k", known)


async def test_an_unknown_field_of_a_search_in_a_batch_is_named(asker):
    reply = await asker.post("notes", "search/batch", {"searches": [NEAR, NEAR | {"k": 3}]})
    details = decoded(reply)["details"]
    assert (reply.status, details["field"]) == (422, "searches[1].k")
    assert "diversity" in details["known"]


@pytest.mark.parametrize("route", ["search/batch", "search/groups", "recommend"])
async def test_these_routes_take_no_query(served, route):
    reply = await Asker(served, packed=False).post("notes", f"{route}?limit=3", {})
    assert (reply.status, reply.json["details"]["known"]) == (400, [])


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        pytest.param("search", {"limit": 62}, "limit", id="search"),
        pytest.param(
            "search/groups", {"limit": 31, "group_size": 2, "group_by": "v"}, "group_size", id="groups"
        ),
    ],
)
async def test_more_numbers_than_an_answer_has_are_refused(served, route, body, field):
    vector = {"vector": [0.5] * 65_536, "with_vectors": True}
    reply = await Asker(served, packed=True).post("large", route, vector | body)
    details = decoded(reply)["details"]
    assert (reply.status, details["field"], details["limit"]) == (413, field, 4_000_000)


async def test_the_searches_of_a_batch_have_their_vectors_counted_together(served):
    search = {"id": "a", "with_vectors": True, "limit": 31}
    reply = await Asker(served, packed=True).post("large", "search/batch", {"searches": [search] * 2})
    assert (reply.status, decoded(reply)["details"]["limit"]) == (413, 4_000_000)


async def test_an_average_that_is_no_vector_is_refused(served):
    asker = Asker(served, packed=False)
    opposite = {"positive": [VECTOR, [-each for each in VECTOR]]}
    reply = await asker.post("cosine", "recommend", opposite)
    assert (reply.status, reply.json["details"]["field"]) == (400, "average")
    far = {"positive": [[9e15] * 4], "negative": [[-9e15] * 4]}
    reply = await asker.post("notes", "recommend", far)
    assert (reply.status, reply.json["details"]["field"]) == (400, "average[0]")
    assert await asker.ask("notes", "recommend", opposite) == []


@pytest.mark.parametrize(
    ("route", "members"),
    [
        ("search", [("id", "a:b")]),
        ("search", [("vector", VECTOR), ("with_metadata", ["a:b"])]),
        ("search/groups", [("id", "a"), ("group_by", "v")]),
        ("recommend", [("positive", ["a:b"]), ("negative", ["c:d"])]),
        ("search/batch", [("searches", [{"id": "a:b"}])]),
    ],
)
async def test_a_repeated_key_is_refused(served, route, members):
    client = AsgiClient(create_app(served))
    for sent in (members, [*members, members[-1]]):
        text = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sent)
        replies = [await client.call("POST", f"/collections/notes/{route}", body=b"{%b}" % text.encode())]
        packed = b"".join(msgspec.msgpack.encode(part) for member in binned(sent) for part in member)
        body = bytes([0x80 | len(sent)]) + packed
        replies.append(
            await client.call("POST", f"/collections/notes/{route}", body=body, headers=PACKED_BODY)
        )
        is_repeated = len(sent) > len(members)
        for reply in replies:
            assert ("more than once" in reply.json.get("message", "")) is is_repeated, reply.body
            assert reply.status == 400 if is_repeated else reply.status in (200, 404)


def binned(members):
    return [
        (name, np.array(value, "<f4").tobytes() if name == "vector" else value) for name, value in members
    ]


async def test_a_key_that_a_search_of_a_batch_repeats_is_refused(served):
    client = AsgiClient(create_app(served))
    body = b'{"searches": [{"id": "a:b"}, {"id": "a", "limit": 1, "limit": 2}]}'
    reply = await client.call("POST", "/collections/notes/search/batch", body=body)
    assert (reply.status, "more than once" in reply.json["message"]) == (400, True)
    packed = msgspec.msgpack.encode
    search = b"\x83" + b"".join(map(packed, ("id", "a", "limit", 1, "limit", 2)))
    body = b"\x81" + packed("searches") + b"\x91" + search
    reply = await client.call("POST", "/collections/notes/search/batch", body=body, headers=PACKED_BODY)
    assert (reply.status, "more than once" in reply.json["message"]) == (400, True)
