"""The shapes of hot bodies as msgspec reads them, and what a client is told when one does not fit.

`Raw` parts are decoded later, one at a time: a batch never becomes a heap of Python floats as a whole.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from vecstow_engine.api.errors import Malformed
from vecstow_engine.model.errors import WrongShape

T = TypeVar("T")
Body = bytes | bytearray | memoryview | Raw


class JsonPoint(msgspec.Struct, forbid_unknown_fields=True):
    """`{data, id?, metadata?}`: data is a list of numbers."""

    data: Raw
    id: str | None = None
    metadata: Raw = Raw(b"null")


class JsonBatch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vectors: [point, …]}`."""

    vectors: list[Raw]


class JsonSearch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vector, limit?, ef_search?, filter?}`: vector is a list of numbers."""

    vector: Raw
    limit: int | None = None
    ef_search: int | None = None
    filter: dict[str, Any] | None = None


class PackedPoint(msgspec.Struct, forbid_unknown_fields=True):
    """`{data, id?, metadata?}`: data is a bin of d little-endian float32."""

    data: memoryview
    id: str | None = None
    metadata: Raw = Raw(b"\xc0")


class PackedBatch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vectors, ids?, metadata?}`: vectors is a bin of n * d little-endian float32."""

    vectors: memoryview
    ids: list[str] | None = None
    metadata: list[Raw] | None = None


class PackedSearch(msgspec.Struct, forbid_unknown_fields=True):
    """`{vector, limit?, ef_search?, filter?}`: vector is a bin of d little-endian float32."""

    vector: memoryview
    limit: int | None = None
    ef_search: int | None = None
    filter: dict[str, Any] | None = None


class IdList(msgspec.Struct, forbid_unknown_fields=True):
    """`{ids: [str, …]}`, in JSON or MessagePack."""

    ids: list[str]


Decoder = msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T]

_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_ID_FIELD: Final = re.compile(r"(^|\.)ids?(\[.*\])?$")


def decode(decoder: Decoder[T], body: Body, prefix: str = "") -> T:
    """`body` in the decoder's shape; `prefix` is the field that it stands in.

    Raises WrongShape (unknown, missing or mistyped fields) and Malformed (no JSON, no MessagePack at all).
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as wrong:
        raise _wrong_shape(str(wrong), prefix) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise _malformed(decoder, broken) from None


def _wrong_shape(message: str, prefix: str) -> WrongShape:
    match = _AT.match(message)
    what, path = (match["what"], match["path"] or "") if match else (message, "")
    field = (prefix + path).lstrip(".")
    if _ID_FIELD.search(field):
        what += "; ids are strings"
    text = f"{field}: {what}" if field else what
    return WrongShape(text.replace("`", ""), details={"field": field or "body"})


def _malformed(decoder: Decoder[T], broken: Exception) -> Malformed:
    if isinstance(decoder, msgspec.msgpack.Decoder):
        return Malformed(f"the body is not valid MessagePack: {broken}", details={"field": "body"})
    return Malformed(
        f"the body is not valid JSON: {broken}",
        hint="NaN and Infinity are no JSON numbers; every value must be finite",
        details={"field": "body"},
    )
