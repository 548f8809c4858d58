"""Upper bounds of the memory that decoding takes, from counts of bytes, before any object is built.

The sizes are those of CPython's objects on 64 bits.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw

Text = bytes | bytearray

_OBJECT_BYTES: Final = 192
"""Bytes of a dict with one key."""
_ENTRY_BYTES: Final = 88
"""Bytes of a small value, and of its place in a list or a dict."""
POINT_BYTES: Final = 256
"""Bytes of a point's struct and raw parts; later of its id, its payload's header, their places in lists."""
_SLOT_BYTES: Final = 10
_WIDE_BYTES: Final = 4
"""Bytes of each character of a string that has a character beyond 16 bits."""
_CONTINUED: Final = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that begin no character."""
_WITHOUT_OBJECT: Final = bytes(range(0x80))
"""Bytes that begin no object of their own: small integers."""


def weigh_json(text: Text) -> int:
    """Return the most bytes that the Python objects of a JSON text take."""
    entries = text.count(b",") + text.count(b"[")
    return text.count(b"{") * _OBJECT_BYTES + entries * _ENTRY_BYTES + _characters(text)


def weigh_packed(block: Text) -> int:
    """Return the most bytes that the Python objects of a MessagePack block take."""
    heads = len(block.translate(None, _WITHOUT_OBJECT))
    return heads * _ENTRY_BYTES + len(block) * _SLOT_BYTES


def weigh_packed_texts(block: Text | Raw, entries: int) -> int:
    """Return the most bytes that a MessagePack array of `entries` texts takes."""
    return entries * _ENTRY_BYTES + _characters(bytes(block))


def weigh_json_points(body: Text) -> int:
    """Return the most bytes that the points of a batch take, without vectors and payloads.

    Decoding stops at the first point without the key `data`, so points are at most as many as such keys. Any
    letter of a key may be escaped.
    """
    escaped = body.count(b"\\u006") + body.count(b"\\u007")
    return (body.count(b'"data"') + escaped) * POINT_BYTES


def packed_entries(block: Text) -> int | None:
    """Return the number of entries that the head of a MessagePack array declares; None for another type."""
    head = block[:5]
    if head[:1] == b"\xdc":
        return int.from_bytes(head[1:3], "big")
    if head[:1] == b"\xdd":
        return int.from_bytes(head[1:5], "big")
    return head[0] & 0x0F if head and head[0] & 0xF0 == 0x90 else None


def _characters(text: Text) -> int:
    if text.isascii() and b"\\u" not in text:
        return len(text)
    return len(text.translate(None, _CONTINUED)) * _WIDE_BYTES
