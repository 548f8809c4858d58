"""The structures of hot bodies for msgspec, and the errors for bodies that do not fit.

`Raw` parts are decoded later, one at a time, after their size is checked: a batch is never decoded to Python
objects as a whole.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from vecstow_engine.api.errors import Malformed
from vecstow_engine.model.errors import MESSAGE_CHARACTERS_MAX, InvalidInput, WrongShape, shortened
from vecstow_engine.model.fields import unknown_field

T = TypeVar("T")
Body = bytes | bytearray | memoryview | Raw

NO_TEXT: Final = Raw(b"null")
NO_BLOCK: Final = Raw(b"\xc0")
"""The defaults for a missing member, in JSON and MessagePack; a null that was sent is another object."""


class JsonPoint(msgspec.Struct, forbid_unknown_fields=True):
    """`{data, id?, metadata?}`: data is a list of numbers."""

    data: Raw
    id: Raw = NO_TEXT
    metadata: Raw = NO_TEXT

    @property
    def given(self) -> int:
        """Return the number of members that the object had; a repeated key counts once."""
        return 1 + (self.id is not NO_TEXT) + (self.metadata is not NO_TEXT)


class JsonBatch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vectors: [point, …]}`."""

    vectors: list[JsonPoint]


class JsonSearch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vector, limit?, ef_search?, filter?}`: vector is a list of numbers."""

    vector: Raw
    limit: int | UnsetType | None = UNSET
    ef_search: int | UnsetType | None = UNSET
    filter: Raw = NO_TEXT

    @property
    def given(self) -> int:
        """Return the number of members that the object had; a repeated key counts once."""
        return 1 + (self.limit is not UNSET) + (self.ef_search is not UNSET) + (self.filter is not NO_TEXT)


class PackedPoint(msgspec.Struct, forbid_unknown_fields=True):
    """`{data, id?, metadata?}`: data is a bin of d little-endian float32."""

    data: memoryview
    id: Raw = NO_BLOCK
    metadata: Raw = NO_BLOCK

    @property
    def given(self) -> int:
        """Return the number of members that the object had; a repeated key counts once."""
        return 1 + (self.id is not NO_BLOCK) + (self.metadata is not NO_BLOCK)


class PackedBatch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vectors, ids?, metadata?}`: vectors is a bin of n * d little-endian float32."""

    vectors: memoryview
    ids: Raw = NO_BLOCK
    metadata: Raw = NO_BLOCK

    @property
    def given(self) -> int:
        """Return the number of members that the object had; a repeated key counts once."""
        return 1 + (self.ids is not NO_BLOCK) + (self.metadata is not NO_BLOCK)


class PackedSearch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vector, limit?, ef_search?, filter?}`: vector is a bin of d little-endian float32."""

    vector: memoryview
    limit: int | UnsetType | None = UNSET
    ef_search: int | UnsetType | None = UNSET
    filter: Raw = NO_BLOCK

    @property
    def given(self) -> int:
        """Return the number of members that the object had; a repeated key counts once."""
        return 1 + (self.limit is not UNSET) + (self.ef_search is not UNSET) + (self.filter is not NO_BLOCK)


class IdList(msgspec.Struct, forbid_unknown_fields=True):
    """`{ids: [str, …]}`, in JSON or MessagePack."""

    ids: Raw


Decoder = msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T]

_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_TOO_LARGE: Final = "Number out of range"
_PLACE: Final = re.compile(r"\(byte (\d+)\)$")
_NO_NUMBER: Final = re.compile(rb"nan|inf", re.IGNORECASE)
_NO_NUMBER_BYTES: Final = 4
"""Number of bytes that are compared with these names, from the character that the decoder refused."""
_ID_FIELD: Final = re.compile(r"(^|\.)ids?(\[.*\])?$")


def decode(decoder: Decoder[T], body: Body, prefix: str = "") -> T:
    """Return the decoded `body`; `prefix` is the name of the field that contains it.

    Raises WrongShape (unknown, missing or mistyped fields), InvalidInput (a number beyond float64) and
    Malformed (not valid JSON or MessagePack).
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as wrong:
        raise _invalid(decoder, str(wrong), prefix) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise _malformed(decoder, body, broken) from None


def _invalid(decoder: Decoder[T], message: str, prefix: str) -> WrongShape | InvalidInput:
    match = _AT.match(shortened(message, MESSAGE_CHARACTERS_MAX))
    what, path = (match["what"], match["path"] or "") if match else (message, "")
    field = (prefix + path).lstrip(".")
    if unknown := _UNKNOWN.fullmatch(what):
        struct: Any = JsonPoint if decoder.type is JsonBatch and field else decoder.type
        return unknown_field(unknown[1], struct.__struct_fields__, field)
    if missing := _MISSING.fullmatch(what):
        name = f"{field}.{missing[1]}".lstrip(".")
        return WrongShape(f"{field or 'the body'} has no field {missing[1]!r}", details={"field": name})
    if _ID_FIELD.search(field):
        what += "; ids are strings"
    text = f"{field}: {what}" if field else what
    if what.startswith(_TOO_LARGE):
        return InvalidInput(text, details={"field": field or "body", "limit": sys.float_info.max})
    return WrongShape(text.replace("`", ""), details={"field": field or "body"})


def _malformed(decoder: Decoder[T], body: Body, broken: Exception) -> Malformed:
    if isinstance(decoder, msgspec.msgpack.Decoder):
        return Malformed(f"the body is not valid MessagePack: {broken}", details={"field": "body"})
    hint = "NaN and Infinity are no JSON numbers; every value must be finite"
    return Malformed(
        f"the body is not valid JSON: {broken}",
        hint=hint if _is_no_number(body, str(broken)) else None,
        details={"field": "body"},
    )


def _is_no_number(body: Body, message: str) -> bool:
    """Whether a decoder stopped at NaN or Infinity, which JSON does not have."""
    place = _PLACE.search(message)
    if place is None:
        return False
    start = max(0, int(place[1]) - 1)  # `nan` begins like `null`: the decoder refuses its second character
    return _NO_NUMBER.search(memoryview(body)[start : start + 1 + _NO_NUMBER_BYTES]) is not None
