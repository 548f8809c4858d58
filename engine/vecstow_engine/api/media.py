"""The formats of bodies and answers: JSON (RFC 8259) or MessagePack."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import msgspec

from vecstow_engine.api.errors import UnsupportedMedia
from vecstow_engine.model.payloads import portable

Headers = list[tuple[bytes, bytes]]


class Media(Enum):
    """The two formats of bodies and answers."""

    JSON = b"application/json"
    MSGPACK = b"application/msgpack"


_KNOWN: Final = {
    b"application/json": Media.JSON,
    b"application/msgpack": Media.MSGPACK,
    b"application/x-msgpack": Media.MSGPACK,
    b"application/vnd.msgpack": Media.MSGPACK,
}
_HINT: Final = "send the header Content-Type: application/json, or application/msgpack for the bulk form"

_to_json = msgspec.json.Encoder(enc_hook=str)
_to_msgpack = msgspec.msgpack.Encoder(enc_hook=str)


def media_of_body(content_type: bytes | None) -> Media:
    """Return the format that a Content-Type names, JSON without one; raise UnsupportedMedia."""
    if content_type is None:
        return Media.JSON
    if (exact := _KNOWN.get(content_type)) is not None:
        return exact
    kind, _, parameters = content_type.lower().partition(b";")
    media = _KNOWN.get(kind.strip())
    shown = content_type.decode("latin-1")[:80]
    if media is None:
        raise UnsupportedMedia(f"content type {shown!r} is not read here", hint=_HINT)
    if b"charset" in parameters and b"utf-8" not in parameters:
        raise UnsupportedMedia(f"content type {shown!r}: the charset must be utf-8", hint=_HINT)
    return media


def media_of_answer(accept: bytes | None) -> Media:
    """Return MessagePack when the Accept header names it before JSON, else JSON."""
    if accept is None or b"msgpack" not in accept:
        return Media.JSON
    if (exact := _KNOWN.get(accept)) is not None:
        return exact
    kinds = (part.partition(b";")[0].strip().lower() for part in accept.split(b","))
    return next((_KNOWN[kind] for kind in kinds if kind in _KNOWN), Media.JSON)


def encode(value: Any, media: Media) -> bytes:
    """Return `value` in that format; a value of an unsupported type becomes its string."""
    if media is Media.JSON:
        return _to_json.encode(value)
    try:
        return _to_msgpack.encode(value)
    except OverflowError:
        return _to_msgpack.encode(portable(value))
