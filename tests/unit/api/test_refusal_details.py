"""The details of a refused value name its field, the value, and the limit that it breaks."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from tests.unit.asgi_client import AsgiClient
from tests.unit.running_engine import RunningEngine
from vecstow_engine.api.server import create_app
from vecstow_engine.api.undecodable import beyond_float64
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.names import COLLECTION_RULE

MIB = 1 << 20
FLOAT32_MAX = float(np.finfo(np.float32).max)
PLAIN = "/collections/plain"
VECTORS = f"{PLAIN}/vectors"
BATCH = f"{VECTORS}/batch"
SEARCH = f"{PLAIN}/search"
HALF = "/collections/half/vectors"
COSINE = "/collections/cosine"
NEW = {"name": "new", "dimension": 3, "distance_metric": "Cosine"}
IMPORT = {"orphaned_path": "x", "collection_name": "new", "dimension": 3, "distance_metric": "Cosine"}
POINT = {"data": [1, 2, 3, 4]}
QUERY = {"vector": [1, 2, 3, 4]}
NONE = object()
"""There is no limit to name."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An engine with collections of four dimensions."""
    with RunningEngine(tmp_path_factory.mktemp("details") / "data") as engine:
        engine.declare("plain", distance_metric=DistanceMetric.EUCLIDEAN)
        engine.declare("half", distance_metric=DistanceMetric.COSINE, vector_type=VectorType.FLOAT16)
        engine.declare("cosine", distance_metric=DistanceMetric.COSINE)
        yield engine


@pytest.fixture
def client(served):
    return AsgiClient(create_app(served))


def creating(field, value, limit, name=None):
    """A case of POST /collections with one wrong field."""
    return pytest.param("/collections", NEW | {field: value}, name or field, value, limit, id=name or field)


def filtered(filter, field, value, limit):
    """A case of a search with a wrong filter."""
    return pytest.param(SEARCH, QUERY | {"filter": filter}, field, value, limit, id=field)


REFUSED = [
    pytest.param(VECTORS, {"data": [1, 2]}, "data", 2, 4, id="dimension of a point"),
    pytest.param(SEARCH, {"vector": [1] * 5}, "vector", 5, 4, id="dimension of a query"),
    pytest.param(SEARCH, QUERY | {"limit": 0}, "limit", 0, 1, id="limit too small"),
    pytest.param(SEARCH, QUERY | {"limit": 10_001}, "limit", 10_001, 10_000, id="limit too large"),
    pytest.param(f"{SEARCH}?limit=10001", QUERY, "limit", 10_001, 10_000, id="limit of the query"),
    pytest.param(f"{SEARCH}?limit=x", QUERY, "limit", "x", NONE, id="limit as text"),
    pytest.param(f"{SEARCH}?limit=-5", QUERY, "limit", -5, 1, id="limit of the query below zero"),
    pytest.param(f"{SEARCH}?limit={10**26}", QUERY, "limit", str(10**26), 10_000, id="long limit"),
    pytest.param(f"{SEARCH}?ef_search=1001", QUERY, "ef_search", 1001, 1000, id="ef_search of the query"),
    pytest.param(SEARCH, QUERY | {"ef_search": 1001}, "ef_search", 1001, 1000, id="ef_search"),
    filtered({"a": {"$x": 1}}, "filter.a.$x", "$x", ["$eq", "$ne"]),
    filtered({"a": [1]}, "filter.a", "a list of 1 values", NONE),
    filtered({"a": {"$in": [1] * 1001}}, "filter.a.$in", "a list of 1001 values", 1000),
    filtered({"a": {"$gt": None}}, "filter.a.$gt", None, NONE),
    filtered({"x" * 1025: 1}, "filter", "x" * 1025, 1024),
    filtered({"a": {"$size": 2**63}}, "filter.a.$size", str(2**63), 2**63 - 1),
    filtered({"a": {"$between": [2, 1]}}, "filter.a.$between", "a list of 2 values", NONE),
    filtered({"$id": {"$gt": 1}}, "filter.$id.$gt", 1, NONE),
    filtered({"$id": {"$exists": True}}, "filter.$id.$exists", "$exists", ["$eq", "$ne"]),
    filtered({"a": {"datetime": "2024-05-01"}}, "filter.a.datetime", "2024-05-01", NONE),
    filtered(
        {"a": {"$within": {"center": {"lat": 91, "lon": 0}, "radius_m": 1}}},
        "filter.a.$within.center.lat",
        91,
        90,
    ),
    creating("name", "../x", COLLECTION_RULE),
    creating("name", "x" * 50_000, COLLECTION_RULE),
    creating("name", "wal", COLLECTION_RULE),
    creating("dimension", 0, 1),
    creating("dimension", 65_537, 65_536),
    creating("dimension", "3", NONE),
    creating("distance_metric", "cosine", ["Cosine", "Euclidean", "DotProduct", "Manhattan"]),
    creating("vector_type", "float32", ["Float32", "Float16", "Int8"]),
    pytest.param(
        "/collections",
        NEW | {"index_config": {"max_connections": 1}},
        "index_config.max_connections",
        1,
        2,
        id="index bound",
    ),
    pytest.param(
        "/collections",
        NEW | {"index_config": {"ef_search": 10**30}},
        "index_config.ef_search",
        str(10**30),
        1000,
        id="index setting beyond 64 bits",
    ),
    pytest.param("/collections", NEW | {"owner": "x" * 257}, "owner", 257, 256, id="owner"),
    pytest.param(
        "/collections",
        NEW | {"payload_indexes": [{"field": "a", "type": "tree"}]},
        "payload_indexes",
        "tree",
        ["keyword", "integer", "float", "boolean", "datetime", "text"],
        id="type of a payload index",
    ),
    pytest.param(
        "/collections",
        NEW | {"payload_indexes": [{"field": str(n), "type": "float"} for n in range(65)]},
        "payload_indexes",
        65,
        64,
        id="payload indexes",
    ),
    pytest.param("/collections?if_exists=no", NEW, "if_exists", "no", "'ok'", id="if_exists"),
    pytest.param("/collections/..%2fx/search", QUERY, "collection", "../x", COLLECTION_RULE, id="path"),
    pytest.param("/collections/a%zz/search", QUERY, "path", "a%zz", NONE, id="broken escape"),
    pytest.param("/collections/%ff/search", QUERY, "path", "%ff", NONE, id="path that is not UTF-8"),
    pytest.param(VECTORS, POINT | {"id": "x" * 257}, "id", 257, 256, id="id too long"),
    pytest.param(VECTORS, POINT | {"id": ""}, "id", 0, 1, id="id too short"),
    pytest.param(VECTORS, POINT | {"id": "a/../b"}, "id", "a/../b", NONE, id="id with path segments"),
    pytest.param(
        f"{VECTORS}/delete", {"ids": ["a", "x" * 257]}, "ids[1]", 257, 256, id="id too long, of many"
    ),
    pytest.param(
        BATCH, {"vectors": [POINT | {"id": "a"}] * 2}, "vectors[1].id", "a", NONE, id="id that stands twice"
    ),
    pytest.param(f"{VECTORS}/get", {"ids": ["a"] * 2}, "ids[1]", "a", NONE, id="get an id twice"),
    pytest.param(BATCH, {"vectors": []}, "vectors", 0, 1, id="empty batch"),
    pytest.param(f"{COSINE}/vectors", {"data": [0] * 4}, "data", 0, NONE, id="zero vector"),
    pytest.param(f"{COSINE}/search", {"vector": [0] * 4}, "vector", 0, NONE, id="zero query"),
    pytest.param(HALF, {"data": [1e-9] * 4}, "data", 0, NONE, id="zero vector once it is stored"),
    pytest.param(HALF, {"data": [1, 65_505, 3, 4]}, "data[1]", 65_505, 65_504, id="beyond Float16"),
    pytest.param(VECTORS, {"data": [1, 2, 3, 2e16]}, "data[3]", 2e16, 1e16, id="beyond the metric"),
    pytest.param(VECTORS, {"data": [1, 1e39, 3, 4]}, "data[1]", 1e39, FLOAT32_MAX, id="beyond float32"),
    pytest.param(VECTORS, {"data": [1e-16] * 4}, "data", 1e-16, 1e-15, id="vanishing"),
    pytest.param(
        VECTORS, POINT | {"metadata": {"a": "x" * 70_000}}, "metadata", 70_008, 65_536, id="payload size"
    ),
    pytest.param(
        VECTORS, POINT | {"metadata": {"a": "x" * 300_000}}, "metadata", 300_009, 262_144, id="payload text"
    ),
    pytest.param(
        VECTORS,
        POINT | {"metadata": {"a": 2**70}},
        "metadata.a",
        str(2**70),
        str(2**64 - 1),
        id="payload integer",
    ),
    pytest.param(
        "/collections/restore",
        {"backup_path": "../x"},
        "backup_path",
        "../x",
        [".deleted", ".backups"],
        id="backup_path",
    ),
    pytest.param(
        "/collections/restore",
        {"backup_path": "x", "new_name": "../y"},
        "new_name",
        "../y",
        COLLECTION_RULE,
        id="new_name",
    ),
    pytest.param(
        "/collections/import",
        IMPORT | {"orphaned_path": "/etc"},
        "orphaned_path",
        "/etc",
        [""],
        id="orphaned_path",
    ),
    pytest.param(
        "/collections/import",
        IMPORT | {"collection_name": "../y"},
        "collection_name",
        "../y",
        COLLECTION_RULE,
        id="collection_name",
    ),
    pytest.param("/hold", {"seconds": 1e6}, "seconds", 1e6, 3600, id="seconds of a hold"),
    pytest.param("/hold", {"seconds": 0}, "seconds", 0, 0, id="no hold at all"),
    pytest.param(
        "/collections/cleanup", {"retention_hours": -1}, "retention_hours", -1, 0, id="retention_hours"
    ),
]


@pytest.mark.parametrize(("target", "body", "field", "value", "limit"), REFUSED)
async def test_a_refusal_has_field_value_and_limit(client, served, target, body, field, value, limit):
    reply = await client.call("POST", target, body)
    details = reply.json["details"]
    assert reply.status in (400, 413, 422), reply.body
    assert details["field"] == field
    assert is_value(details["value"], value)
    if limit is NONE:
        assert "limit" not in details
    elif isinstance(limit, list):
        assert all(str(found).endswith(each) for found, each in zip(details["limit"], limit, strict=False))
    else:
        assert is_value(details["limit"], limit)
    if str(field).startswith("filter"):
        assert details["path"] == field


def is_value(found, value):
    """Whether an answer has a value; of a long text it has the beginning and the end."""
    if isinstance(value, str) and len(value) > 300:
        return len(found) == 300 and found.startswith(value[:100])
    if isinstance(value, float):
        return math.isclose(found, value, rel_tol=1e-6)
    return found == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
async def test_value_that_json_does_not_have_comes_as_text(client, value):
    rows = np.array([1, value, 3, 4], "<f4").tobytes()
    packed = msgspec.msgpack.encode({"vectors": rows})
    reply = await client.call("POST", BATCH, body=packed, headers={"content-type": "application/msgpack"})
    details = reply.json["details"]
    assert (reply.status, details["field"]) == (400, "vectors[0].data[1]")
    assert (details["value"], details["limit"]) == (str(value), 1e16)


async def test_number_beyond_float32_is_named_as_it_was_sent(client):
    reply = await client.call("POST", BATCH, {"vectors": [POINT, {"data": [1, 2, -1e39, 4]}]})
    assert reply.json["message"] == "vectors[1].data[2] is -1e+39; float32 ends at 3.40282347e+38"


@pytest.mark.parametrize(
    ("target", "size", "limit", "hint"),
    [
        pytest.param(BATCH, 64 * MIB + 1, 64 * MIB, "smaller batches", id="batch"),
        pytest.param(SEARCH, 4 * MIB + 1, 4 * MIB, "filter", id="search"),
        pytest.param(VECTORS, 4 * MIB + 1, 4 * MIB, "metadata", id="point"),
        pytest.param(f"{VECTORS}/get", 12 * MIB + 1, 12 * MIB, "fewer ids", id="get"),
        pytest.param("/collections", 512 * 1024 + 1, 512 * 1024, "payload_indexes", id="collection"),
        pytest.param("/state/refresh", 16 * MIB + 1, 16 * MIB, "findings", id="findings"),
        pytest.param("/hold", 64 * 1024 + 1, 64 * 1024, None, id="hold"),
    ],
)
async def test_body_that_is_too_large_is_refused_with_a_hint_that_fits_the_route(
    client, target, size, limit, hint
):
    reply = await client.call("POST", target, body=b"", headers={"content-length": str(size)})
    details = reply.json["details"]
    assert (reply.status, details["field"], details["value"], details["limit"]) == (413, "body", size, limit)
    assert "hint" not in details if hint is None else hint in details["hint"]


@pytest.mark.parametrize(
    ("target", "body", "field", "known"),
    [
        pytest.param(
            VECTORS,
            {"vector": [1]},
            "vector",
            ["data", "id", "metadata", "if_absent", "if_exists"],
            id="point",
        ),
        pytest.param(
            BATCH,
            {"vectors": [POINT, POINT | {"vector": 1}]},
            "vectors[1].vector",
            ["data", "id", "metadata"],
            id="point of a batch",
        ),
        pytest.param(BATCH, {"points": []}, "points", ["vectors", "if_absent", "if_exists"], id="batch"),
        pytest.param(
            SEARCH,
            QUERY | {"k": 3},
            "k",
            [
                "limit", "ef_search", "filter", "offset", "max_distance", "with_vectors", "with_metadata",
                "explain", "vector", "id", "diversity", "text", "fusion",
            ],
            id="search",
        ),
        pytest.param(f"{VECTORS}/get", {"id": "a"}, "id", ["ids"], id="get"),
        pytest.param(
            "/collections",
            NEW | {"vector_typ": "Int8"},
            "vector_typ",
            [
                "name", "dimension", "distance_metric", "vector_type", "index_config", "owner",
                "payload_indexes",
            ],
            id="collection",
        ),
        pytest.param(
            "/collections",
            NEW | {"index_config": {"m": 1}},
            "index_config.m",
            ["max_connections", "ef_construction", "ef_search", "max_layer"],
            id="index setting",
        ),
        pytest.param("/hold", {"hours": 1}, "hours", ["seconds"], id="hold"),
        pytest.param(f"{PLAIN}/repair", {"dry": True}, "dry", ["dry_run"], id="repair"),
    ],
)  # fmt: skip
async def test_unknown_field_is_named_with_the_known_ones(client, target, body, field, known):
    reply = await client.call("POST", target, body)
    assert (reply.status, reply.json["details"]["kind"]) == (422, "WrongShape")
    assert (reply.json["details"]["field"], reply.json["details"]["known"]) == (field, known)
    name = field.rpartition(".")[2]
    assert f"has an unknown field {name!r}; known: {', '.join(known)}" in reply.json["message"]


@pytest.mark.parametrize(
    ("target", "body", "field"),
    [
        pytest.param(VECTORS, {"id": "a"}, "data", id="point"),
        pytest.param(BATCH, {"vectors": [POINT, {"id": "a"}]}, "vectors[1].data", id="point of a batch"),
        pytest.param(SEARCH, {"limit": 3}, "vector", id="search"),
        pytest.param("/collections", {"name": "new", "dimension": 3}, "distance_metric", id="collection"),
    ],
)
async def test_missing_field_is_named(client, target, body, field):
    reply = await client.call("POST", target, body)
    assert (reply.status, reply.json["details"]["kind"]) == (422, "WrongShape")
    assert reply.json["details"]["field"] == field
    assert field.rpartition(".")[2] in reply.json["message"]


async def test_unknown_query_parameter_is_named_with_the_known_ones(client):
    reply = await client.call("POST", f"{SEARCH}?k=3", QUERY)
    details = reply.json["details"]
    assert (reply.status, details["field"], details["known"]) == (400, "k", ["limit", "ef_search", "explain"])


@pytest.mark.parametrize(
    ("body", "is_hinted"),
    [
        pytest.param(b'{"data": [1, 2, NaN]}', True, id="NaN"),
        pytest.param(b'{"data": [1, -Infinity, 3]}', True, id="Infinity"),
        pytest.param(b'{"data": [nan, 2]}', True, id="nan"),
        pytest.param(b'{"data": [inf, 2]}', True, id="inf"),
        pytest.param(b'{"data": [1, 2', False, id="cut off"),
        pytest.param(b'{"data": [1, 2,]}', False, id="comma at the end"),
        pytest.param(b'{"id": "NaN", "data": [1, 2', False, id="NaN elsewhere"),
        pytest.param(b'{"data": [1, 2, 3, 4], "id": "\xff"}', False, id="broken UTF-8"),
        pytest.param(b"", False, id="empty"),
    ],
)
async def test_hint_about_nan_comes_with_nan_alone(client, body, is_hinted):
    reply = await client.call("POST", VECTORS, body=body, headers={"content-type": "application/json"})
    assert (reply.status, reply.json["details"]["kind"]) == (400, "Malformed")
    assert ("NaN" in reply.json["details"].get("hint", "")) is is_hinted


@pytest.mark.parametrize("value", [-5, 0, 10_001, 10**26])
async def test_range_of_a_query_parameter_is_told_as_that_of_the_body(client, value):
    of_body = await client.call("POST", SEARCH, QUERY | {"limit": value})
    of_query = await client.call("POST", f"{SEARCH}?limit={value}", QUERY)
    assert of_query.json == of_body.json


async def test_query_parameter_that_is_no_integer_is_told_the_range(client):
    for text in ("x", "1.5", "", "9" * 5000):
        reply = await client.call("POST", f"{SEARCH}?ef_search={text}", QUERY)
        assert (reply.status, "from 1 to 1000" in reply.json["message"]) == (400, True)


DEEP = b'{"a":' * 5000 + b"1" + b"}" * 5000
PACKED_DEEP = b"\x81\xa1a" * 5000 + b"\x01"
PACKED_VECTOR = msgspec.msgpack.encode(np.ones(4, "<f4").tobytes())


@pytest.mark.parametrize(
    ("target", "body", "media", "limit"),
    [
        pytest.param(SEARCH, b'{"vector": [1, 2, 3, 4], "filter": ' + DEEP + b"}", "json", 16, id="search"),
        pytest.param(VECTORS, b'{"data": [1, 2, 3, 4], "metadata": ' + DEEP + b"}", "json", 128, id="point"),
        pytest.param(
            BATCH, b'{"vectors": [{"data": [1], "metadata": ' + DEEP + b"}]}", "json", 128, id="batch"
        ),
        pytest.param("/collections", DEEP, "json", 128, id="collection"),
        pytest.param(
            SEARCH,
            b"\x82\xa6vector" + PACKED_VECTOR + b"\xa6filter" + PACKED_DEEP,
            "msgpack",
            16,
            id="packed",
        ),
    ],
)
async def test_body_that_no_decoder_can_follow_is_told_the_limit_of_levels(
    client, target, body, media, limit
):
    reply = await client.call("POST", target, body=body, headers={"content-type": f"application/{media}"})
    details = reply.json["details"]
    assert (reply.status, details["kind"], details["limit"]) == (400, "InvalidInput", limit)
    assert reply.json["message"].startswith(f"the body nests too deep; at most {limit} levels")


@pytest.mark.parametrize(
    ("body", "media", "message"),
    [
        pytest.param(b"{bad", "json", "JSON: object keys must be strings (byte 1)", id="JSON"),
        pytest.param(b"\xc1", "msgpack", "MessagePack: invalid opcode '\\xc1' (byte 0)", id="MessagePack"),
    ],
)
async def test_body_is_called_malformed_once(client, body, media, message):
    reply = await client.call("POST", VECTORS, body=body, headers={"content-type": f"application/{media}"})
    assert reply.json["message"] == f"the body is not valid {message}"


@pytest.mark.parametrize(
    ("target", "body", "field", "value"),
    [
        pytest.param(VECTORS, b'{"data": [1, 2, 1e400, 4]}', "data[2]", "1e400", id="vector"),
        pytest.param(
            VECTORS, b'{"data": [1,2,3,4], "metadata": {"a": [{"b": -1e400}]}}', "metadata.a[0].b", "-1e400",
            id="payload",
        ),
        pytest.param(
            BATCH, b'{"vectors": [{"data": [1,2,3,4], "metadata": {"a": 1e400}}]}', "vectors[0].metadata.a",
            "1e400", id="payload in a batch",
        ),
        pytest.param(
            SEARCH, b'{"vector": [1,2,3,4], "filter": {"a": {"$gt": 1e999}}}', "filter.a.$gt", "1e999",
            id="filter",
        ),
        pytest.param(SEARCH, b'{"vector": [1,2,3,4], "limit": 1e400}', "limit", "1e400", id="limit"),
        pytest.param("/collections", b'{"dimension": 1e400}', "dimension", "1e400", id="collection"),
        pytest.param("/collections", b"1e400", "body", "1e400", id="the whole body"),
    ],
)  # fmt: skip
async def test_number_beyond_float64_is_named_with_its_field(client, target, body, field, value):
    reply = await client.call("POST", target, body=body)
    details = reply.json["details"]
    assert (reply.status, details["field"], details["value"]) == (400, field, value)
    assert details["limit"] == np.finfo(np.float64).max
    assert f"is {value}, which is out of range" in reply.json["message"]


async def test_number_beyond_float64_is_refused_also_where_it_cannot_be_found(client):
    """The text is broken behind the number."""
    reply = await client.call("POST", "/collections", body=b'{"dimension": 1e400, NaN}')
    assert (reply.status, reply.json["details"]["field"]) == (400, "body")


def test_large_text_is_not_decoded_once_more_to_name_a_number():
    """The objects would take many times the memory that the request has leased."""
    assert beyond_float64(b"[" + b"1," * 1_000 + b"1e400]", "data").details["field"] == "data[1000]"
    assert beyond_float64(b"[" + b"1," * 600_000 + b"1e400]", "data") is None
