"""A key that stands twice in one object is refused, at every level and in both formats."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.asgi_client import docs_service
from vecstow_engine.api.parsing import check_block, check_text
from vecstow_engine.model.errors import InvalidInput

DATA = b"\xc4\x0c" + bytes(12)
PACKED = {"content-type": "application/msgpack"}


def packed_map(*members: tuple[str, bytes]) -> bytes:
    head = bytes([0x80 | len(members)])
    return head + b"".join(msgspec.msgpack.encode(key) + value for key, value in members)


def packed(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


TWICE = packed_map(("a", packed(1)), ("b", packed(2)), ("a", packed(3)))
ROOT = "/collections/docs"
JSON_BODIES = {
    "point": ("/vectors", '{"data": [1, 2, 3], "id": "a", "id": "b"}'),
    "point, escaped": ("/vectors", '{"data": [1, 2, 3], "id": "a", "\\u0069d": "b"}'),
    "point's data": ("/vectors", '{"data": [1, 2, 3], "data": [1, 2, 3]}'),
    "null": ("/vectors", '{"data": [1, 2, 3], "id": null, "id": null}'),
    "payload": ("/vectors", '{"data": [1, 2, 3], "metadata": {"a": 1, "a": 2}}'),
    "payload with colons": ("/vectors", '{"data": [1, 2, 3], "metadata": {"a": "x:\\u003ay", "a": ":"}}'),
    "payload, nested": ("/vectors", '{"data": [1, 2, 3], "metadata": {"l": [{"a": 1, "b": 1, "a": 1}]}}'),
    "payload and id": ("/vectors", '{"id": "a:b", "data": [1, 2, 3], "metadata": {}, "metadata": null}'),
    "batch": ("/vectors/batch", '{"vectors": [{"data": [1, 2, 3]}], "vectors": [{"data": [1, 2, 3]}]}'),
    "batch's point": ("/vectors/batch", '{"vectors": [{"id": "a", "data": [1, 2, 3], "id": "b"}]}'),
    "batch's payload": ("/vectors/batch", '{"vectors": [{"data": [1, 2, 3], "metadata": {"a": 1, "a": 1}}]}'),
    "search": ("/search", '{"vector": [1, 2, 3], "limit": 1, "limit": 2}'),
    "search's filter": ("/search", '{"vector": [1, 2, 3], "filter": {"a": 1, "a": 2}}'),
    "filter, nested": ("/search", '{"vector": [1, 2, 3], "filter": {"$not": {"a": {"$gt": 1, "$gt": 2}}}}'),
    "ids": ("/vectors/get", '{"ids": ["a:b"], "ids": ["b:c"]}'),
    "deleted ids": ("/vectors/delete", '{"ids": ["a"], "ids": ["b"]}'),
    "repair": ("/repair", '{"dry_run": true, "dry_run": false}'),
}  # fmt: skip
PACKED_BODIES = {
    "point": ("/vectors", packed_map(("data", DATA), ("id", packed("a")), ("id", packed("b")))),
    "payload": ("/vectors", packed_map(("data", DATA), ("metadata", TWICE))),
    "payload, nested": (
        "/vectors",
        packed_map(("data", DATA), ("metadata", packed_map(("l", b"\x91" + TWICE)))),
    ),
    "batch": ("/vectors/batch", packed_map(("vectors", DATA), ("vectors", DATA))),
    "batch's payload": ("/vectors/batch", packed_map(("vectors", DATA), ("metadata", b"\x91" + TWICE))),
    "search": ("/search", packed_map(("vector", DATA), ("limit", packed(1)), ("limit", packed(2)))),
    "filter": ("/search", packed_map(("vector", DATA), ("filter", TWICE))),
    "ids": ("/vectors/get", packed_map(("ids", packed(["a"])), ("ids", packed(["b"])))),
}


@pytest.mark.parametrize(("path", "body"), JSON_BODIES.values(), ids=list(JSON_BODIES))
async def test_a_repeated_key_in_json_is_refused(path, body):
    client, engine = docs_service()
    reply = await client.call("POST", ROOT + path, body=body.encode())
    assert (reply.status, reply.json["details"]["kind"]) == (400, "InvalidInput")
    assert "more than once" in reply.json["error"]
    assert engine.collection("docs").points == {}
    assert engine.calls == []


@pytest.mark.parametrize(("path", "body"), PACKED_BODIES.values(), ids=list(PACKED_BODIES))
async def test_a_repeated_key_in_msgpack_is_refused(path, body):
    client, engine = docs_service()
    reply = await client.call("POST", ROOT + path, body=body, headers=PACKED)
    assert (reply.status, reply.json["details"]["kind"]) == (400, "InvalidInput")
    assert "more than once" in reply.json["error"]
    assert engine.collection("docs").points == {}


@pytest.mark.parametrize(
    ("path", "document"),
    [
        (
            "/vectors",
            {"id": "a:b", "data": [1, 2, 3], "metadata": {"u:r": "http://x:1/", "in": [{"u:r": ":"}]}},
        ),
        ("/vectors", {"id": None, "data": [1, 2, 3], "metadata": None}),
        ("/vectors/batch", {"vectors": [{"data": [1, 2, 3]}, {"id": ":", "data": [1, 2, 3]}]}),
        ("/search", {"vector": [1, 2, 3], "limit": None, "ef_search": 7, "filter": {"u:r": "::"}}),
        ("/search", {"filter": None, "vector": [1, 2, 3]}),
        ("/vectors/get", {"ids": ["a:b", ":::"]}),
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
async def test_colons_elsewhere_are_no_keys(path, document, escaped):
    body = json.dumps(document)
    if escaped:
        inner = body.replace('":', '"\0').replace(":", "\\u003a").replace("\0", ":")
        assert json.loads(inner) == document
        body = inner
    client, _ = docs_service()
    assert (await client.call("POST", ROOT + path, body=body.encode())).status == 200


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=40,
)


@given(VALUES, st.booleans())
def test_no_document_without_a_repeated_key_is_refused(value, ascii_only):
    check_text(json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"), value, "it")
    check_block(msgspec.msgpack.encode(value), value, "it")


@given(VALUES, st.text(max_size=5), VALUES, VALUES)
def test_a_repeated_key_is_found_wherever_it_stands(before, key, first, second):
    name = json.dumps(key)
    text = f"[{json.dumps(before)}, {{{name}: {json.dumps(first)}, {name}: {json.dumps(second)}}}]".encode()
    with pytest.raises(InvalidInput):
        check_text(text, json.loads(text), "it")
    block = b"\x92" + packed(before) + packed_map((key, packed(first)), (key, packed(second)))
    with pytest.raises(InvalidInput):
        check_block(block, msgspec.msgpack.decode(block), "it")


ODD = [
    b"\xcc\x01", b"\xcd\x00\x01", b"\xce\x00\x00\x00\x01", b"\xcf" + bytes(8), b"\xd0\x01", b"\xd1\x00\x01",
    b"\xd2\x00\x00\x00\x01", b"\xd3" + bytes(8), b"\xca" + bytes(4), b"\xcb" + bytes(8),
    b"\xc4\x02\x82\x82", b"\xc5\x00\x02\x82\x82",
    b"\xc6\x00\x00\x00\x02\x82\x82", b"\xdc\x00\x01\xc0", b"\xdd\x00\x00\x00\x01\xc3", b"\xd4\x05\x82",
    b"\xd5\x05\x82\x82", b"\xd6\x05" + bytes(4), b"\xd7\x05" + bytes(8), b"\xd8\x05" + bytes(16),
    b"\xc7\x02\x05\x82\x82", b"\xc8\x00\x02\x05\x82\x82", b"\xc9\x00\x00\x00\x02\x05\x82\x82",
    b"\xde\x00\x01\xa1a\x01", b"\xdf\x00\x00\x00\x01\xa1a\x01", b"\xe0", b"\x7f",
]  # fmt: skip
"""A value of each type, written longer than it need be, with bytes in it that look like maps."""


@pytest.mark.parametrize("odd", ODD, ids=bytes.hex)
def test_every_type_of_msgpack_is_passed_over(odd):
    members = [("a", odd), ("b", packed_map(("c", odd))), ("d", b"\x92" + odd + odd)]
    once = packed_map(*members)
    check_block(once, msgspec.msgpack.decode(once), "it")
    twice = packed_map(*members, ("a", b"\xc0"))
    with pytest.raises(InvalidInput):
        check_block(twice, msgspec.msgpack.decode(twice), "it")


def test_strings_of_msgpack_are_passed_over():
    for head in (b"\xa2", b"\xd9\x02", b"\xda\x00\x02", b"\xdb\x00\x00\x00\x02"):
        once = b"\x82\xa1a" + head + "\u0082".encode() + b"\xa1b\xd0\x01"
        check_block(once, msgspec.msgpack.decode(once), "it")
        twice = b"\x83" + once[1:] + b"\xa1b\xd0\x01"
        with pytest.raises(InvalidInput):
            check_block(twice, msgspec.msgpack.decode(twice), "it")


def test_long_texts_are_counted_as_short_ones_are():
    for size in (100, 10_000, 3_000_000):
        text = b'{"a": [' + b'"x:y",' * (size // 6) + b'0], "b": 1, "a": []}'
        with pytest.raises(InvalidInput):
            check_text(text, json.loads(text), "it")
        once = text.replace(b', "a": []', b"")
        check_text(once, json.loads(once), "it")
