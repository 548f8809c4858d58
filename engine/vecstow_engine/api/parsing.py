"""The structures of bodies, and the checks that msgspec lacks: bounds of memory, and repeated keys.

Members of the type `Raw` are decoded later, one at a time, after their size is checked: a batch is never
decoded to Python objects as a whole.

Upper bounds of the memory that decoding takes come from counts of bytes, before any object is built. Their
sizes are those of CPython's objects on 64 bits.

msgspec takes the last value of a repeated key, another reader the first (RFC 8259, 4), so such a body is
refused. A text is parsed twice only if a count differs. Outside of strings a JSON text has one colon for each
member, and a map of MessagePack declares the number of its entries. If these are more than the members of the
decoded value, the decoder has dropped a member.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import astuple

from vecstow_engine.api.answers import Media
from vecstow_engine.api.errors import NUMBER_OUT_OF_RANGE, wrong_shape
from vecstow_engine.api.undecodable import beyond_float64, malformed, too_deep
from vecstow_engine.model.errors import InvalidInput, refused
from vecstow_engine.service.request_memory import Lease, Part

T = TypeVar("T")
Text = bytes | bytearray
V = TypeVar("V", Raw, memoryview)
"""A vector as sent: in JSON a list of numbers, in MessagePack a bin of little-endian float32."""
Flag: TypeAlias = bool | UnsetType | None
Decoder = msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T]

_json: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()
ABSENT: Final = Raw(b"null")
"""The default for a missing member; a null that was sent is another object."""
_OBJECT_BYTES: Final = 192
"""Bytes of a dict with one key."""
_ENTRY_BYTES: Final = 88
"""Bytes of a small value, and of its place in a list or a dict."""
POINT_BYTES: Final = 256
"""Bytes of a point's struct and raw parts; later of its id, its payload's header, their places in lists."""
_SLOT_BYTES: Final = 10
_FLOAT_BYTES: Final = 24 + _SLOT_BYTES
"""Bytes of a number, and of its place in a list."""
_WIDE_BYTES: Final = 4
"""Bytes of each character of a string that has a character beyond 16 bits."""
_CONTINUED: Final = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that begin no character."""
_WITHOUT_OBJECT: Final = bytes(range(0x80))
"""Bytes that begin no object of their own: small integers."""

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


class SentPoint(msgspec.Struct, Generic[V], forbid_unknown_fields=True):
    """`{data, id?, metadata?}`."""

    data: V
    id: Raw = ABSENT
    metadata: Raw = ABSENT

    @property
    def given(self) -> int:
        """Return the number of members that the object had; a repeated key counts once."""
        return 1 + (self.id is not ABSENT) + (self.metadata is not ABSENT)


class SinglePoint(SentPoint[V], Generic[V]):
    """`{data, id?, metadata?, if_absent?, if_exists?}`: the only point of its body."""

    if_absent: Flag = UNSET
    if_exists: Flag = UNSET

    @property
    def given(self) -> int:
        """Return the number of members that the object had; a repeated key counts once."""
        return super().given + (self.if_absent is not UNSET) + (self.if_exists is not UNSET)


class JsonBatch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vectors: [point, …], if_absent?, if_exists?}`."""

    Entry: ClassVar = SentPoint
    vectors: list[SentPoint[Raw]]
    if_absent: Flag = UNSET
    if_exists: Flag = UNSET

    @property
    def given(self) -> int:
        """Return the number of members that the objects had; a repeated key counts once."""
        own = 1 + (self.if_absent is not UNSET) + (self.if_exists is not UNSET)
        return own + sum(point.given for point in self.vectors)


class PackedBatch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vectors, ids?, metadata?, if_absent?, if_exists?}`.

    `vectors` is a bin of n * d little-endian float32.
    """

    vectors: memoryview
    ids: Raw = ABSENT
    metadata: Raw = ABSENT
    if_absent: Flag = UNSET
    if_exists: Flag = UNSET

    @property
    def given(self) -> int:
        """Return the number of members that the object had; a repeated key counts once."""
        return sum(value is not UNSET and value is not ABSENT for value in astuple(self))


class IdList(msgspec.Struct, forbid_unknown_fields=True):
    """`{ids: [str, …]}`, in JSON or MessagePack."""

    ids: Raw


def decode(decoder: Decoder[T], body: Text | memoryview | Raw, prefix: str = "") -> T:
    """Return the decoded `body`; `prefix` is the name of the field that contains it.

    Raises WrongShape (unknown, missing or mistyped fields), InvalidInput (a number beyond float64, too many
    levels) and Malformed (not valid JSON or MessagePack).
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as wrong:
        named = beyond_float64(body, prefix) if str(wrong).startswith(NUMBER_OUT_OF_RANGE) else None
        raise named or wrong_shape(decoder.type, str(wrong), prefix) from None
    except RecursionError:
        is_search = prefix == "filter" or getattr(decoder.type, "is_search", False)
        raise too_deep(prefix, is_search) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        is_json = isinstance(decoder, msgspec.json.Decoder)
        raise malformed(body, broken, is_json=is_json) from None


def read_json(body: Text, media: Media, lease: Lease) -> Any:
    """Return the value of any JSON body; raise Malformed, InvalidInput, TooLarge or Busy."""
    lease.take(Part.DECODED, weigh_json(body))
    value = decode(_json, body)
    check_text(body, value, "body")
    return value


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


def weigh_json_examples(text: Text) -> int:
    """Return the most bytes that a JSON array of texts and of arrays of numbers takes.

    Decoding stops at the first entry of another type.
    """
    entries = text.count(b'"') // 2 + text.count(b"[")
    return text.count(b",") * _FLOAT_BYTES + entries * _ENTRY_BYTES + _characters(text)


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
    colons = _colons(text)
    if colons != known and colons != known + sum(_colons(bytes(value)) for value in values):
        raise _repeated(field)


def check_entries(block: Text, known: int, field: str = "body") -> None:
    """Raise InvalidInput when the map of a MessagePack block does not declare exactly `known` entries."""
    head = block[0]
    claimed = head & 0x0F if head < 0x90 else int.from_bytes(block[1 : 3 if head == 0xDE else 5], "big")
    if claimed != known:
        raise _repeated(field)


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


def _find_repeated(text: Text) -> str | None:
    repeated: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                repeated.append(key)
            seen.add(key)

    # A later limit on depth refuses a text that is too deep.
    with contextlib.suppress(RecursionError):
        json.loads(text, object_pairs_hook=note)
    return repeated[0] if repeated else None


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
