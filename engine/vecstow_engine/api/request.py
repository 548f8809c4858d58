"""One request as the dispatcher hands it on: parsed headers, the raw path, the whole body."""

from __future__ import annotations

from typing import Any

from vecstow_engine.api.media import Media, media_of_answer, media_of_body

BODILESS_METHODS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class Request:
    """What a route needs of a request; `body` is set when it was read."""

    __slots__ = (
        "answer_media",
        "body",
        "content_type",
        "declared_bytes",
        "has_body",
        "method",
        "path",
        "query",
    )

    def __init__(self, scope: Any, path: str) -> None:
        self.method: str = scope["method"]
        self.path = path
        self.query: bytes = scope["query_string"]
        self.body: bytes | bytearray = b""
        self.content_type: bytes | None = None
        self.declared_bytes: int | None = None
        self.has_body = False
        accept = None
        for name, value in scope["headers"]:
            if name == b"content-length":
                self.declared_bytes = int(value)
                self.has_body = self.declared_bytes > 0
            elif name == b"transfer-encoding":
                self.has_body = True
            elif name == b"content-type":
                self.content_type = value
            elif name == b"accept":
                accept = value
        self.answer_media = media_of_answer(accept)

    @property
    def body_media(self) -> Media:
        """The format of the body; raises UnsupportedMedia."""
        return media_of_body(self.content_type)
