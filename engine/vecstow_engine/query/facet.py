"""How often each value of a field occurs: the answer to a facet.

Values are scalars: strings, numbers, true, false and null. An element of an array counts once for each point.
Numbers of one value are one value: 1 and 1.0. A truth value is no number.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from vecstow_engine.model.errors import TooLarge, refused
from vecstow_engine.model.filters import Filter, Scalar
from vecstow_engine.model.payloads import INTEGER_MAX, INTEGER_MIN, field_reader
from vecstow_engine.query.matching import find_candidates
from vecstow_engine.query.reading import matching_points
from vecstow_engine.query.source import Source

LIMIT_DEFAULT: Final = 10
LIMIT_MAX: Final = 1_000
"""The limit of values in one answer."""
DISTINCT_MAX: Final = 1 << 20
"""The limit of different values of one field."""
ENTRY_BYTES: Final = 160
"""Memory of a value in the count, apart from the value: its place in a dict, and the number."""
WEIGHED_BYTES: Final = 1 << 20
"""The bytes of values that are counted before they are weighed."""

Weigh = Callable[[int], None]
"""A callback that gets the bytes of memory so far, and raises TooLarge or Busy beyond a limit."""
_KINDS: Final[dict[type, int]] = {type(None): 0, bool: 1, int: 2, float: 2, str: 3}
_SCALARS: Final = frozenset(_KINDS)
_Key = tuple[bool, Any]
"""A value, and whether it is a truth value: Python counts 1 and True as one key."""


def facet(
    source: Source, field: str, filter: Filter | None, limit: int, weigh: Weigh
) -> list[tuple[Scalar, int]]:
    """Return the values of a field in the matching points and how many points have them.

    The largest count comes first; equal counts are ordered by value: null, false, true, numbers, strings.
    Raises TooLarge for more than `DISTINCT_MAX` values, or for values that take too much memory.
    """
    counts = count_values(source, field, filter, weigh)
    return heapq.nsmallest(limit, counts, key=lambda entry: (-entry[1], *_place(entry[0])))


def count_values(source: Source, field: str, filter: Filter | None, weigh: Weigh) -> list[tuple[Scalar, int]]:
    """Return each value of a field in the matching points, with the number of these points; in no order."""
    if (counted := _count_in_column(source, field, filter, weigh)) is not None:
        return counted
    read = field_reader(field)
    counts: dict[_Key, int] = {}
    taken = weighed = 0
    for _, _, fields in matching_points(source, filter):
        for key in set(_keys(read(fields))):
            if key in counts:
                counts[key] += 1
                continue
            counts[key] = 1
            taken += ENTRY_BYTES + sys.getsizeof(key[1])
            if len(counts) > DISTINCT_MAX:
                raise _too_many(field, f"{DISTINCT_MAX} different values")
        if taken - weighed > WEIGHED_BYTES:
            weighed = taken
            _weigh(weigh, taken, field)
    return [(value, count) for (_, value), count in counts.items()]


def _count_in_column(
    source: Source, field: str, filter: Filter | None, weigh: Weigh
) -> list[tuple[Scalar, int]] | None:
    """Return the values with their counts from the payload index of the field; None when it does not tell."""
    candidates = find_candidates(source, filter)
    if source.columns is None or candidates.has_doubts:
        return None
    found = source.columns.count_values(field, candidates.epochs, candidates.sure)
    if found is None:
        return None
    if len(found) > DISTINCT_MAX:
        raise _too_many(field, f"{DISTINCT_MAX} different values")
    _weigh(weigh, ENTRY_BYTES * len(found), field)
    return [(value, count) for each, count in found for _, value in _keys(each)]


def _keys(value: Any) -> Iterator[_Key]:
    """Yield the scalars of a field: its value, or the elements of its array."""
    for scalar in value if value.__class__ is list else (value,):
        kind = scalar.__class__
        if kind is float and scalar.is_integer() and INTEGER_MIN <= scalar <= INTEGER_MAX:
            yield False, int(scalar)
        elif kind in _SCALARS:
            yield kind is bool, scalar


def _place(value: Scalar) -> tuple[int, Any]:
    return _KINDS[type(value)], 0 if value is None else value


def _weigh(weigh: Weigh, taken: int, field: str) -> None:
    try:
        weigh(taken)
    except TooLarge as error:
        raise _too_many(field, f"{taken} bytes of different values") from error


def _too_many(field: str, what: str) -> TooLarge:
    return TooLarge(
        f"field {field!r} has more than {what}, which are not counted",
        hint="count a field with fewer values, or fewer points by a filter",
        details=refused("field", field, DISTINCT_MAX),
    )
