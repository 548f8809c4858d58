"""The answer to a scroll: `{points: [{id, data?, metadata?}, …], next_cursor}`, which grows part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from vecstow_engine.api.answers import PAYLOADS, Answer, GrowingAnswer, Media, encode, vector_values
from vecstow_engine.model.payloads import PayloadChoice
from vecstow_engine.query.scroll import ScrolledPoint
from vecstow_engine.service.request_memory import Lease

_HEADS: Final = {
    Media.JSON: b'{"success":true,"data":{"points":[',
    # The length of the array, four bytes, follows when it is known.
    Media.MSGPACK: b"\x83\xa7success\xc3\xa4data\x82\xa6points\xdd\0\0\0\0",
}
_MIDDLES: Final = {Media.JSON: b'],"next_cursor":', Media.MSGPACK: b"\xabnext_cursor"}
_TAILS: Final = {Media.JSON: b'},"error":null}', Media.MSGPACK: b"\xa5error\xc0"}


class _Listed(msgspec.Struct):
    id: str
    data: list[float] | bytes | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET


class PageAnswer(GrowingAnswer):
    """The answer of one page. An object of it is used by one thread at a time."""

    def __init__(self, media: Media, choice: PayloadChoice, lease: Lease) -> None:
        super().__init__(media, 0, lease)
        self._body = bytearray(_HEADS[media])
        self._count_at = len(self._body) - 4
        self._count = 0
        self._choice = choice

    @property
    def size(self) -> int:
        """The number of bytes so far."""
        return len(self._body)

    def add_scrolled(self, points: Sequence[ScrolledPoint]) -> None:
        """Render points; raise TooLarge or Busy when the lease gets no memory for them."""
        if points:
            self._count += len(points)
            none, render = PAYLOADS[self.media]
            self.add([self._listed(point, none, render) for point in points])

    def page(self, next_cursor: str | None) -> Answer:
        """Return the whole answer."""
        if self.media is Media.MSGPACK:
            self._body[self._count_at : self._count_at + 4] = self._count.to_bytes(4, "big")
        self._body += _MIDDLES[self.media] + encode(next_cursor, self.media) + _TAILS[self.media]
        return Answer(200, self._body, self.media.value)

    def _listed(self, point: ScrolledPoint, none: Raw, render: Callable[[bytes], Raw]) -> _Listed:
        listed = _Listed(point.position.id)
        if point.vector is not None:
            listed.data = vector_values(point.vector, self.media)
        if not self._choice.is_empty:
            chosen = self._choice.apply(point.payload)
            listed.metadata = none if chosen is None else render(chosen)
        return listed
