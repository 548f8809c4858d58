"""Wrong input over REST: a clear 4xx in the envelope, and nothing changed."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from tests.unit.asgi_client import docs_service

VECTORS = "/collections/docs/vectors"
BATCH = f"{VECTORS}/batch"
SEARCH = "/collections/docs/search"
COLLECTIONS = "/collections"
NEW = {"name": "new", "dimension": 3, "distance_metric": "Cosine"}
POINT = {"data": [1, 2, 3]}

JSON_CASES = [
    pytest.param("POST", VECTORS, {"data": [1, 2]}, 400, "data has 2 values", id="short vector"),
    pytest.param("POST", VECTORS, {"data": [1, 2, 3, 4]}, 400, "data has 4 values", id="long vector"),
    pytest.param("POST", VECTORS, {"data": [1, 2, 3, "x"]}, 400, "data has 4 values", id="counted first"),
    pytest.param("POST", VECTORS, {"data": []}, 400, "data has 0 values", id="empty vector"),
    pytest.param("POST", VECTORS, {"data": [1, 2, "x"]}, 422, "data[2]", id="text in a vector"),
    pytest.param("POST", VECTORS, {"data": [1, 2, None]}, 422, "data[2]", id="null in a vector"),
    pytest.param("POST", VECTORS, {"data": [1, 2, True]}, 422, "data[2]", id="boolean in a vector"),
    pytest.param("POST", VECTORS, {"data": "abc"}, 422, "data", id="a string for a vector"),
    pytest.param("POST", VECTORS, {"data": [1, 2, 1e39]}, 400, "1e+39", id="beyond float32"),
    pytest.param("POST", VECTORS, {"id": "a"}, 422, "has no field 'data'", id="no data"),
    pytest.param("POST", VECTORS, {**POINT, "extra": 1}, 422, "unknown field 'extra'", id="unknown field"),
    pytest.param("POST", VECTORS, {**POINT, "id": 7}, 422, "ids are strings", id="a number for an id"),
    pytest.param("POST", VECTORS, {**POINT, "id": ""}, 400, "0 characters", id="empty id"),
    pytest.param("POST", VECTORS, {**POINT, "id": "x" * 257}, 400, "257 characters", id="id too long"),
    pytest.param("POST", VECTORS, {**POINT, "id": "a/../b"}, 400, "path segment", id="dots in an id"),
    pytest.param("POST", VECTORS, {**POINT, "metadata": [1]}, 422, "metadata", id="a list for metadata"),
    pytest.param("POST", VECTORS, [1], 422, "array", id="a list for a body"),
    pytest.param("POST", BATCH, {"vectors": []}, 400, "vectors is empty", id="empty batch"),
    pytest.param(
        "POST", BATCH, {"vectors": [POINT, {"data": [1]}]}, 400, "vectors[1].data has 1", id="ragged"
    ),
    pytest.param(
        "POST", BATCH, {"vectors": [POINT, {"data": [1, 2, "x"]}]}, 422, "vectors[1].data[2]", id="batch text"
    ),
    pytest.param(
        "POST", BATCH, {"vectors": [{**POINT, "id": 1}]}, 422, "vectors[0].id", id="batch id number"
    ),
    pytest.param(
        "POST",
        BATCH,
        {"vectors": [{**POINT, "metadata": 1}]},
        422,
        "vectors[0].metadata",
        id="batch metadata",
    ),
    pytest.param(
        "POST", BATCH, {"vectors": [{**POINT, "id": "a"}] * 2}, 400, "vectors[0] and vectors[1]", id="twice"
    ),
    pytest.param("POST", BATCH, {"vectors": [POINT] * 1001}, 413, "at most 1000", id="batch too large"),
    pytest.param("POST", SEARCH, {"vector": [1, 2]}, 400, "vector has 2 values", id="short query"),
    pytest.param("POST", SEARCH, {"vector": [1, 2, 3], "limit": 0}, 400, "limit is 0", id="limit too small"),
    pytest.param("POST", SEARCH, {"vector": [1, 2, 3], "limit": 10_001}, 400, "10000", id="limit too large"),
    pytest.param("POST", SEARCH, {"vector": [1, 2, 3], "limit": "5"}, 422, "limit", id="text for limit"),
    pytest.param("POST", SEARCH, {"vector": [1, 2, 3], "limit": 2.5}, 422, "limit", id="fraction for limit"),
    pytest.param(
        "POST", SEARCH, {"vector": [1, 2, 3], "ef_search": 1001}, 400, "ef_search is 1001", id="ef too large"
    ),
    pytest.param("POST", SEARCH, {"vector": [1, 2, 3], "filter": {"a": {"$x": 1}}}, 400, "$x", id="operator"),
    pytest.param(
        "POST", SEARCH, {"vector": [1, 2, 3], "filter": {"a": [1]}}, 400, "filter.a", id="list in filter"
    ),
    pytest.param("POST", SEARCH, {"vector": [1, 2, 3], "filter": [1]}, 422, "filter", id="filter is a list"),
    pytest.param(
        "POST", SEARCH, {"query": [1, 2, 3]}, 422, "unknown field 'query'", id="unknown search field"
    ),
    pytest.param(
        "POST", f"{SEARCH}?k=3", {"vector": [1, 2, 3]}, 400, "unknown query parameter 'k'", id="query name"
    ),
    pytest.param("POST", f"{SEARCH}?limit=x", {"vector": [1, 2, 3]}, 400, "limit is 'x'", id="query text"),
    pytest.param(
        "POST", f"{SEARCH}?limit=1&limit=2", {"vector": [1, 2, 3]}, 400, "given twice", id="query twice"
    ),
    pytest.param("POST", f"{VECTORS}?id=3", POINT, 400, "unknown query parameter", id="query on insert"),
    pytest.param("POST", f"{VECTORS}/get", {"ids": [1]}, 422, "ids are strings", id="get by number"),
    pytest.param("POST", f"{VECTORS}/get", {"ids": ["a"] * 1001}, 413, "at most 1000", id="get too many"),
    pytest.param("POST", f"{VECTORS}/delete", {"ids": "a"}, 422, "ids", id="delete by a string"),
    pytest.param("POST", COLLECTIONS, {**NEW, "dimension": 0}, 400, "dimension is 0", id="dimension 0"),
    pytest.param("POST", COLLECTIONS, {**NEW, "dimension": 65_537}, 400, "65536", id="dimension too large"),
    pytest.param("POST", COLLECTIONS, {**NEW, "dimension": "3"}, 422, "dimension", id="dimension as text"),
    pytest.param("POST", COLLECTIONS, {**NEW, "dimension": 3.0}, 422, "dimension", id="dimension as a float"),
    pytest.param(
        "POST", COLLECTIONS, {**NEW, "dimension": True}, 422, "dimension", id="dimension as a boolean"
    ),
    pytest.param(
        "POST", COLLECTIONS, {**NEW, "distance_metric": "cosine"}, 400, "Cosine", id="metric spelling"
    ),
    pytest.param(
        "POST", COLLECTIONS, {**NEW, "distance_metric": 1}, 422, "distance_metric", id="metric number"
    ),
    pytest.param("POST", COLLECTIONS, {**NEW, "vector_type": "float32"}, 400, "Float32", id="type spelling"),
    pytest.param(
        "POST", COLLECTIONS, {**NEW, "index_config": {"m": 1}}, 422, "'m'", id="unknown index setting"
    ),
    pytest.param(
        "POST", COLLECTIONS, {**NEW, "index_config": {"ef_search": 0}}, 400, "ef_search", id="index bound"
    ),
    pytest.param("POST", COLLECTIONS, {**NEW, "name": "../x"}, 400, "not legal", id="name leaves the folder"),
    pytest.param("POST", COLLECTIONS, {**NEW, "name": "a\n"}, 400, "not legal", id="name ends in a newline"),
    pytest.param("POST", COLLECTIONS, {**NEW, "name": "wal"}, 400, "reserved", id="reserved name"),
    pytest.param("POST", COLLECTIONS, {**NEW, "extra": 1}, 422, "extra", id="unknown field of a collection"),
    pytest.param(
        "POST", COLLECTIONS, {"name": "new", "dimension": 3}, 422, "distance_metric", id="no metric"
    ),
    pytest.param("POST", f"{COLLECTIONS}?if_exists=no", NEW, 400, "if_exists", id="bad if_exists"),
    pytest.param(
        "POST", f"{COLLECTIONS}?x=1", NEW, 400, "unknown query parameter 'x'", id="query of a collection"
    ),
    pytest.param(
        "POST", "/collections/cleanup", {"retention_hours": -1}, 400, "retention_hours", id="hours < 0"
    ),
    pytest.param(
        "POST", "/collections/restore", {"backup_path": "x", "new_name": "../y"}, 400, "y", id="new name"
    ),
    pytest.param("POST", "/collections/restore", {}, 422, "backup_path", id="nothing to restore"),
    pytest.param("POST", "/hold", {"seconds": 0}, 400, "seconds", id="no hold at all"),
    *(
        pytest.param(
            "POST", f"{COLLECTIONS}/docs/{word}", {"recall": True}, 422, "takes no body", id=f"body of {word}"
        )
        for word in ("check", "compact", "backup")
    ),
]


@pytest.mark.parametrize(("method", "target", "value", "status", "says"), JSON_CASES)
async def test_wrong_values_are_refused(method, target, value, status, says):
    client, engine = docs_service()
    reply = await client.call(method, target, value)
    assert (reply.status, says in reply.json["message"]) == (status, True), reply.body
    assert_is_error_envelope(reply)
    assert list(engine.collections) == ["docs"]
    assert not engine.collection("docs").points
    assert not engine.calls


@pytest.mark.parametrize(
    ("target", "body", "status", "says"),
    [
        pytest.param(VECTORS, b'{"data": [1, 2,', 400, "not valid JSON", id="cut off"),
        pytest.param(VECTORS, b'{"data": [NaN, 1, 2]}', 400, "not valid JSON", id="NaN"),
        pytest.param(VECTORS, b'{"data": [1, 2, Infinity]}', 400, "not valid JSON", id="Infinity"),
        pytest.param(VECTORS, b'{"data": [1, 2, 1e400]}', 400, "out of range", id="beyond float64"),
        pytest.param(VECTORS, b'{"data": [1, 2, 3], "id": "\xff"}', 400, "not valid JSON", id="broken UTF-8"),
        pytest.param(
            VECTORS, b'{"data": [1,2,3], "id": "\\ud800"}', 400, "not valid JSON", id="lone surrogate"
        ),
        pytest.param(VECTORS, b"", 400, "not valid JSON", id="empty"),
        pytest.param(
            VECTORS, b'{"data": [1,2,3], "metadata": ' + b'{"a":' * 5000, 400, "at most 128 levels", id="deep"
        ),
        pytest.param(COLLECTIONS, b'{"name": ', 400, "not valid JSON", id="a collection cut off"),
        pytest.param(COLLECTIONS, b"[" * 100_000, 400, "at most 128 levels", id="a deep collection"),
    ],
)
async def test_broken_json_is_refused(target, body, status, says):
    client, engine = docs_service()
    reply = await client.call("POST", target, body=body)
    assert (reply.status, says in reply.json["message"]) == (status, True), reply.body
    assert_is_error_envelope(reply)
    assert not engine.collection("docs").points


def packed(**fields):
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize("route", ["scroll", "count", "delete"])
@pytest.mark.parametrize(
    "filter",
    [
        pytest.param({"k": msgspec.msgpack.Ext(5, b"a")}, id="an extension"),
        pytest.param({"$and": [msgspec.msgpack.Ext(1, b"")]}, id="an extension in a list"),
        pytest.param({"k": {"$in": [{1: 2}]}}, id="a number for a key in a list"),
        pytest.param({"k": {1: 2, "a": 3}}, id="a number for a key"),
    ],
)
async def test_a_filter_that_json_does_not_have_is_refused(route, filter):
    client, _ = docs_service()
    headers = {"content-type": "application/msgpack"}
    reply = await client.call(
        "POST", f"{COLLECTIONS}/docs/points/{route}", body=packed(filter=filter), headers=headers
    )
    assert reply.status in (400, 422), reply.body
    assert_is_error_envelope(reply)


@pytest.mark.parametrize(
    ("target", "body", "status", "says"),
    [
        pytest.param(BATCH, packed(vectors=bytes(13)), 400, "13 bytes", id="not a multiple of a row"),
        pytest.param(BATCH, packed(vectors=b""), 400, "empty", id="no rows"),
        pytest.param(BATCH, packed(vectors=bytes(12), ids=["a", "b"]), 400, "2 entries", id="too many ids"),
        pytest.param(
            BATCH, packed(vectors=bytes(12), metadata=[]), 400, "0 entries", id="too little metadata"
        ),
        pytest.param(
            BATCH, packed(vectors=bytes(12), ids=[1]), 422, "ids are strings", id="a number for an id"
        ),
        pytest.param(BATCH, packed(vectors=[1.0, 2.0, 3.0]), 422, "vectors", id="floats instead of a bin"),
        pytest.param(BATCH, packed(vectors=bytes(12), x=1), 422, "unknown field 'x'", id="unknown field"),
        pytest.param(BATCH, packed(vectors=np.array([1, np.nan, 2], "<f4").tobytes()), 400, "nan", id="NaN"),
        pytest.param(
            BATCH, packed(vectors=bytes(12), metadata=[{"x": b"y"}]), 400, "metadata", id="bytes in metadata"
        ),
        pytest.param(
            BATCH, packed(vectors=bytes(12), metadata=[{"x": float("nan")}]), 400, "metadata", id="NaN inside"
        ),
        pytest.param(
            BATCH, packed(vectors=bytes(12), metadata=[{1: 2}]), 422, "metadata[0]", id="number for a key"
        ),
        pytest.param(BATCH, packed(vectors=bytes(12 * 1001)), 413, "at most 1000", id="batch too large"),
        pytest.param(BATCH, b"\xc1", 400, "not valid MessagePack", id="broken"),
        pytest.param(VECTORS, packed(data=bytes(8)), 400, "12 bytes", id="short vector"),
        pytest.param(SEARCH, packed(vector=bytes(24)), 400, "12 bytes", id="two queries"),
        pytest.param(
            COLLECTIONS, packed(name="x"), 415, "application/json", id="a route without a bulk form"
        ),
    ],
)
async def test_wrong_messagepack_is_refused(target, body, status, says):
    client, engine = docs_service()
    reply = await client.call("POST", target, body=body, headers={"content-type": "application/msgpack"})
    assert (reply.status, says in reply.body.decode()) == (status, True), reply.body
    assert_is_error_envelope(reply)
    assert not engine.collection("docs").points


async def test_zero_vectors_are_refused_under_cosine():
    client, engine = docs_service("Cosine")
    for target, value in ((VECTORS, {"data": [0, 0, 0]}), (SEARCH, {"vector": [0, 0, 0]})):
        reply = await client.call("POST", target, value)
        assert (reply.status, "all zeros" in reply.json["error"]) == (400, True)
    assert not engine.collection("docs").points


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
async def test_other_content_types_are_refused_with_a_hint(kind):
    client, _ = docs_service()
    reply = await client.call("POST", VECTORS, POINT, headers={"content-type": kind})
    assert (reply.status, "Content-Type" in reply.json["details"]["hint"]) == (415, True)


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", 'application/json;charset="UTF-8"']
)
async def test_json_is_recognised_however_it_is_spelled(kind):
    client, _ = docs_service()
    assert (await client.call("POST", VECTORS, POINT, headers={"content-type": kind})).status == 200


@pytest.mark.parametrize(
    ("method", "target"),
    [
        pytest.param("GET", "/collections/..%2f..%2fetc", id="escaped slashes"),
        pytest.param("GET", "/collections/%2e%2e", id="escaped dots"),
        pytest.param("DELETE", "/collections/..", id="dots"),
        pytest.param("GET", "/collections/docs%00", id="NUL"),
        pytest.param("GET", "/collections/docs%0a", id="newline"),
        pytest.param("GET", "/collections/%c0%ae", id="overlong UTF-8"),
        pytest.param("GET", "/collections/docs%2", id="broken escape"),
        pytest.param("GET", "/collections/docs%zz", id="escape without hex digits"),
        pytest.param("GET", "/collections/%64eleted", id="a reserved word in disguise"),
        pytest.param("POST", "/collections/..%2fdocs/search", id="a hot route"),
        pytest.param("GET", "/collections/docs/vectors/%2e%2e", id="an id of dots"),
        pytest.param("GET", "/collections/docs/vectors/a%2f..%2fb", id="dots within an id"),
        pytest.param("GET", "/collections/docs/vectors/", id="no id"),
        pytest.param("GET", "/collections/docs/vectors/%ff", id="an id that is not UTF-8"),
        pytest.param("GET", "/collections/\xff", id="not ASCII"),
    ],
)
async def test_no_name_leads_out_of_the_data_directory(method, target):
    client, engine = docs_service()
    reply = await client.call(method, target, {"vector": [1, 2, 3]} if method == "POST" else None)
    assert reply.status == 400
    assert_is_error_envelope(reply)
    assert list(engine.collections) == ["docs"]


async def test_a_broken_escape_is_no_id():
    client, _ = docs_service()
    reply = await client.call("GET", f"{VECTORS}/a%zz")
    assert (reply.status, reply.json["details"]["kind"]) == (400, "Malformed")


async def test_an_unknown_collection_is_404_on_every_route():
    client, _ = docs_service()
    for method, target, value in (
        ("GET", "/collections/nope", None),
        ("GET", "/collections/nope/stats", None),
        ("DELETE", "/collections/nope", None),
        ("POST", "/collections/nope/search", {"vector": [1, 2, 3]}),
        ("POST", "/collections/nope/vectors", POINT),
        ("POST", "/collections/nope/vectors/batch", {"vectors": [POINT]}),
        ("GET", "/collections/nope/vectors/a", None),
    ):
        reply = await client.call(method, target, value)
        assert (reply.status, reply.json["details"]["collection"]) == (404, "nope")


async def test_get_and_delete_take_no_body():
    client, engine = docs_service()
    for method in ("GET", "DELETE"):
        reply = await client.call(method, "/collections/docs", {"x": 1})
        assert (reply.status, "takes no body" in reply.json["error"]) == (400, True)
    assert "docs" in engine.collections


def assert_is_error_envelope(reply):
    document = reply.json
    assert set(document) == {"success", "data", "error", "message", "details"}
    assert (document["success"], document["data"]) == (False, None)
    assert document["error"] == document["message"] != ""
    assert document["details"]["kind"]
