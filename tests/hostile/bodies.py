"""Adversarial bodies: wide, deep, long, repeated, compressed, and heads that claim more than follows."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

JSON = "application/json"
MSGPACK = "application/msgpack"
pack = msgspec.msgpack.encode


@dataclass(frozen=True)
class Body:
    """One body, and the headers that it is sent with."""

    name: str
    content: bytes
    media: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


def filled(head: bytes, entry: bytes, tail: bytes, size: int) -> bytes:
    """JSON with as many entries as fit into `size` bytes."""
    count = max(1, (size - len(head) - len(tail)) // (len(entry) + 1))
    return head + b",".join([entry] * count) + tail


def anywhere(size: int) -> Iterator[Body]:
    """Bodies of about `size` bytes for any route."""
    for name, entry in (("objects", b"{}"), ("arrays", b"[]"), ("ones", b"1"), ("texts", b'"ab"')):
        yield Body(f"wide: {name}", filled(b'{"a":[', entry, b"]}", size))
    half = size // 2
    yield Body("deep arrays", b"[" * half + b"]" * half)
    yield Body("deep objects", b'{"a":' * (size // 6) + b"1" + b"}" * (size // 6))
    yield Body("a long key", b'{"' + b"k" * (size - 8) + b'":1}')
    yield Body("a long wide text", b'{"name":"' + b"x" * (size - 32) + "\U0001f600".encode() + b'"}')
    yield Body("a long number", b'{"limit":' + b"9" * (size - 12) + b"}")
    yield Body("too large", b"[" + b" " * (size + 1_000_000) + b"]")
    yield Body("no JSON", b"\xff" * size)
    squeezed = gzip.compress(b"0" * 100_000_000, 9)
    yield Body("compressed", squeezed[:size], headers={"Content-Encoding": "gzip"})
    yield Body("MessagePack", pack({"a": [None] * size})[:size], MSGPACK)


def packed(size: int) -> Iterator[Body]:
    """MessagePack bodies of about `size` bytes for a route that reads it."""
    for name, value in (("maps", {}), ("nils", None), ("arrays", []), ("texts", "ab")):
        entry = pack(value)
        count = (size - 8) // len(entry)
        block = b"\xdd" + count.to_bytes(4, "big") + entry * count
        for key in ("a", "metadata", "ids", "filter"):
            yield Body(f"packed wide {name} in {key}", b"\x81" + pack(key) + block, MSGPACK)
    yield Body("packed deep", b"\x91" * size, MSGPACK)
    for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb"):
        yield Body(f"a claim {head.hex()}", b"\x81\xa3ids" + head + b"\xff\xff\xff\xff", MSGPACK)
    long_key = {"data": b"\0" * 16, "metadata": {"k" * (size // 3): [None] * (size // 3)}}
    yield Body("a long key over a long list", pack(long_key), MSGPACK)


def of_batch(size: int) -> Iterator[Body]:
    """Batches of about `size` bytes."""
    for name, entry in (
        ("ones", b"1"),
        ("objects", b"{}"),
        ("short points", b'{"data":1}'),
        ("escaped keys", b'{"\\u0064ata":1}'),
        ("points", b'{"data":[1,2,3,4]}'),
        ("numbers that grow", b'{"data":[1,2,3,4],"metadata":{"a":[' + b"1e15," * 3400 + b"1]}}"),
        ("wide payloads", b'{"data":[1,2,3,4],"metadata":{"a":[' + b"[]," * 20_000 + b"1]}}"),
        ("large payloads", b'{"data":[1,2,3,4],"metadata":{"a":"' + b"x" * 65_000 + b'"}}'),
    ):
        yield Body(f"batch of {name}", filled(b'{"vectors":[', entry, b"]}", size))
    rows = size // 2 // 16
    yield Body("packed rows", pack({"vectors": b"\0" * 16 * rows, "metadata": [{}] * rows}), MSGPACK)
    payload = {"a": [None] * 13_000}
    yield Body("packed payloads", pack({"vectors": b"\0" * 16 * 900, "metadata": [payload] * 900}), MSGPACK)


def of_point(size: int) -> Iterator[Body]:
    """One point of about `size` bytes."""
    yield Body("a vector too long", filled(b'{"data":[', b"0.1", b"]}", size))
    yield Body("a wide payload", filled(b'{"data":[1,2,3,4],"metadata":{"a":[', b"{}", b"]}}", size))
    yield Body("a long id", b'{"data":[1,2,3,4],"id":"' + b"x" * (size - 40) + b'"}')
    yield Body("a large integer", b'{"data":[1,2,3,4],"metadata":{"a":18446744073709551616}}')


def of_search(size: int) -> Iterator[Body]:
    """Searches of about `size` bytes, and one for everything."""
    yield Body("a query too long", filled(b'{"vector":[', b"0.1", b"]}", size))
    for name, entry in (("objects", b"{}"), ("conditions", b'{"a":1}'), ("nots", b'{"$not":{"a":1}}')):
        yield Body(f"or of {name}", filled(b'{"vector":[1,2,3,4],"filter":{"$or":[', entry, b"]}}", size))
    yield Body("values", filled(b'{"vector":[1,2,3,4],"filter":{"a":{"$in":[', b'"ab"', b"]}}}", size))
    nots = min(size // 12, 5000)
    yield Body("deep nots", b'{"vector":[1,2,3,4],"filter":' + b'{"$not":' * nots + b"1" + b"}" * nots + b"}")
    words = b" ".join(b"%dabcd" % number for number in range(500))
    yield Body("a text too long", filled(b'{"text":"', b"ab ", b'"}', size))
    yield Body("many words", b'{"text":"' + words + b'","limit":10000}')
    yield Body("a wide fusion", filled(b'{"id":"p1","text":"a","fusion":{', b'"k":1', b"}}", size))
    yield Body("everything", b'{"vector":[1,2,3,4],"limit":10000}')
    yield Body("everything, packed", b'{"vector":[1,2,3,4],"limit":10000}', headers={"Accept": MSGPACK})
    yield Body("half of everything", b'{"vector":[1,2,3,4],"limit":150,"filter":{"n":{"$gte":0}}}')


def of_searches(size: int) -> Iterator[Body]:
    """Batches of searches of about `size` bytes, and some for everything."""
    for name, entry in (
        ("ones", b"1"),
        ("objects", b"{}"),
        ("ids", b'{"id":"p1"}'),
        ("wide filters", b'{"id":"p1","filter":{"$or":[' + b"{}," * 20_000 + b"{}]}}"),
        ("wide choices", b'{"id":"p1","with_metadata":[' + b'"",' * 20_000 + b'""]}'),
    ):
        yield Body(f"batch of {name}", filled(b'{"searches":[', entry, b"]}", size))
    count = size // 2
    yield Body("packed nils", b"\x81\xa8searches\xdd" + count.to_bytes(4, "big") + b"\xc0" * count, MSGPACK)
    everything = b'{"vector":[1,2,3,4],"limit":100,"with_vectors":true}'
    filtered = b'{"vector":[1,2,3,4],"limit":100,"diversity":0.5,"filter":{"n":{"$gte":0}}}'
    for name, entry in (("everything", everything), ("everything, filtered", filtered)):
        yield Body(name, b'{"searches":[' + b",".join([entry] * 100) + b"]}")


def of_groups(size: int) -> Iterator[Body]:
    """Grouped searches of about `size` bytes, and some for everything."""
    yield from of_search(size)
    near = b'{"vector":[1,2,3,4],"group_by":'
    yield Body("a long field", near + b'"' + b"x" * (size - 50) + b'"}')
    yield Body("a deep field", near + b'"' + b"a." * 500 + b'a"}')
    yield Body("everything", near + b'"n","limit":10000}')
    yield Body("everything, in groups that are never full", near + b'"n","limit":100,"group_size":100}')


def of_examples(size: int) -> Iterator[Body]:
    """Searches by example of about `size` bytes, and some for everything."""
    for name, entry in (
        ("ones", b"1"),
        ("empty texts", b'""'),
        ("arrays", b"[]"),
        ("vectors", b"[1,2,3,4]"),
        ("nulls", b"null"),
    ):
        yield Body(f"examples that are {name}", filled(b'{"positive":[', entry, b"]}", size))
    yield Body("one long example", filled(b'{"positive":[[', b"1", b"]]}", size))
    count = size // 2
    for name, entry in (("nils", b"\xc0"), ("texts", b"\xa0")):
        block = b"\xdd" + count.to_bytes(4, "big") + entry * count
        yield Body(f"packed {name}", b"\x81\xa8positive" + block, MSGPACK)
    near = b'{"positive":[' + b",".join([b"[1,2,3,4]"] * 50) + b'],"negative":["p1"],"limit":200'
    yield Body("everything", near + b',"with_vectors":true,"strategy":"best_score"}')
    yield Body("half of everything", near + b',"strategy":"best_score","filter":{"n":{"$gte":0}}}')


def of_ids(size: int) -> Iterator[Body]:
    """Lists of ids of about `size` bytes, and one of all points."""
    for name, entry in (("empty", b'""'), ("short", b'"ab"'), ("equal", b'"p1"'), ("escaped", b'"\\\\"')):
        yield Body(f"ids that are {name}", filled(b'{"ids":[', entry, b"]}", size))
    count = size // 3
    yield Body("packed ids", b"\x81\xa3ids\xdd" + count.to_bytes(4, "big") + b"\xa2ab" * count, MSGPACK)
    everything = msgspec.json.encode({"ids": [f"p{number}" for number in range(300)]})
    yield Body("all points", everything)
    yield Body("all points, packed", everything, headers={"Accept": MSGPACK})


def _of_filter(size: int, before: bytes = b"") -> Iterator[Body]:
    """Bodies with a filter of about `size` bytes behind other members."""
    for name, entry in (("objects", b"{}"), ("conditions", b'{"a":1}'), ("nots", b'{"$not":{"a":1}}')):
        yield Body(f"or of {name}", filled(b"{" + before + b'"filter":{"$or":[', entry, b"]}}", size))
    yield Body("values", filled(b"{" + before + b'"filter":{"a":{"$in":[', b'"ab"', b"]}}}", size))


def of_count(size: int) -> Iterator[Body]:
    """Counts of about `size` bytes, and one of half of everything."""
    yield from _of_filter(size)
    yield Body("half of everything", b'{"filter":{"n":{"$gte":150}}}')


def of_scroll(size: int) -> Iterator[Body]:
    """Scrolls of about `size` bytes, and some of everything."""
    yield from _of_filter(size, b'"limit":10000,')
    yield Body("a long cursor", b'{"cursor":"' + b"A" * (size - 20) + b'"}')
    yield Body("a wide choice", filled(b'{"with_metadata":[', b'""', b"]}", size))
    yield Body("a long order", b'{"order_by":"' + b"x" * (size - 20) + b'"}')
    yield Body("a wide order", filled(b'{"order_by":{"field":[', b"{}", b"]}}", size))
    for accept in ({}, {"Accept": MSGPACK}):
        yield Body(f"everything {accept}", b'{"limit":10000,"with_vectors":true}', headers=accept)
    yield Body("everything by a large value", b'{"limit":10000,"order_by":"x"}')
    yield Body("a part of everything", b'{"limit":10000,"with_metadata":["x"],"filter":{"n":{"$gte":0}}}')


def of_facet(size: int) -> Iterator[Body]:
    """Facets of about `size` bytes, and some of large values."""
    yield from _of_filter(size, b'"field":"n",')
    yield Body("a long field", b'{"field":"' + b"x" * (size - 20) + b'"}')
    yield Body("a deep field", b'{"field":"' + b"a." * 500 + b'a"}')
    yield Body("large values", b'{"field":"x","limit":1000}')


def of_deletion(size: int) -> Iterator[Body]:
    """Deletions of about `size` bytes that match nothing."""
    yield from _of_filter(size)
    for name, entry in (("empty", b'""'), ("short", b'"ab"'), ("escaped", b'"\\\\"')):
        yield Body(f"ids that are {name}", filled(b'{"ids":[', entry, b"]}", size))
    yield Body("a wide all", filled(b'{"all":[', b"{}", b"]}", size))


def of_payload_change(size: int) -> Iterator[Body]:
    """Changes of payloads of about `size` bytes, and some of everything."""
    yield from _of_filter(size, b'"merge":{"k":1},')
    for member in (b"set", b"merge"):
        yield Body(
            f"a wide {member!r}", filled(b'{"ids":["p1"],"' + member + b'":{"a":[', b"{}", b"]}}", size)
        )
    yield Body("a wide unset", filled(b'{"ids":["p1"],"unset":[', b'""', b"]}", size))
    yield Body("everything", b'{"filter":{},"merge":{"k":1}}')
    yield Body("everything, too large", b'{"filter":{},"merge":{"k":"' + b"y" * 60_000 + b'"}}')
