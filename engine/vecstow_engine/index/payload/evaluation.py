"""The evaluation of a filter over columns, for all slots at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from vecstow_engine.index.payload.coders import Mask, NumberCoder
from vecstow_engine.index.payload.column import OTHER, VALUE, Bounds, Column
from vecstow_engine.model.filters import ID_FIELD, And, Condition, Node, Not
from vecstow_engine.model.geo import LAT_MAX, LON_MAX, Region

_ID_OPERATORS: Final = ("$eq", "$in", "$ne", "$nin")
"""The operators on ids that are answered by looking the ids up."""


class Evaluation:
    """One evaluation of a filter, for the slots below `size`.

    `slots_of_ids` returns the mask, shape (size,), of the slots of some ids.
    """

    def __init__(
        self, columns: Mapping[str, Column], size: int, slots_of_ids: Callable[[tuple[Any, ...]], Mask]
    ) -> None:
        self._columns = columns
        self._size = size
        self._slots_of_ids = slots_of_ids

    def bounds(self, node: Node) -> Bounds:
        """Return the slots that match for certain, and those that may match."""
        if isinstance(node, Condition):
            return self._condition(node)
        if isinstance(node, Not):
            inner = self.bounds(node.part)
            return Bounds(~inner.possible, ~inner.sure)
        join, start = (np.logical_and, np.ones) if isinstance(node, And) else (np.logical_or, np.zeros)
        sure = possible = start(self._size, np.bool_)
        for part in node.parts:  # one at a time: each takes two bytes of memory for each slot
            found = self.bounds(part)
            sure, possible = join(sure, found.sure), join(possible, found.possible)
        return Bounds(sure, possible)

    def _condition(self, condition: Condition) -> Bounds:
        if condition.field == ID_FIELD:
            return self._id(condition)
        if condition.operator == "$within":
            return self._within(condition)
        column = self._columns.get(condition.field)
        if column is None:
            return self._unknown()
        return column.match(condition.operator, condition.operand, self._size)

    def _id(self, condition: Condition) -> Bounds:
        operand = condition.operand
        ids = operand if isinstance(operand, tuple) else (operand,)
        if condition.operator in ("$eq", "$in"):
            mask = self._slots_of_ids(ids)
            return Bounds(mask, mask)
        if condition.operator in ("$ne", "$nin"):
            mask = ~self._slots_of_ids(ids)
            return Bounds(mask, mask)
        return self._unknown()

    def _within(self, condition: Condition) -> Bounds:
        columns = [self._columns.get(name) for name in _coordinates(condition)]
        # A key with dots in its own name could hide the path to the place.
        if "." in condition.field or not all(map(_has_numbers, columns)):
            return self._unknown()
        lat, lon = (column for column in columns if column is not None)
        kinds = [column.kinds[: self._size] for column in (lat, lon)]
        known = (kinds[0] == VALUE) & (kinds[1] == VALUE)
        at = np.flatnonzero(known)
        lats, lons = (column.codes[: self._size][at].astype(np.float64) for column in (lat, lon))
        region = condition.operand
        assert isinstance(region, Region)
        sure = known.copy()
        sure[at] = region.mask(lats, lons) & (abs(lats) <= LAT_MAX) & (abs(lons) <= LON_MAX)
        # A number without a code, for example a fraction in a column of integers, may lie within.
        numbers = [(kind == VALUE) | (kind == OTHER) for kind in kinds]
        return Bounds(sure, sure | (numbers[0] & numbers[1] & ~known))

    def _unknown(self) -> Bounds:
        return Bounds(np.zeros(self._size, np.bool_), np.ones(self._size, np.bool_))


def unindexed(node: Node, columns: Mapping[str, Column]) -> Iterator[str]:
    """Yield the fields of conditions that no column answers; a field may come twice."""
    if isinstance(node, Not):
        yield from unindexed(node.part, columns)
    elif not isinstance(node, Condition):
        for part in node.parts:
            yield from unindexed(part, columns)
    elif node.field == ID_FIELD:
        if node.operator not in _ID_OPERATORS:
            yield ID_FIELD
    else:
        names = _coordinates(node) if node.operator == "$within" else (node.field,)
        yield from (name for name in names if name not in columns)


def _has_numbers(column: Column | None) -> bool:
    return column is not None and isinstance(column.coder, NumberCoder) and not column.has_dotted_key


def _coordinates(condition: Condition) -> tuple[str, str]:
    """Return the fields of latitude and longitude of a condition on a place."""
    return f"{condition.field}.lat", f"{condition.field}.lon"
