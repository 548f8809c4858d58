"""The envelope of every answer: {"success", "data", "error"}, exactly these keys when it succeeded.

d-vecDB's client refuses any other key there. An error has `message` and `details` besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from vecstow_engine.api.errors import error_document, error_headers, status_of
from vecstow_engine.api.media import Headers, Media, encode
from vecstow_engine.model.errors import VecstowError

_JSON_HEAD: Final = b'{"success":true,"data":'
_JSON_TAIL: Final = b',"error":null}'


@dataclass(slots=True)
class Answer:
    """A whole answer: status, body, and the headers beside its type and length."""

    status: int
    body: bytes
    media: bytes = Media.JSON.value
    headers: Headers | tuple[()] = ()


def success(data: Any, media: Media, status: int = 200) -> Answer:
    """`data` in the envelope."""
    return Answer(status, encode({"success": True, "data": data, "error": None}, media), media.value)


def success_json(data: bytes) -> Answer:
    """`data`, which is JSON already, in the envelope."""
    return Answer(200, _JSON_HEAD + data + _JSON_TAIL)


def failure(error: VecstowError, media: Media) -> Answer:
    """The answer that `error` is."""
    return Answer(status_of(error), encode(error_document(error), media), media.value, error_headers(error))
