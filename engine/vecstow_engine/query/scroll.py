"""The points of a scroll, in the order of their ids or of a field, read a part at a time.

An order by id walks the index of ids. An order by a field looks at every matching point, and keeps the first
of those behind the position where the page begins; so does an order by id, when few points match.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from vecstow_engine.model.errors import TooLarge, Unavailable, refused
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.payloads import field_reader
from vecstow_engine.model.scrolls import Order, Position, Rank, ScrollQuery, rank
from vecstow_engine.query.candidates import Candidates
from vecstow_engine.query.contents import read_vectors
from vecstow_engine.query.matching import find_candidates, matches
from vecstow_engine.query.reading import matching_points
from vecstow_engine.query.search import RESOLVED_POINTS
from vecstow_engine.query.source import Source

WALKED_IDS: Final = 2_000
"""The number of ids that one read of a scroll with a filter looks at: other requests run between reads."""
SPARE_POINTS: Final = 1_000
"""The number of points beyond a page that are kept before those that come last are dropped."""
SPARE_BYTES: Final = 4 << 20
"""The bytes of values beyond those of a page that are kept before the points that come last are dropped."""
READ_BYTES: Final = 4 << 20
"""The bytes of payloads that a read of chosen points returns at most, apart from its last few points."""
_NO_RANK: Final[Rank] = (False, 0)


class ScrolledPoint(NamedTuple):
    """One point of a page."""

    position: Position
    payload: bytes | None
    vector: NDArray[np.float32] | None
    """Decoded from the stored bytes, shape (d,); None in a scroll without vectors."""


class _Row(NamedTuple):
    """One point before its vector is read."""

    position: Position
    label: int
    payload: bytes | None


class Scroll(ABC):
    """The rest of one page. Not thread-safe: one call after the other, from any thread."""

    def __init__(self, source: Source, query: ScrollQuery) -> None:
        self._source = source
        self._query = query
        self.is_done = False
        """Whether no point follows those that were read."""

    def read(self, count: int) -> list[ScrolledPoint]:
        """Return the next points, at most `count`; fewer, or none, while others follow."""
        rows = self._rows(count)
        if self._query.with_vectors:
            return _with_vectors(self._source, rows, self._query.filter)
        return [ScrolledPoint(position, payload, None) for position, _, payload in rows]

    @abstractmethod
    def _rows(self, count: int) -> list[_Row]:
        """Return the next points like `read`."""


def begin_scroll(source: Source, query: ScrollQuery) -> Scroll:
    """Return the scroll of a query, which has read nothing yet.

    The order by id walks the ids until enough points match, unless reading all points that match costs less.
    """
    if query.order is not None:
        return _ChosenScroll(source, query)
    if query.filter is not None and source.columns is not None:
        candidates = find_candidates(source, query.filter)
        # A page walks limit * live / matching ids on average.
        if candidates.possible_count**2 <= query.limit * candidates.live_count:
            return _ChosenScroll(source, query)
    return _WalkedScroll(source, query)


class _WalkedScroll(Scroll):
    """A scroll along the index of ids."""

    def __init__(self, source: Source, query: ScrollQuery) -> None:
        super().__init__(source, query)
        self._after: str | None = "" if query.start is None else query.start.id
        self._read_ahead: deque[_Row] = deque()

    def _rows(self, count: int) -> list[_Row]:
        wanted = self._query.filter
        if not self._read_ahead and self._after is not None:
            block = self._source.view.walk.block(self._after, count if wanted is None else WALKED_IDS)
            self._after = block.end
            self._read_ahead.extend(
                _Row(Position(point_id), label, payload)
                for label, point_id, payload in block.points
                if wanted is None or matches(wanted, point_id, payload)
            )
        rows = [self._read_ahead.popleft() for _ in range(min(count, len(self._read_ahead)))]
        self.is_done = self._after is None and not self._read_ahead
        return rows


class _ChosenScroll(Scroll):
    """A scroll whose points are chosen for a whole page, from all points that match."""

    def __init__(self, source: Source, query: ScrollQuery) -> None:
        super().__init__(source, query)
        self._start = query.start
        self._chosen: deque[Placed] = deque()
        self._is_last_choice = False

    def _rows(self, count: int) -> list[_Row]:
        query = self._query
        if not self._chosen and not self._is_last_choice:
            # One point more than the page shows whether another page follows.
            most = query.limit + 1
            self._chosen.extend(first_in_order(self._source, query, self._start, most))
            self._is_last_choice = len(self._chosen) < most
        rows: list[_Row] = []
        size = 0
        while self._chosen and len(rows) < count and size < READ_BYTES:
            taken = min(count - len(rows), RESOLVED_POINTS, len(self._chosen))
            part = [self._chosen.popleft() for _ in range(taken)]
            self._start = part[-1].position
            found = _read_again(self._source, part, query.filter)
            size += sum(len(row.payload or b"") for row in found)
            rows += found
        self.is_done = self._is_last_choice and not self._chosen
        return rows


class Placed(NamedTuple):
    """One point with its place in an order."""

    rank: Rank | None
    """The place of its value; None in an order by id."""
    id: str
    label: int

    @property
    def position(self) -> Position:
        """Return the position of the point."""
        return Position(self.id, None if self.rank is None else self.rank[1])


class _First:
    """The first points of an order among those that are added."""

    def __init__(self, query: ScrollQuery, count: int) -> None:
        self._query = query
        self._count = count
        self._points: list[Placed] = []
        self._bytes = self._sorted_bytes = 0
        """Bytes of the values: of all points, and of those that the last sort kept."""

    def add(self, point: Placed) -> None:
        """Add a point; weigh the values before they take more memory. Raises TooLarge or Busy."""
        self._points.append(point)
        self._bytes += _value_bytes(point)
        are_many = len(self._points) >= 2 * self._count + SPARE_POINTS
        if are_many or self._bytes >= self._sorted_bytes + SPARE_BYTES:
            self._points = self.points()
            self._bytes = self._sorted_bytes = sum(map(_value_bytes, self._points))
            if self._bytes:
                self._weigh(self._bytes + SPARE_BYTES)

    def points(self) -> list[Placed]:
        """Return the points, in their order."""
        return _sorted(self._points, self._query.order)[: self._count]

    def _weigh(self, held_bytes: int) -> None:
        order, weigh = self._query.order, self._query.weigh
        if order is None or weigh is None:
            return
        try:
            weigh(held_bytes)
        except TooLarge as error:
            raise TooLarge(
                f"the values of field {order.field!r} by which points are ordered take {held_bytes} bytes of "
                "memory or more",
                hint="use a smaller limit, or order by a field with shorter values",
                details=refused("order_by", order.field, error.details.get("limit")),
            ) from error


def _value_bytes(point: Placed) -> int:
    return 0 if point.rank is None else sys.getsizeof(point.rank[1])


def first_in_order(source: Source, query: ScrollQuery, start: Position | None, count: int) -> list[Placed]:
    """Return the first `count` matching points behind `start`, in the order of a field, or of ids.

    Points without a number or a string in the field are left out. Raises TooLarge, which names the field, or
    Busy when their values take too much memory.
    """
    order = query.order
    read = None if order is None else field_reader(order.field)
    narrow = None if order is None else partial(_first_by_index, source, order, start, count)
    first = _First(query, count)
    for label, point_id, fields in matching_points(source, query.filter, narrow):
        place = None if read is None else rank(read(fields))
        if (place is None and read is not None) or not _is_behind(place, point_id, start, order):
            continue
        first.add(Placed(place, point_id, label))
    return first.points()


def _first_by_index(
    source: Source, order: Order, start: Position | None, count: int, candidates: Candidates
) -> Candidates:
    """Return candidates that contain the first `count` behind `start`: all when no payload index tells."""
    if source.columns is None or candidates.has_doubts:
        return candidates
    value = UNSET if start is None else start.value
    first = source.columns.first_in_order(
        order.field, candidates.epochs, candidates.sure, value, count, is_descending=order.is_descending
    )
    return candidates if first is None else candidates.among(first)


def _is_behind(place: Rank | None, point_id: str, start: Position | None, order: Order | None) -> bool:
    if start is None:
        return True
    last = rank(start.value)
    if place is None or last is None or place == last:
        return point_id > start.id
    return place < last if order is not None and order.is_descending else place > last


def _sorted(points: list[Placed], order: Order | None) -> list[Placed]:
    """Return the points by value, and by id where the values are equal: sorts keep the order of equals."""
    by_id = sorted(points, key=lambda point: point.id)
    if order is None:
        return by_id
    return sorted(by_id, key=lambda point: point.rank or _NO_RANK, reverse=order.is_descending)


def _read_again(source: Source, points: Sequence[Placed], filter: Filter | None) -> list[_Row]:
    """Return the points with their payloads; those that were written meanwhile, if they still match."""
    labels = np.array([point.label for point in points], np.uint64)
    rows = []
    for point, found in zip(points, source.view.resolve(labels), strict=True):
        if found is not None:
            rows.append(_Row(point.position, point.label, found[1]))
        else:
            rows += [
                _Row(point.position, newest.label, newest.payload)
                for newest in source.view.newest([point.id])
                if filter is None or matches(filter, newest.id, newest.payload)
            ]
    return rows


def _with_vectors(source: Source, rows: Sequence[_Row], filter: Filter | None) -> list[ScrolledPoint]:
    """Return the points with their vectors. A point that is written meanwhile is read as a whole again."""
    view = source.view
    vectors, present = read_vectors(view, np.array([row.label for row in rows], np.uint64))
    points = []
    for (position, _, payload), vector, is_present in zip(rows, vectors, present.tolist(), strict=True):
        if is_present:
            points.append(ScrolledPoint(position, payload, vector))
            continue
        try:
            [newest] = view.get([position.id])
        except Unavailable:  # withheld
            continue
        if newest is not None and (filter is None or matches(filter, newest.id, newest.payload)):
            points.append(ScrolledPoint(position, newest.payload, newest.vector))
    return points
