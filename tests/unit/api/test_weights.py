"""The estimate of a decoding's memory is never less than the decoding takes, and needs no decoding."""

from __future__ import annotations

import random
import tracemalloc

import msgspec
import pytest

from vecstow_engine.api.parsing import (
    JsonBatch,
    packed_entries,
    weigh_json,
    weigh_json_examples,
    weigh_json_points,
    weigh_packed,
)
from vecstow_engine.api.search_bodies import SEARCH_BYTES, JsonSearches

ENTRIES = 50_000
FIXED_BYTES = 4096
"""Bytes of the decoder, and of the outermost list."""
pack = msgspec.msgpack.encode


def taken(decode, body) -> int:
    tracemalloc.start()
    try:
        held = decode(body)
        return tracemalloc.get_traced_memory()[1] if held is not None else 0
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "entry",
    [
        b"{}", b"[]", b"1", b"1e9", b"123456789012", b'""', b'"ab"', b'"\xc3\xa9\xc3\xa9"', b'{"a":1}',
        b'{"a":{}}', b'{"k":[],"l":[]}', b"[1,[2,[3]]]", b'"\\ud83d\\ude00"', b'{"a":1,"b":2,"c":3,"d":4}',
        '"\U0001f600abcdefghijklmnopqrstuvwxyz"'.encode(), b"null", b"true", b"-0.5",
    ],
)  # fmt: skip
def test_json_takes_no_more_than_it_weighs(entry):
    body = b'{"a":[' + b",".join([entry] * ENTRIES) + b"]}"
    assert taken(msgspec.json.decode, body) <= weigh_json(body) + FIXED_BYTES


@pytest.mark.parametrize(
    "value",
    [{}, [], None, 1, 300, 1.5, "", "ab", "\U0001f600", {"a": 1}, [[[]]], b"", b"xyz", 2**63],
    ids=repr,
)
def test_messagepack_takes_no_more_than_it_weighs(value):
    body = pack([value] * ENTRIES)
    assert taken(msgspec.msgpack.decode, body) <= weigh_packed(body) + FIXED_BYTES


@pytest.mark.parametrize("seed", range(5))
def test_random_documents_take_no_more_than_they_weigh(seed):
    rng = random.Random(seed)

    def value(depth: int) -> object:
        kinds = [None, True, rng.randrange(10**12), rng.random(), "x" * rng.randrange(40)]
        if depth == 0 or rng.random() < 0.4:
            return rng.choice(kinds)
        many = range(rng.randrange(6))
        if rng.random() < 0.5:
            return [value(depth - 1) for _ in many]
        return {f"key{rng.randrange(10**6)}": value(depth - 1) for _ in many}

    document = {"a": [value(4) for _ in range(2000)]}
    body, packed = msgspec.json.encode(document), pack(document)
    assert taken(msgspec.json.decode, body) <= weigh_json(body) + FIXED_BYTES
    assert taken(msgspec.msgpack.decode, packed) <= weigh_packed(packed) + FIXED_BYTES


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(b'{"data":1}', id="short"),
        pytest.param(b'{"id":"a","data":[1],"metadata":{}}', id="whole"),
        pytest.param(b'{"\\u0064ata":1}', id="escaped"),
        pytest.param(b'{"d\\u0061ta":1}', id="escaped inside"),
        pytest.param(b'{"da\\u0074a":1}', id="escaped elsewhere"),
    ],
)
def test_points_take_no_more_than_they_weigh(point):
    body = b'{"vectors":[' + b",".join([point] * ENTRIES) + b"]}"
    decoder = msgspec.json.Decoder(JsonBatch)
    assert taken(decoder.decode, body) <= weigh_json_points(body) + FIXED_BYTES


@pytest.mark.parametrize(
    "entry",
    [
        b'""',
        b'"ab"',
        b"[]",
        b"[1,2,3,4]",
        b"[0.25,1e300,123456789]",
        b'"\\ud83d\\ude00"',
        '"\U0001f600abcdefghijklmnopqrstuvwxyz"'.encode(),
    ],
)
def test_examples_take_no_more_than_they_weigh(entry):
    body = b"[" + b",".join([entry] * ENTRIES) + b"]"
    decoder = msgspec.json.Decoder(list[str | list[float]])
    assert taken(decoder.decode, body) <= weigh_json_examples(body) + FIXED_BYTES


@pytest.mark.parametrize(
    "search",
    [
        b"{}",
        b'{"id":"a"}',
        b'{"vector":[1],"id":"a","filter":{},"with_metadata":[],"limit":70000,"ef_search":70000,'
        b'"offset":70000,"max_distance":0.5,"diversity":0.25}',
    ],
)
def test_searches_take_no_more_than_they_weigh(search):
    body = b'{"searches":[' + b",".join([search] * ENTRIES) + b"]}"
    decoder = msgspec.json.Decoder(JsonSearches)
    assert taken(decoder.decode, body) <= body.count(b"{") * SEARCH_BYTES + FIXED_BYTES


@pytest.mark.parametrize("entry", [b"1", b"{}", b'""', b"[]", b'{"id":"a"}'])
def test_entries_that_are_no_points_end_the_decoding(entry):
    body = b'{"vectors":[' + b",".join([entry] * ENTRIES) + b"]}"
    decoder = msgspec.json.Decoder(JsonBatch)

    def decode(body):
        with pytest.raises(msgspec.ValidationError):
            decoder.decode(body)
        return 1

    assert taken(decode, body) < 100_000


@pytest.mark.parametrize("count", [0, 1, 15, 16, 65_535, 65_536])
def test_the_entries_of_a_messagepack_array_are_read_from_its_head(count):
    assert packed_entries(pack([None] * count)) == count


@pytest.mark.parametrize("value", [None, "abc", {}, b"x", 7])
def test_what_is_no_array_has_no_entries(value):
    assert packed_entries(pack(value)) is None
