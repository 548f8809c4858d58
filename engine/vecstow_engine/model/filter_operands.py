"""The operands of a filter: a decoded JSON value is checked, and becomes the operand of a condition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeGuard

from vecstow_engine.model.datetimes import parse_datetime
from vecstow_engine.model.filter_refusals import refuse, shown
from vecstow_engine.model.filters import Operand, Scalar
from vecstow_engine.model.geo import LAT_MAX, LON_MAX, RADIUS_M_MAX, Box, Circle, Region
from vecstow_engine.model.payloads import INTEGER_MAX, INTEGER_MIN

IN_VALUES_MAX: Final = 1_000
"""The limit of values in one `$in` or `$nin`."""
SIZE_MAX: Final = (1 << 63) - 1
DATETIME_FORM: Final = '{"datetime": "2024-05-01T10:00:00Z"}'
_CIRCLE: Final = ("center", "radius_m")
_BOX: Final = ("south", "west", "north", "east")
_REGION_HINT: Final = (
    'write {"center": {"lat": 59.9, "lon": 10.7}, "radius_m": 1000}, '
    'or {"box": {"south": 59, "west": 10, "north": 60, "east": 11}}'
)

Check: TypeAlias = Callable[[object, str], Operand]
"""The check of an operand: a decoded JSON value and its path. Raises InvalidInput."""


def is_datetime(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a value has the form of a datetime, which is the only object that can be compared with."""
    return isinstance(value, Mapping) and list(value) == ["datetime"]


def bounds(value: object, path: str, check: Check) -> tuple[Operand, Operand]:
    """Return both bounds of a `$between`; raise InvalidInput. `check` is the check of `$gte` here."""
    if not isinstance(value, list) or len(value) != 2:
        refuse(path, value, "a list of two bounds is needed", "write [low, high]")
    low: Any = check(value[0], f"{path}[0]")
    high: Any = check(value[1], f"{path}[1]")
    if _order_of(low) is not _order_of(high):
        reason = f"the bounds {shown(low)} and {shown(high)} are of two kinds"
        refuse(path, value, reason, "write two numbers, two strings or two datetimes")
    if low > high:
        refuse(path, value, f"the low bound {shown(low)} is above the high bound {shown(high)}", "swap them")
    return low, high


def _order_of(value: object) -> type:
    return type(value) if isinstance(value, str | datetime) else float


def _scalar(value: object, path: str) -> Scalar:
    if is_datetime(value):
        return _datetime(value["datetime"], f"{path}.datetime")
    if isinstance(value, float) and not math.isfinite(value):
        refuse(path, value, "not a finite number", "no payload holds one")
    if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        limit = INTEGER_MIN if value < 0 else INTEGER_MAX
        refuse(path, value, "beyond -2^63 to 2^64-1", "no payload holds such an integer", limit)
    if value is None or isinstance(value, str | int | float):
        return value
    hint = "use $in for one of several values, or $contains for a list that holds a value"
    if isinstance(value, Mapping):
        hint = f"use dots to reach into an object; a datetime is {DATETIME_FORM}"
    reason = "only a string, a number, true, false, null or a datetime can be compared with"
    refuse(path, value, reason, hint)


def _datetime(value: object, path: str) -> datetime:
    instant = parse_datetime(value) if isinstance(value, str) else None
    if instant is None:
        reason = "not a datetime of RFC 3339 with date, time and offset"
        hint = f"write {DATETIME_FORM}, in the years 1 to 9999, with Z or an offset such as +02:00"
        refuse(path, value, reason, hint)
    return instant


def _orderable(value: object, path: str) -> Scalar:
    is_ordered = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not is_ordered and not is_datetime(value):
        reason = "only numbers, strings and datetimes have an order"
        refuse(path, value, reason, "compare other values with $eq or $in")
    return _scalar(value, path)


def _text(value: object, path: str) -> Scalar:
    if not isinstance(value, str):
        refuse(path, value, "a string is needed", "quote it")
    return value


def _id(value: object, path: str) -> Scalar:
    if not isinstance(value, str):
        refuse(path, value, "an id is a string", 'write {"$id": "text"}, or operators with strings')
    return value


def _each(check: Callable[[object, str], Scalar]) -> Check:
    """Return the check of a list whose values `check` accepts."""

    def check_list(value: object, path: str) -> tuple[Scalar, ...]:
        if not isinstance(value, list):
            refuse(path, value, "a list of values is needed", "write [value, value]")
        if len(value) > IN_VALUES_MAX:
            hint = "split it over several searches, or filter on a field that groups them"
            refuse(path, value, f"more than {IN_VALUES_MAX} values", hint, IN_VALUES_MAX)
        return tuple(check(item, f"{path}[{at}]") for at, item in enumerate(value))

    return check_list


def _boolean(meaning: str) -> Check:
    """Return the check of true and false; `meaning` says what true matches."""

    def check(value: object, path: str) -> Scalar:
        if not isinstance(value, bool):
            refuse(path, value, "true or false is needed", f"true matches points {meaning}")
        return value

    return check


def _size(value: object, path: str) -> Scalar:
    hint = "write the number of elements; [] has size 0"
    if not isinstance(value, int) or isinstance(value, bool):
        refuse(path, value, "an integer is needed", hint)
    if not 0 <= value <= SIZE_MAX:
        refuse(path, value, "beyond 0 to 2^63-1", hint, 0 if value < 0 else SIZE_MAX)
    return value


def _region(value: object, path: str) -> Region:
    if isinstance(value, Mapping):
        if set(value) == set(_CIRCLE):
            lat, lon = _degrees(value["center"], f"{path}.center", ("lat", "lon"))
            radius_m = _number(value["radius_m"], f"{path}.radius_m", 0, RADIUS_M_MAX, "metres")
            return Circle(lat, lon, radius_m)
        if set(value) == {"box"}:
            return _box(value["box"], f"{path}.box")
    reason = f"either {' and '.join(_CIRCLE)}, or box, is needed"
    refuse(path, value, reason, _REGION_HINT)


def _box(value: object, path: str) -> Box:
    south, west, north, east = _degrees(value, path, _BOX)
    if south > north:
        reason = f"south {shown(south)} is above north {shown(north)}"
        refuse(path, value, reason, "swap them; only west may be above east, across the antimeridian")
    return Box(south, west, north, east)


def _degrees(value: object, path: str, names: tuple[str, ...]) -> list[float]:
    if not isinstance(value, Mapping) or set(value) != set(names):
        refuse(path, value, f"an object of exactly {', '.join(names)} is needed", _REGION_HINT)
    found = []
    for name in names:
        limit = LAT_MAX if name in ("lat", "south", "north") else LON_MAX
        found.append(_number(value[name], f"{path}.{name}", -limit, limit, "degrees"))
    return found


def _number(value: object, path: str, low: int, high: int, unit: str) -> float:
    hint = f"write a number of {unit} from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(path, value, "a number is needed", hint)
    if not low <= value <= high:
        refuse(path, value, f"beyond {low} to {high}", hint, low if value < low else high)
    return float(value)


OPERANDS: Final[dict[str, Check]] = {
    "$eq": _scalar,
    "$ne": _scalar,
    "$in": _each(_scalar),
    "$nin": _each(_scalar),
    "$gt": _orderable,
    "$gte": _orderable,
    "$lt": _orderable,
    "$lte": _orderable,
    "$exists": _boolean("that have the field"),
    "$empty": _boolean("without the field, or with null or a value without content"),
    "$size": _size,
    "$startsWith": _text,
    "$contains": _scalar,
    "$within": _region,
}
"""The operators that a field may have, each with the check of its operand; `$between` is two of them."""
ID_OPERANDS: Final[dict[str, Check]] = {
    "$eq": _id,
    "$ne": _id,
    "$in": _each(_id),
    "$nin": _each(_id),
    "$gt": _id,
    "$gte": _id,
    "$lt": _id,
    "$lte": _id,
    "$startsWith": _id,
}
"""The operators that `$id` may have; `$between` is two of them."""
