"""Filters: a small immutable tree of conditions on payload fields, and its test of payloads. docs/filters.md.

A filter knows payloads only; the caller decides which points are tested, and when. Each decision that depends
on no point is made before the first point is tested.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from vecstow_engine.model.payloads import ABSENT, field_reader

Scalar: TypeAlias = str | int | float | bool | None
Test: TypeAlias = Callable[[Mapping[str, object]], bool]
Predicate: TypeAlias = Callable[[Any], bool]
"""The test of a field's value: a JSON value, or `ABSENT` for a field that the payload lacks."""

_NUMBERS: Final = frozenset({int, float})
"""The exact types of numbers: bool is a subclass of int, but is not a number here."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one field; `operand` is a scalar, or a tuple of scalars for `$in` and `$nin`."""

    field: str
    operator: str
    operand: Scalar | tuple[Scalar, ...]


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
    """A parsed filter that tests payloads; immutable, and therefore thread-safe."""

    root: Node
    _test: Test = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_test", _compile(self.root))

    def matches(self, payload: Mapping[str, object] | None) -> bool:
        """Whether a point with this payload matches; a point without payload has no fields.

        `payload` holds JSON values: mappings are `dict`, arrays are `list`.
        """
        return self._test({} if payload is None else payload)


def _compile(node: Node) -> Test:
    if isinstance(node, Condition):
        return _compile_condition(node)
    if isinstance(node, Not):
        return _not(_compile(node.part))
    tests = tuple(_compile(part) for part in node.parts)
    if len(tests) == 1:
        return tests[0]
    return _any_of(tests) if isinstance(node, Or) else _all_of(tests)


def _all_of(tests: tuple[Test, ...]) -> Test:
    def test(payload: Mapping[str, object]) -> bool:
        for part in tests:  # noqa: SIM110 - all() with a generator takes three times as long
            if not part(payload):
                return False
        return True

    return test


def _any_of(tests: tuple[Test, ...]) -> Test:
    def test(payload: Mapping[str, object]) -> bool:
        for part in tests:  # noqa: SIM110 - any() with a generator takes three times as long
            if part(payload):
                return True
        return False

    return test


def _compile_condition(condition: Condition) -> Test:
    name = condition.field
    make = _PREDICATES.get(condition.operator)
    if make is None:
        raise ValueError(f"unknown operator {condition.operator!r}")
    predicate = make(condition.operand)
    if "." in name:
        return _nested(name, predicate)

    def test(payload: Mapping[str, object]) -> bool:
        return predicate(payload.get(name, ABSENT))

    return test


def _nested(name: str, predicate: Predicate) -> Test:
    read = field_reader(name)
    return lambda payload: predicate(read(payload))


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


def _contains(operand: Any) -> Predicate:
    equal = _equals(operand)
    return lambda value: value.__class__ is list and any(map(equal, value))


def _exists(operand: Any) -> Predicate:
    if operand:
        return lambda value: value is not ABSENT
    return lambda value: value is ABSENT


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
    "$contains": _contains,
}
"""The predicate of each operator, made from the operand."""
