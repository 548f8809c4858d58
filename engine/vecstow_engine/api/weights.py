"""What decoding takes, told from the bytes before any object is built: upper bounds, made by counting bytes.

The sizes are those of CPython's objects on 64 bits.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw

Text = bytes | bytearray

_OBJECT_BYTES: Final = 192
"""A dict with a key."""
_ENTRY_BYTES: Final = 88
"""A small value, and its place in a list or a dict."""
POINT_BYTES: Final = 256
"""A point's struct and its raw parts; then its id, its payload's header, and their places in lists."""
_SLOT_BYTES: Final = 10
_WIDE_BYTES: Final = 4
"""A character of a string that has one character beyond 16 bits."""
_CONTINUED: Final = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that begin no character."""
_WITHOUT_OBJECT: Final = bytes(range(0x80))
"""Bytes that begin no object of their own: small integers."""


def weigh_json(text: Text) -> int:
    """Bytes that the Python objects of a JSON text take at most."""
    entries = text.count(b",") + text.count(b"[")
    return text.count(b"{") * _OBJECT_BYTES + entries * _ENTRY_BYTES + _characters(text)


def weigh_packed(block: Text) -> int:
    """Bytes that the Python objects of a MessagePack block take at most."""
    heads = len(block.translate(None, _WITHOUT_OBJECT))
    return heads * _ENTRY_BYTES + len(block) * _SLOT_BYTES


def weigh_packed_texts(block: Text | Raw, entries: int) -> int:
    """Bytes that a MessagePack array of so many texts takes at most."""
    return entries * _ENTRY_BYTES + _characters(bytes(block))


def weigh_json_points(body: Text) -> int:
    """Bytes that the points of a batch take at most, vectors and payloads aside.

    Decoding stops at the first point without the key `data`, so there are not more points than such keys, of
    which any letter may be escaped.
    """
    escaped = body.count(b"\\u006") + body.count(b"\\u007")
    return (body.count(b'"data"') + escaped) * POINT_BYTES


def packed_entries(block: Text) -> int | None:
    """The number of entries that the head of a MessagePack array claims, None for another type."""
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
