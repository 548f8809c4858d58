"""The parts of a filter: a small immutable tree, which an index may read to narrow the points first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from vecstow_engine.model.filters.compile import Test, compile_condition

Scalar: TypeAlias = str | int | float | bool | None


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
        return compile_condition(node.field, node.operator, node.operand)
    if isinstance(node, Not):
        negated = _compile(node.part)
        return lambda payload: not negated(payload)
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
