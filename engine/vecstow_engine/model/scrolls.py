"""Scrolls: the order in which points are listed, and the cursor at which a page ends. Pure.

A cursor is base64url text of a JSON list: the version, the fingerprint of filter and order, the id and, in an
order by a field, the value of the last point. It names a position and no page of the past: it survives
restarts and writes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from vecstow_engine.model.errors import InvalidInput, WrongShape, refused
from vecstow_engine.model.fields import mapping, refuse_unknown, required, type_name
from vecstow_engine.model.filters import ID_FIELD, Filter
from vecstow_engine.model.names import check_point_id
from vecstow_engine.model.payloads import PayloadChoice, check_field
from vecstow_engine.model.searches import WHOLE_PAYLOAD

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 10_000
"""The limit of points of one page."""
CURSOR_CHARACTERS_MAX: Final = 1 << 20
"""The limit of a cursor. It contains one value of a payload, which may be a text of 64 KiB with escapes."""
_VERSION: Final = 1
_DIRECTIONS: Final = ("asc", "desc")

OrderValue: TypeAlias = str | int | float
"""A value with a place in an order: a number or a string."""
Rank: TypeAlias = tuple[bool, OrderValue]
"""The place of a value: numbers by value, and behind them strings by code point."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order by a field of the payload; equal values follow each other by id, ascending."""

    field: str
    is_descending: bool = False

    @classmethod
    def parse(cls, value: object) -> Order:
        """Return the order that a field's name or `{field, direction?}` describes.

        Raises WrongShape or InvalidInput.
        """
        if isinstance(value, str):
            return cls(_field(value, "order_by"))
        if not isinstance(value, Mapping):
            raise WrongShape(
                f"order_by is {type_name(value)}; it must be the name of a field, or an object",
                details=refused("order_by", value),
            )
        document = mapping(value, "order_by")
        refuse_unknown(document, ("field", "direction"), "order_by")
        field = _field(required(document, "field", "order_by."), "order_by.field")
        direction = document.get("direction", "asc")
        if direction not in _DIRECTIONS:
            raise InvalidInput(
                f"order_by.direction is {direction!r}; it must be asc or desc",
                details=refused("order_by.direction", direction, list(_DIRECTIONS)),
            )
        return cls(field, direction == "desc")


def _field(value: object, place: str) -> str:
    name = check_field(value, place)
    if name == ID_FIELD:
        hint = "leave order_by out: points then come by id, ascending"
        raise InvalidInput(f"{place} is {name!r}, which is no field", hint=hint, details=refused(place, name))
    return name


@dataclass(frozen=True, slots=True)
class Position:
    """The place of a point in the order of a scroll."""

    id: str
    value: OrderValue | None = None
    """The value of the field; None in an order by id."""


@dataclass(frozen=True, slots=True, eq=False)
class ScrollQuery:
    """One checked page of a scroll."""

    fingerprint: str
    limit: int = LIMIT_DEFAULT
    filter: Filter | None = None
    order: Order | None = None
    """None for the order by id, ascending by code point."""
    start: Position | None = None
    """The position behind which the page begins; None for the first page."""
    with_vectors: bool = False
    payload: PayloadChoice = WHOLE_PAYLOAD
    weigh: Callable[[int], None] | None = None
    """A callback that gets the bytes of values that the order keeps, and raises beyond the limit."""


def rank(value: object) -> Rank | None:
    """Return the place of a value of a payload; None for a value without a place."""
    kind = value.__class__
    if kind is int or kind is float or kind is str:
        return kind is str, value  # type: ignore[return-value]
    return None


def fingerprint(filter: object, order: Order | None) -> str:
    """Return what identifies a filter (decoded JSON or None) and an order, whatever the order of the keys."""
    parts = [filter, None if order is None else [order.field, order.is_descending]]
    text = msgspec.json.encode(parts, order="deterministic")
    return hashlib.sha256(text).hexdigest()[:16]


def encode_cursor(position: Position, fingerprint: str) -> str:
    """Return the cursor of a position."""
    parts: list[Any] = [_VERSION, fingerprint, position.id]
    if position.value is not None:
        parts.append(position.value)
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def decode_cursor(cursor: str, fingerprint: str, order: Order | None) -> Position:
    """Return the position of a cursor; raise InvalidInput for another query's cursor, or no cursor."""
    if len(cursor) > CURSOR_CHARACTERS_MAX:
        raise InvalidInput(
            f"cursor has {len(cursor)} characters; at most {CURSOR_CHARACTERS_MAX} are read",
            details=refused("cursor", len(cursor), CURSOR_CHARACTERS_MAX),
        )
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        raw = base64.b64decode(padded.encode("ascii"), b"-_", validate=True)
        version, found, point_id, *values = msgspec.json.decode(raw, type=list[Any])
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        raise _no_cursor(cursor) from None
    if version != _VERSION or not isinstance(found, str) or not isinstance(point_id, str):
        raise _no_cursor(cursor)
    if found != fingerprint:
        raise InvalidInput(
            "cursor belongs to a scroll with another filter or another order_by",
            hint="send the same filter and order_by on each page, or begin again without a cursor",
            details=refused("cursor", cursor),
        )
    if len(values) != (order is not None) or not all(_has_place(value) for value in values):
        raise _no_cursor(cursor)
    return Position(check_point_id(point_id, "cursor"), *values)


def _has_place(value: object) -> bool:
    return rank(value) is not None and not (isinstance(value, float) and not math.isfinite(value))


def _no_cursor(cursor: str) -> InvalidInput:
    return InvalidInput(
        "cursor is no cursor of a scroll",
        hint="send next_cursor of the page before, unchanged",
        details=refused("cursor", cursor),
    )
