"""The envelope of every answer: {"success", "data", "error"}, and in a success exactly these keys.

d-vecDB's client refuses any other key in a success. An error also has `message` and `details`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from vecstow_engine.api.errors import error_document, error_headers, status_of
from vecstow_engine.api.media import Headers, Media, encode
from vecstow_engine.model.errors import VecstowError

_JSON_HEAD: Final = b'{"success":true,"data":['
_JSON_TAIL: Final = b'],"error":null}'
_PACKED_HEAD: Final = b"\x83\xa7success\xc3\xa4data"
_PACKED_TAIL: Final = b"\xa5error\xc0"


@dataclass(slots=True)
class Answer:
    """A whole answer: status, body, content type, and the headers apart from type and length."""

    status: int
    body: bytes | bytearray
    media: bytes = Media.JSON.value
    headers: Headers | tuple[()] = ()


def success(data: Any, media: Media, status: int = 200) -> Answer:
    """Return an answer with `data` in the envelope."""
    return Answer(status, encode({"success": True, "data": data, "error": None}, media), media.value)


def list_head(count: int, media: Media) -> bytes:
    """Return the bytes before the first value of a success whose data are a list of `count` values."""
    return _JSON_HEAD if media is Media.JSON else _PACKED_HEAD + packed_array_head(count)


def list_tail(media: Media) -> bytes:
    """Return the bytes after the last value of a success whose data are a list."""
    return _JSON_TAIL if media is Media.JSON else _PACKED_TAIL


def packed_array_head(count: int) -> bytes:
    """Return the head of a MessagePack array (https://github.com/msgpack/msgpack/blob/master/spec.md)."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 65_536 else b"\xdd" + count.to_bytes(4, "big")


def failure(error: VecstowError, media: Media) -> Answer:
    """Return the answer for `error`: its status, document and headers."""
    return Answer(status_of(error), encode(error_document(error), media), media.value, error_headers(error))
