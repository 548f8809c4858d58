"""Points and search over REST, against an engine in memory."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from tests.unit.asgi_client import docs_service
from vecstow_engine.model.searches import Hit

VECTORS = "/collections/docs/vectors"
SEARCH = "/collections/docs/search"
PACKED = {"content-type": "application/msgpack"}


def block(*rows: list[float]) -> bytes:
    return np.array(rows, "<f4").tobytes()


async def test_an_inserted_point_is_got_back_by_its_id():
    client, _ = docs_service()
    reply = await client.call("POST", VECTORS, {"id": "a", "data": [1, 2.5, -3], "metadata": {"n": [1]}})
    assert (reply.status, reply.data) == (200, "a")
    reply = await client.call("GET", f"{VECTORS}/a")
    assert reply.json == {
        "success": True,
        "data": {"id": "a", "data": [1.0, 2.5, -3.0], "metadata": {"n": [1]}},
        "error": None,
    }


async def test_a_point_without_an_id_gets_one():
    client, engine = docs_service()
    reply = await client.call("POST", VECTORS, {"data": [1, 2, 3]})
    assert list(engine.collection("docs").points) == [reply.data]
    assert len(reply.data) == 36


async def test_a_batch_answers_the_ids_in_order():
    client, _ = docs_service()
    points = [{"id": "b", "data": [0, 0, 1]}, {"id": "a", "data": [0, 1, 0], "metadata": None}]
    reply = await client.call("POST", f"{VECTORS}/batch", {"vectors": points})
    assert (reply.status, reply.data) == (200, ["b", "a"])


async def test_search_answers_hits_nearest_first_with_their_payload():
    client, _ = docs_service()
    points = [{"id": "far", "data": [9, 0, 0]}, {"id": "near", "data": [1, 0, 0], "metadata": {"k": "é"}}]
    await client.call("POST", f"{VECTORS}/batch", {"vectors": points})
    reply = await client.call("POST", SEARCH, {"vector": [0, 0, 0]})
    assert reply.data == [
        {"id": "near", "distance": 1.0, "metadata": {"k": "é"}},
        {"id": "far", "distance": 9.0, "metadata": None},
    ]


@pytest.mark.parametrize(
    ("query", "body", "limit", "ef_search"),
    [
        pytest.param("", {}, 10, None, id="defaults"),
        pytest.param("?limit=3&ef_search=70", {}, 3, 70, id="query"),
        pytest.param("?limit=3&ef_search=70", {"limit": 4, "ef_search": 80}, 4, 80, id="the body wins"),
        pytest.param("?limit=3", {"limit": None, "ef_search": None}, 3, None, id="null is absent"),
    ],
)
async def test_search_takes_its_options_from_body_and_query(query, body, limit, ef_search):
    client, engine = docs_service()
    await client.call("POST", SEARCH + query, {"vector": [0, 0, 0], **body})
    [(_, search)] = engine.calls
    assert (search.limit, search.ef_search, search.filter) == (limit, ef_search, None)


async def test_a_filter_reaches_the_engine_parsed():
    client, engine = docs_service()
    await client.call("POST", SEARCH, {"vector": [0, 0, 0], "filter": {"n": {"$lt": 3}}})
    [(_, search)] = engine.calls
    assert search.filter.matches({"n": 2}, "a")
    assert not search.filter.matches({"n": 3}, "a")


async def test_put_replaces_the_payload_and_clears_it_when_absent():
    client, engine = docs_service()
    reply = await client.call("PUT", f"{VECTORS}/a", {"id": "a", "data": [1, 1, 1], "metadata": {"x": 1}})
    assert reply.data == {"id": "a", "message": "stored"}
    await client.call("PUT", f"{VECTORS}/a", {"data": [2, 2, 2]})
    point = engine.collection("docs").points["a"]
    assert (point.vector.tolist(), point.payload) == ([2, 2, 2], None)


async def test_an_id_in_the_body_must_be_the_one_in_the_path():
    client, engine = docs_service()
    reply = await client.call("PUT", f"{VECTORS}/a", {"id": "b", "data": [1, 1, 1]})
    assert reply.status == 400
    assert "'b' in the body and 'a' in the path" in reply.json["message"]
    assert not engine.collection("docs").points


async def test_delete_says_gone_the_second_time():
    client, _ = docs_service()
    await client.call("POST", VECTORS, {"id": "a", "data": [1, 2, 3]})
    reply = await client.call("DELETE", f"{VECTORS}/a")
    assert (reply.status, reply.data) == (200, {"id": "a", "message": "deleted"})
    reply = await client.call("DELETE", f"{VECTORS}/a")
    assert (reply.status, reply.json["details"]["id"]) == (404, "a")
    assert (await client.call("GET", f"{VECTORS}/a")).status == 404


async def test_ids_that_no_url_carries_go_by_body():
    client, _ = docs_service()
    point_id = "a/b?c#d e"
    await client.call("POST", VECTORS, {"id": point_id, "data": [1, 2, 3]})
    reply = await client.call("POST", f"{VECTORS}/get", {"ids": [point_id, "missing"]})
    assert reply.data == [{"id": point_id, "data": [1, 2, 3], "metadata": None}, None]
    reply = await client.call("POST", f"{VECTORS}/delete", {"ids": [point_id, "missing"]})
    assert reply.data == [{"id": point_id, "deleted": True}, {"id": "missing", "deleted": False}]


async def test_an_escaped_slash_stays_inside_the_id():
    client, engine = docs_service()
    await client.call("PUT", f"{VECTORS}/docs%2Fa%20%C3%A9.md", {"data": [1, 2, 3]})
    assert list(engine.collection("docs").points) == ["docs/a é.md"]
    assert (await client.call("GET", f"{VECTORS}/docs%2fa%20%c3%a9.md")).data["id"] == "docs/a é.md"
    assert (await client.call("GET", f"{VECTORS}/docs%252Fa%20%C3%A9.md")).status == 404


@pytest.mark.parametrize("word", ["batch", "get", "delete"])
async def test_a_point_may_be_named_like_a_route(word):
    client, _ = docs_service()
    assert (await client.call("PUT", f"{VECTORS}/{word}", {"data": [1, 2, 3]})).status == 200
    assert (await client.call("GET", f"{VECTORS}/{word}")).data["id"] == word


async def test_bulk_insert_takes_one_block_of_float32():
    client, engine = docs_service()
    body = {"ids": ["a", "b"], "vectors": block([1, 2, 3], [4, 5, 6]), "metadata": [{"x": "é"}, None]}
    reply = await client.call("POST", f"{VECTORS}/batch", body=msgspec.msgpack.encode(body), headers=PACKED)
    assert reply.data == ["a", "b"]
    points = engine.collection("docs").points
    assert points["b"].vector.tolist() == [4, 5, 6]
    assert (points["a"].payload, points["b"].payload) == ('{"x":"é"}'.encode(), None)


async def test_bulk_insert_makes_ids_where_none_are_given():
    client, _ = docs_service()
    body = msgspec.msgpack.encode({"ids": None, "vectors": block([1, 2, 3]), "metadata": None})
    reply = await client.call("POST", f"{VECTORS}/batch", body=body, headers=PACKED)
    assert [len(point_id) for point_id in reply.data] == [36]


async def test_answers_come_packed_when_asked_for():
    client, _ = docs_service()
    accept = {**PACKED, "accept": "application/msgpack"}
    body = msgspec.msgpack.encode({"id": "a", "data": block([1, 2, 3]), "metadata": {"x": 1}})
    reply = await client.call("POST", VECTORS, body=body, headers=accept)
    assert reply.packed == {"success": True, "data": "a", "error": None}
    reply = await client.call("GET", f"{VECTORS}/a", headers=accept)
    assert reply.headers["content-type"] == "application/msgpack"
    assert reply.packed["data"] == {"id": "a", "data": block([1, 2, 3]), "metadata": {"x": 1}}
    body = msgspec.msgpack.encode({"vector": block([1, 2, 3]), "limit": 1, "ef_search": None, "filter": None})
    reply = await client.call("POST", SEARCH, body=body, headers=accept)
    assert reply.packed["data"] == [{"id": "a", "distance": 0.0, "metadata": {"x": 1}}]
    reply = await client.call("GET", f"{VECTORS}/b", headers=accept)
    assert (reply.status, reply.packed["success"]) == (404, False)
    body = msgspec.msgpack.encode({"ids": ["a", "b"]})
    reply = await client.call("POST", f"{VECTORS}/get", body=body, headers=accept)
    assert [point and point["data"] for point in reply.packed["data"]] == [block([1, 2, 3]), None]


async def test_many_points_are_got_in_order_and_in_turns():
    client, engine = docs_service()
    engine.settings.limits.batch_points_max = 10_000
    points = [{"id": str(index), "data": [index, 1, 2]} for index in range(700)]
    await client.call("POST", f"{VECTORS}/batch", {"vectors": points})
    ids = [str(index) for index in reversed(range(701))]
    reply = await client.call("POST", f"{VECTORS}/get", {"ids": ids})
    assert reply.data[0] is None
    assert [point["id"] for point in reply.data[1:]] == ids[1:]
    assert (await client.call("POST", f"{VECTORS}/get", {"ids": []})).data == []


async def test_more_values_than_an_answer_carries_are_refused():
    client, _ = docs_service(dimension=65_536)
    reply = await client.call("POST", f"{VECTORS}/get", {"ids": [str(n) for n in range(62)]})
    assert (reply.status, reply.json["details"]["limit"]) == (413, 4_000_000)


async def test_more_payload_than_an_answer_carries_is_refused():
    client, engine = docs_service()
    hit = Hit("a", 0.0, b'"' + b"x" * 60_000 + b'"')

    async def search(name, query):
        return [hit] * query.limit

    engine.search = search
    assert (await client.call("POST", SEARCH, {"vector": [0, 0, 0], "limit": 1100})).status == 200
    reply = await client.call("POST", SEARCH, {"vector": [0, 0, 0], "limit": 1200})
    assert (reply.status, "fewer" in reply.json["details"]["hint"]) == (413, True)
