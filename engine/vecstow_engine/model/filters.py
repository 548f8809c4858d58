"""Filters: a small immutable tree of conditions on payload and id, and its test of points. docs/filters.md.

A filter knows payloads and ids only; the caller decides which points are tested, and when. Each decision that
depends on no point is made before the first point is tested.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeAlias

from vecstow_engine.model.datetimes import parse_datetime
from vecstow_engine.model.geo import Region, coordinates
from vecstow_engine.model.payloads import ABSENT, field_reader

Scalar: TypeAlias = str | int | float | bool | datetime | None
"""A value to compare with; a datetime is aware and in UTC."""
Operand: TypeAlias = Scalar | tuple[Scalar, ...] | Region
Test: TypeAlias = Callable[[Mapping[str, object], str], bool]
"""The test of a point: its payload and its id."""
Predicate: TypeAlias = Callable[[Any], bool]
"""The test of a field's value: a JSON value, or `ABSENT` for a field that the payload lacks."""

ID_FIELD: Final = "$id"
"""The field of a condition on the point's id; no payload field has this name in a filter."""
_NUMBERS: Final = frozenset({int, float})
"""The exact types of numbers: bool is a subclass of int, but is not a number here."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one field; a `field` of `ID_FIELD` is the point's id, always a string.

    | operator | operand |
    |---|---|
    | `$eq` `$ne` `$contains` | a scalar: str, int, float, bool, None, or an aware datetime in UTC |
    | `$in` `$nin` | a tuple of scalars |
    | `$gt` `$gte` `$lt` `$lte` | str, int, float, or an aware datetime in UTC |
    | `$startsWith` | str |
    | `$size` | int |
    | `$exists` `$empty` | bool |
    | `$within` | `geo.Circle` or `geo.Box` |

    On the id, only `$eq` `$ne` `$in` `$nin` `$gt` `$gte` `$lt` `$lte` `$startsWith` occur, with str alone.
    `$between` is parsed as `$gte` and `$lte`. A datetime compares with strings that `parse_datetime` reads.
    """

    field: str
    operator: str
    operand: Operand


@dataclass(frozen=True, slots=True)
class And:
    """A node that matches when every part does; without parts, always."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """A node that matches when one part does."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """A node that matches when its part does not."""

    part: Node


Node: TypeAlias = Condition | And | Or | Not


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter that tests points; immutable, and therefore thread-safe."""

    root: Node
    _test: Test = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_test", _compile(self.root))

    def matches(self, payload: Mapping[str, object] | None, point_id: str) -> bool:
        """Whether a point with this payload and id matches; a point without payload has no fields.

        `payload` holds JSON values: mappings are `dict`, arrays are `list`.
        """
        return self._test({} if payload is None else payload, point_id)


def _compile(node: Node) -> Test:
    if isinstance(node, Condition):
        return _compile_condition(node)
    if isinstance(node, Not):
        part = _compile(node.part)
        return lambda payload, point_id: not part(payload, point_id)
    tests = tuple(_compile(part) for part in node.parts)
    if len(tests) == 1:
        return tests[0]
    return _any_of(tests) if isinstance(node, Or) else _all_of(tests)


def _all_of(tests: tuple[Test, ...]) -> Test:
    def test(payload: Mapping[str, object], point_id: str) -> bool:
        for part in tests:  # noqa: SIM110 - all() with a generator takes three times as long
            if not part(payload, point_id):
                return False
        return True

    return test


def _any_of(tests: tuple[Test, ...]) -> Test:
    def test(payload: Mapping[str, object], point_id: str) -> bool:
        for part in tests:  # noqa: SIM110 - any() with a generator takes three times as long
            if part(payload, point_id):
                return True
        return False

    return test


def _compile_condition(condition: Condition) -> Test:
    name = condition.field
    make = _PREDICATES.get(condition.operator)
    if make is None:
        raise ValueError(f"unknown operator {condition.operator!r}")
    predicate = make(condition.operand)
    if name == ID_FIELD:
        return lambda payload, point_id: predicate(point_id)
    if "." in name:
        read = field_reader(name)
        return lambda payload, point_id: predicate(read(payload))

    def test(payload: Mapping[str, object], point_id: str) -> bool:
        return predicate(payload.get(name, ABSENT))

    return test


def _equals(operand: Any) -> Predicate:
    if operand is None or isinstance(operand, bool):
        return lambda value: value is operand
    if isinstance(operand, str):
        return lambda value: bool(value == operand)
    if isinstance(operand, datetime):
        return lambda value: _instant(value) == operand
    return lambda value: bool(value == operand) and value.__class__ is not bool


def _is_in(operands: tuple[Any, ...]) -> Predicate:
    # 1 and True are one member of a set, so booleans have their own set.
    booleans = frozenset(value for value in operands if isinstance(value, bool))
    instants = frozenset(value for value in operands if isinstance(value, datetime))
    others = frozenset(value for value in operands if not isinstance(value, bool | datetime))

    def test(value: Any) -> bool:
        kind = value.__class__
        if kind is bool:
            return value in booleans
        if kind is dict or kind is list:
            return False
        return value in others or (bool(instants) and _instant(value) in instants)

    return test


def _ordered(compare: Callable[[Any, Any], bool], operand: Any) -> Predicate:
    if isinstance(operand, str):
        return lambda value: value.__class__ is str and compare(value, operand)
    if isinstance(operand, datetime):
        return lambda value: (instant := _instant(value)) is not None and compare(instant, operand)
    return lambda value: value.__class__ in _NUMBERS and compare(value, operand)


def _contains(operand: Any) -> Predicate:
    equal = _equals(operand)
    return lambda value: value.__class__ is list and any(map(equal, value))


def _exists(operand: Any) -> Predicate:
    if operand:
        return lambda value: value is not ABSENT
    return lambda value: value is ABSENT


def _empty(operand: Any) -> Predicate:
    def test(value: Any) -> bool:
        return value is ABSENT or value in (None, "", [], {})

    return test if operand else _not(test)


def _has_size(operand: Any) -> Predicate:
    return lambda value: value.__class__ is list and len(value) == operand


def _starts_with(operand: Any) -> Predicate:
    return lambda value: value.__class__ is str and value.startswith(operand)


def _within(operand: Any) -> Predicate:
    return lambda value: (place := coordinates(value)) is not None and operand.contains(*place)


def _instant(value: Any) -> datetime | None:
    """Return the instant that a field's value names, None for a value that is no datetime."""
    return parse_datetime(value) if value.__class__ is str else None


def _not(predicate: Predicate) -> Predicate:
    return lambda value: not predicate(value)


_PREDICATES: Final[dict[str, Callable[[Any], Predicate]]] = {
    "$eq": _equals,
    "$ne": lambda operand: _not(_equals(operand)),
    "$in": _is_in,
    "$nin": lambda operand: _not(_is_in(operand)),
    "$gt": partial(_ordered, operator.gt),
    "$gte": partial(_ordered, operator.ge),
    "$lt": partial(_ordered, operator.lt),
    "$lte": partial(_ordered, operator.le),
    "$exists": _exists,
    "$empty": _empty,
    "$size": _has_size,
    "$startsWith": _starts_with,
    "$contains": _contains,
    "$within": _within,
}
"""The predicate of each operator, made from the operand."""
