"""The refusal of repeated keys: msgspec takes the last value, another reader the first (RFC 8259, 4).

A text is parsed twice only if a count differs. Outside of strings a JSON text has one colon for each member,
and a map of MessagePack declares the number of its entries. If these are more than the members of the decoded
value, the decoder has dropped a member.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw

from vecstow_engine.model.errors import InvalidInput, refused

Text = bytes | bytearray

_COLON: Final = ord(":")
_SHORT_BYTES: Final = 512
_LONG_BYTES: Final = 65_536
_FINDS_MAX: Final = 64
_SLICE_BYTES: Final = 1 << 20
_ESCAPED_COLON: Final = b"\\u003"
_UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)

_HEADS: Final = {
    **{0xC4 + n: (1 << n, 0, 1) for n in range(3)},  # bin: length bytes, bytes besides, bytes of an entry
    **{0xC7 + n: (1 << n, 1, 1) for n in range(3)},  # ext
    **{0xD9 + n: (1 << n, 0, 1) for n in range(3)},  # str
    **{0xDE + n: (2 << n, 0, 0) for n in range(2)},  # map
    **{0xD4 + n: (0, 1 + (1 << n), 0) for n in range(5)},  # fixext
}
"""The parts after each first byte of MessagePack other than fixmap, fixstr and those in `_FIXED`."""

_FIXED: Final = re.compile(
    rb"(?:[\x00-\x7f\x90-\x9f\xc0\xc2\xc3\xe0-\xff]|[\xcc\xd0].|[\xcd\xd1\xdc]..|[\xca\xce\xd2\xdd].{4}"
    rb"|[\xcb\xcf\xd3].{8})++",
    re.DOTALL,
)
"""Runs of numbers, constants and heads of arrays: a vector in a payload is one match, not one per number."""


def check_text(text: Text, value: Any, field: str) -> None:
    """Raise InvalidInput when the JSON `text` repeats a key in an object; `value` is its decoded value."""
    colons = _colons(text)
    if isinstance(value, dict) and colons == len(value):
        return
    if _ESCAPED_COLON not in text:
        try:
            if colons == _colons(msgspec.json.encode(value)):
                return
        except _UNENCODABLE:
            pass
    if (key := _find_repeated(text)) is not None:
        raise _repeated(field, key)


def check_block(block: Text, value: Any, field: str) -> None:
    """Raise InvalidInput when the MessagePack `block` repeats a key; `value` is its decoded value."""
    try:
        if msgspec.msgpack.encode(value) == block:
            return
    except _UNENCODABLE:
        pass
    if _map_entries(block) != _members(value):
        raise _repeated(field)


def check_members(text: Text, known: int, values: Iterable[Raw], field: str = "body") -> None:
    """Raise InvalidInput when the objects of a JSON text do not have exactly `known` members.

    `values` are the values of members that may contain colons themselves.
    """
    inner = sum(_colons(bytes(value)) for value in values)
    if _colons(text) - inner != known:
        raise _repeated(field)


def check_entries(block: Text, known: int) -> None:
    """Raise InvalidInput when the map of a MessagePack body does not declare exactly `known` entries."""
    head = block[0]
    claimed = head & 0x0F if head < 0x90 else int.from_bytes(block[1 : 3 if head == 0xDE else 5], "big")
    if claimed != known:
        raise _repeated("body")


def _repeated(field: str, key: str | None = None) -> InvalidInput:
    where = "the body" if field == "body" else field
    what = "a key" if key is None else f"the key {key[:80]!r}"
    return InvalidInput(
        f"{where} has {what} more than once in one object",
        hint="send each key once; readers differ in which value counts",
        details={"field": field} if key is None else refused(field, key),
    )


def _colons(text: Text) -> int:
    if len(text) < _SHORT_BYTES:
        return text.count(b":")
    if len(text) > _LONG_BYTES:
        values = np.frombuffer(text, np.uint8)
        starts = range(0, len(values), _SLICE_BYTES)
        return sum(int(np.count_nonzero(values[at : at + _SLICE_BYTES] == _COLON)) for at in starts)
    # find() compares many bytes at once, count() one by one.
    found, at = 0, text.find(b":")
    while at >= 0 and found < _FINDS_MAX:
        found, at = found + 1, text.find(b":", at + 1)
    return found if at < 0 else found + text.count(b":", at)


class _Found(Exception):
    """Raised with the first repeated key."""


def _find_repeated(text: Text) -> str | None:
    def refuse(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Found(key)
            seen.add(key)

    try:
        json.loads(text, object_pairs_hook=refuse)
    except _Found as found:
        return str(found)
    except RecursionError:
        return None  # a later limit on depth refuses the text
    return None


def _map_entries(block: Text) -> int:
    """Return the number of entries of all maps in a MessagePack block that a decoder has accepted."""
    entries = at = 0
    while at < len(block):
        first = block[at]
        at += 1
        if 0x80 <= first < 0x90:
            entries += first & 0x0F
        elif 0xA0 <= first < 0xC0:
            at += first & 0x1F
        elif (fixed := _FIXED.match(block, at - 1)) is not None:
            at = fixed.end()
        else:
            length_bytes, besides, entry_bytes = _HEADS[first]
            length = int.from_bytes(block[at : at + length_bytes], "big")
            at += length_bytes + besides + length * entry_bytes
            entries += length if first in (0xDE, 0xDF) else 0
    return entries


def _members(value: Any) -> int:
    """Return the number of members of all objects in a decoded value."""
    members = 0
    waiting: list[Any] = [[value]]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            members += len(found)
            found = found.values()
        waiting.extend([inner for inner in found if isinstance(inner, dict | list)])
    return members
