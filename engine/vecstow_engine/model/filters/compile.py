"""Conditions as closures: each decision that depends on no point is made before the first point is tested.

Two calls per condition: one finds the field's value, one tests it. A value is a JSON value, or `ABSENT` for a
field that the payload lacks; `ABSENT` equals nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

Test: TypeAlias = Callable[[Mapping[str, object]], bool]
Predicate: TypeAlias = Callable[[Any], bool]

ABSENT: Final = object()
_NUMBERS: Final = frozenset({int, float})
"""The exact types of numbers: bool is a subclass of int, but is not a number here."""

_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def compile_condition(field: str, name: str, operand: Any) -> Test:
    """Return the test of one condition; `name` is a known operator and `operand` fits it."""
    predicate = _predicate(name, operand)
    if "." in field:
        return _nested(field, predicate)

    def test(payload: Mapping[str, object]) -> bool:
        return predicate(payload.get(field, ABSENT))

    return test


def _nested(field: str, predicate: Predicate) -> Test:
    first, *rest = field.split(".")

    def test(payload: Mapping[str, object]) -> bool:
        if field in payload:  # A key with dots in its own name wins.
            return predicate(payload[field])
        value = payload.get(first, ABSENT)
        for step in rest:
            if not isinstance(value, dict):
                return predicate(ABSENT)
            value = value.get(step, ABSENT)
        return predicate(value)

    return test


def _predicate(name: str, operand: Any) -> Predicate:
    if name in _ORDER:
        return _ordered(_ORDER[name], operand)
    if name == "$exists":
        return _is_present if operand else _is_absent
    if name == "$contains":
        return _contains(_equals(operand))
    if name in ("$in", "$nin"):
        listed = _is_in(operand)
        return listed if name == "$in" else lambda value: not listed(value)
    equal = _equals(operand)
    return equal if name == "$eq" else lambda value: not equal(value)


def _is_present(value: Any) -> bool:
    return value is not ABSENT


def _is_absent(value: Any) -> bool:
    return value is ABSENT


def _equals(operand: Any) -> Predicate:
    if operand is None or isinstance(operand, bool):
        return lambda value: value is operand
    if isinstance(operand, str):
        return lambda value: bool(value == operand)
    return lambda value: bool(value == operand) and value.__class__ is not bool


def _is_in(operands: tuple[Any, ...]) -> Predicate:
    # 1 and True are one member of a set, so booleans have their own set.
    booleans = frozenset(value for value in operands if isinstance(value, bool))
    others = frozenset(value for value in operands if not isinstance(value, bool))

    def test(value: Any) -> bool:
        kind = value.__class__
        if kind is bool:
            return value in booleans
        return kind is not dict and kind is not list and value in others

    return test


def _ordered(compare: Callable[[Any, Any], bool], operand: Any) -> Predicate:
    if isinstance(operand, str):
        return lambda value: value.__class__ is str and compare(value, operand)
    return lambda value: value.__class__ in _NUMBERS and compare(value, operand)


def _contains(equal: Predicate) -> Predicate:
    return lambda value: value.__class__ is list and any(map(equal, value))
