"""The oracle of filters: one document, one point, evaluated straight from docs/filters.md.

It reads the document, not the tree, decides nothing ahead, and shares no code with the engine: datetimes are
read by position, distances come from vectors in space. It evaluates documents that the parser accepts.
"""

from __future__ import annotations

import datetime
import math
from fractions import Fraction
from typing import Any, Final

EARTH_RADIUS_M: Final = 6_371_008.8
DIGITS: Final = "0123456789"
NOTHING: Final = object()
"""The value of a field that the payload lacks."""


def oracle(document: dict[str, Any], payload: dict[str, Any] | None, point_id: str) -> bool:
    """Whether the point matches."""
    results = []
    for key, value in document.items():
        if key == "$and":
            results.append(all(oracle(part, payload, point_id) for part in value))
        elif key == "$or":
            results.append(any(oracle(part, payload, point_id) for part in value))
        elif key == "$not":
            results.append(not oracle(value, payload, point_id))
        else:
            found = point_id if key == "$id" else find(payload or {}, key)
            is_short = not isinstance(value, dict) or is_datetime(value)
            operators = {"$eq": value} if is_short else value
            results.extend(holds(found, name, operand) for name, operand in operators.items())
    return all(results)


def find(payload: dict[str, Any], field: str) -> Any:
    if field in payload:
        return payload[field]
    here: Any = payload
    for step in field.split("."):
        if not isinstance(here, dict) or step not in here:
            return NOTHING
        here = here[step]
    return here


def holds(value: Any, name: str, operand: Any) -> bool:
    """Whether one operator holds for the value of a field."""
    match name:
        case "$exists":
            return (value is not NOTHING) is operand
        case "$empty":
            return is_empty(value) is operand
        case "$size":
            return isinstance(value, list) and len(value) == operand
        case "$startsWith":
            return isinstance(value, str) and value[: len(operand)] == operand
        case "$contains":
            return isinstance(value, list) and any(same(item, operand) for item in value)
        case "$eq" | "$ne":
            return same(value, operand) == (name == "$eq")
        case "$in" | "$nin":
            return any(same(value, item) for item in operand) == (name == "$in")
        case "$between":
            return in_order(value, "$gte", operand[0]) and in_order(value, "$lte", operand[1])
        case "$within":
            return within(value, operand)
        case "$gt" | "$gte" | "$lt" | "$lte":
            return in_order(value, name, operand)
    raise AssertionError(name)


def is_empty(value: Any) -> bool:
    if value is NOTHING or value is None:
        return True
    return isinstance(value, str | list | dict) and len(value) == 0


def is_datetime(operand: Any) -> bool:
    return isinstance(operand, dict) and set(operand) == {"datetime"}


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def same(value: Any, operand: Any) -> bool:
    if is_datetime(operand):
        instant = instant_of(value)
        return instant is not None and instant == instant_of(operand["datetime"])
    return kind_of(value) == kind_of(operand) and kind_of(value) not in ("list", "dict") and value == operand


def in_order(value: Any, name: str, bound: Any) -> bool:
    if is_datetime(bound):
        value, bound = instant_of(value), instant_of(bound["datetime"])
    if kind_of(value) != kind_of(bound):
        return False
    if kind_of(bound) == "str":
        value, bound = [ord(c) for c in value], [ord(c) for c in bound]
    return bool(
        {"$gt": value > bound, "$gte": value >= bound, "$lt": value < bound, "$lte": value <= bound}[name]
    )


def instant_of(value: Any) -> int | None:
    """Return the microseconds from 0001-01-01T00:00:00Z to an RFC 3339 datetime; None for other values."""
    if not isinstance(value, str) or len(value) < 20:
        return None
    head, rest = value[:19], value[19:]
    fraction = ""
    if rest[0] == ".":
        fraction = rest[1 : len(rest) - len(rest[1:].lstrip(DIGITS))]
        rest = rest[1 + len(fraction) :]
        if not 1 <= len(fraction) <= 9:
            return None
    zone = "+00:00" if rest in ("Z", "z") else rest
    if form_of(head) not in ("0000-00-00T00:00:00", "0000-00-00t00:00:00", "0000-00-00 00:00:00"):
        return None
    if form_of(zone) not in ("+00:00", "-00:00"):
        return None
    hour, minute, second = int(head[11:13]), int(head[14:16]), int(head[17:19])
    zone_hour, zone_minute = int(zone[1:3]), int(zone[4:6])
    if max(hour, zone_hour) > 23 or max(minute, second, zone_minute) > 59:
        return None
    try:
        days = datetime.date(int(head[:4]), int(head[5:7]), int(head[8:10])).toordinal() - 1
    except ValueError:
        return None
    ahead = (zone_hour * 60 + zone_minute) * (-1 if zone[0] == "-" else 1)
    seconds = ((days * 24 + hour) * 60 + minute - ahead) * 60 + second
    if not 0 <= seconds < datetime.date.max.toordinal() * 86_400:
        return None
    return seconds * 1_000_000 + int((fraction + "000000")[:6])


def form_of(text: str) -> str:
    """Return a text with each ASCII digit as 0."""
    return "".join("0" if character in DIGITS else character for character in text)


def within(value: Any, region: dict[str, Any]) -> bool:
    if not isinstance(value, dict):
        return False
    lat: Any = value.get("lat")
    lon: Any = value.get("lon")
    if kind_of(lat) != "number" or kind_of(lon) != "number" or abs(lat) > 90 or abs(lon) > 180:
        return False
    if "box" in region:
        box = region["box"]
        west, east = Fraction(box["west"]), Fraction(box["east"])
        turn = east - west + (360 if west > east else 0)
        eastward = [Fraction(lon) + whole - west for whole in (-360, 0, 360)]
        is_between = any(0 <= angle <= turn for angle in eastward)
        return bool(box["south"] <= lat <= box["north"]) and is_between
    center = region["center"]
    return bool(metres_between(lat, lon, center["lat"], center["lon"]) <= region["radius_m"])


def metres_between(lat: float, lon: float, other_lat: float, other_lon: float) -> float:
    """Return the distance on the sphere, by the angle between two unit vectors."""
    a, b = direction(lat, lon), direction(other_lat, other_lon)
    cross = (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return EARTH_RADIUS_M * math.atan2(math.hypot(*cross), dot)


def direction(lat: float, lon: float) -> tuple[float, float, float]:
    lat, lon = math.radians(lat), math.radians(lon)
    return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)
