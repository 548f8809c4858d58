"""The parser of filters: a decoded JSON document becomes a `Filter`, or an error with path and hint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from vecstow_engine.model.errors import InvalidInput, by_kind, refused
from vecstow_engine.model.filters import And, Condition, Filter, Node, Not, Or, Scalar
from vecstow_engine.model.payloads import FIELD_CHARACTERS_MAX, INTEGER_MAX, INTEGER_MIN

DEPTH_MAX: Final = 16
"""The limit of nested `$and`, `$or` and `$not`; the filter itself is the first level."""
CONDITIONS_MAX: Final = 256
"""The limit of conditions (one operator on one field) in a whole filter."""
IN_VALUES_MAX: Final = 1_000
"""The limit of values in one `$in` or `$nin`."""
VALUE_CHARACTERS_SHOWN: Final = 80
"""The number of characters of a refused value that a message repeats."""

LOGICAL: Final = ("$and", "$or", "$not")


def parse_filter(document: object) -> Filter:
    """Return the filter that `document` (decoded JSON) describes; an empty mapping matches every point.

    Raises InvalidInput, which names the path (`filter.tenant.$gt`), the value and what to write instead.
    """
    if not isinstance(document, Mapping):
        _refuse("filter", document, "a filter is an object", 'write {"field": value}')
    return Filter(_Parser().parse(document, "filter", depth=1))


class _Parser:
    """A parser of one filter, which counts the filter's conditions."""

    def __init__(self) -> None:
        self._conditions = 0

    def parse(self, document: Mapping[Any, Any], path: str, depth: int) -> Node:
        if depth > DEPTH_MAX:
            _refuse(
                path,
                document,
                f"nested deeper than {DEPTH_MAX} levels",
                "flatten $and, $or and $not",
                DEPTH_MAX,
            )
        parts: list[Node] = []
        for key, value in document.items():
            _check_key(key, path)
            if key.startswith("$"):
                parts.append(self._logical(key, value, f"{path}.{key}", depth))
            else:
                parts.extend(self._field(key, value, f"{path}.{key[:VALUE_CHARACTERS_SHOWN]}"))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _logical(self, name: str, value: object, path: str, depth: int) -> Node:
        if name not in LOGICAL:
            _refuse_operator(name, path, among=LOGICAL)
        if name == "$not":
            return Not(self._part(value, path, depth))
        if not isinstance(value, list) or not value:
            _refuse(
                path, value, "a list of one filter or more is needed", f'write {{"{name}": [{{…}}, {{…}}]}}'
            )
        parts = tuple(self._part(part, f"{path}[{at}]", depth) for at, part in enumerate(value))
        return And(parts) if name == "$and" else Or(parts)

    def _part(self, value: object, path: str, depth: int) -> Node:
        if not isinstance(value, Mapping) or not value:
            _refuse(path, value, "a filter of one condition or more is needed", 'write {"field": value}')
        return self.parse(value, path, depth + 1)

    def _field(self, name: str, value: object, path: str) -> list[Node]:
        if not isinstance(value, Mapping):
            return [self._condition(name, "$eq", value, path)]
        operators = [key for key in value if isinstance(key, str) and key.startswith("$")]
        if not operators:
            _refuse(
                path,
                value,
                "an object is no value to compare with",
                f'use dots to reach into it: {{"{name[:VALUE_CHARACTERS_SHOWN]}.key": value}}',
            )
        if len(operators) < len(value):
            _refuse(path, value, "operators and fields are mixed", "give each its own condition under $and")
        return [self._condition(name, key, value[key], f"{path}.{key}") for key in operators]

    def _condition(self, field: str, name: str, operand: object, path: str) -> Condition:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            _refuse(
                path,
                operand,
                f"more than {CONDITIONS_MAX} conditions",
                "use $in for many values",
                CONDITIONS_MAX,
            )
        check = _OPERANDS.get(name)
        if check is None:
            _refuse_operator(name, path, among=tuple(_OPERANDS))
        return Condition(field, name, check(operand, path))


def _check_key(key: object, path: str) -> None:
    if not isinstance(key, str):
        _refuse(path, key, "a field's name is a string", "quote it")
    if len(key) > FIELD_CHARACTERS_MAX:
        reason = f"a field's name has at most {FIELD_CHARACTERS_MAX} characters"
        _refuse(path, key, reason, "shorten it", FIELD_CHARACTERS_MAX)


def _scalar(value: object, path: str) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(path, value, "not a finite number", "no payload holds one")
    if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        limit = INTEGER_MIN if value < 0 else INTEGER_MAX
        _refuse(path, value, "beyond -2^63 to 2^64-1", "no payload holds such an integer", limit)
    if value is None or isinstance(value, str | int | float):
        return value
    hint = "use $in for one of several values, or $contains for a list that holds a value"
    if isinstance(value, Mapping):
        hint = "use dots to reach into an object"
    _refuse(path, value, "only a string, a number, true, false or null can be compared with", hint)


def _scalars(value: object, path: str) -> tuple[Scalar, ...]:
    if not isinstance(value, list):
        _refuse(path, value, "a list of values is needed", "write [value, value]")
    if len(value) > IN_VALUES_MAX:
        hint = "split it over several searches, or filter on a field that groups them"
        _refuse(path, value, f"more than {IN_VALUES_MAX} values", hint, IN_VALUES_MAX)
    return tuple(_scalar(item, f"{path}[{at}]") for at, item in enumerate(value))


def _orderable(value: object, path: str) -> Scalar:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        _refuse(path, value, "only numbers and strings have an order", "compare other values with $eq or $in")
    return _scalar(value, path)


def _boolean(value: object, path: str) -> Scalar:
    if not isinstance(value, bool):
        _refuse(path, value, "true or false is needed", "true matches points that have the field")
    return value


_OPERANDS: Final[dict[str, Callable[[object, str], Scalar | tuple[Scalar, ...]]]] = {
    "$eq": _scalar,
    "$ne": _scalar,
    "$in": _scalars,
    "$nin": _scalars,
    "$gt": _orderable,
    "$gte": _orderable,
    "$lt": _orderable,
    "$lte": _orderable,
    "$exists": _boolean,
    "$contains": _scalar,
}
"""The operators that a field may have, each with the check of its operand."""


def _refuse_operator(name: str, path: str, among: tuple[str, ...]) -> NoReturn:
    hint = f"known here: {', '.join(among)}"
    if name in _OPERANDS:
        hint = f'an operator stands under a field: {{"field": {{"{name}": value}}}}'
    elif name in LOGICAL:
        hint = f'{name} stands outside of the field: {{"{name}": {"{…}" if name == "$not" else "[{…}]"}}}'
    raise InvalidInput(
        f"{path}: unknown operator {_shown(name)}", hint=hint, details=_details(path, name, list(among))
    )


def _refuse(path: str, value: object, reason: str, hint: str, limit: object = None) -> NoReturn:
    raise InvalidInput(
        f"{path} is {_shown(value)}: {reason}", hint=hint, details=_details(path, value, limit)
    )


def _details(path: str, value: object, limit: object) -> dict[str, object]:
    # Earlier releases named the field of a filter `path`.
    return {"path": path} | refused(path, value, limit)


def _shown(value: object) -> str:
    """Return the value as a short text; name a large value by its kind only."""
    if isinstance(value, str):
        cut = value[:VALUE_CHARACTERS_SHOWN]
        return repr(cut) + ("…" if len(value) > len(cut) else "")
    if isinstance(value, Mapping | list):
        return str(by_kind(value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return str(value)
    return type(value).__name__
