"""The parser of filters: a decoded JSON document becomes a `Filter`, or an error with path and hint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from vecstow_engine.model.filter_operands import (
    DATETIME_FORM,
    ID_OPERANDS,
    OPERANDS,
    Check,
    bounds,
    is_datetime,
)
from vecstow_engine.model.filter_refusals import VALUE_CHARACTERS_SHOWN, refuse, refuse_operator
from vecstow_engine.model.filters import ID_FIELD, And, Condition, Filter, Node, Not, Or
from vecstow_engine.model.payloads import FIELD_CHARACTERS_MAX

DEPTH_MAX: Final = 16
"""The limit of nested `$and`, `$or` and `$not`; the filter itself is the first level."""
CONDITIONS_MAX: Final = 256
"""The limit of conditions (one operator on one field) in a whole filter."""

LOGICAL: Final = ("$and", "$or", "$not")
BETWEEN: Final = "$between"


def parse_filter(document: object) -> Filter:
    """Return the filter that `document` (decoded JSON) describes; an empty mapping matches every point.

    Raises InvalidInput, which names the path (`filter.tenant.$gt`), the value and what to write instead.
    """
    if not isinstance(document, Mapping):
        refuse("filter", document, "a filter is an object", 'write {"field": value}')
    return Filter(_Parser().parse(document, "filter", depth=1))


class _Parser:
    """A parser of one filter, which counts the filter's conditions."""

    def __init__(self) -> None:
        self._conditions = 0

    def parse(self, document: Mapping[Any, Any], path: str, depth: int) -> Node:
        if depth > DEPTH_MAX:
            refuse(
                path,
                document,
                f"nested deeper than {DEPTH_MAX} levels",
                "flatten $and, $or and $not",
                DEPTH_MAX,
            )
        parts: list[Node] = []
        for key, value in document.items():
            _check_key(key, path)
            if key.startswith("$") and key != ID_FIELD:
                parts.append(self._logical(key, value, f"{path}.{key}", depth))
            else:
                parts.extend(self._field(key, value, f"{path}.{key[:VALUE_CHARACTERS_SHOWN]}"))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _logical(self, name: str, value: object, path: str, depth: int) -> Node:
        if name not in LOGICAL:
            _refuse_operator(name, path, among=(*LOGICAL, ID_FIELD))
        if name == "$not":
            return Not(self._part(value, path, depth))
        if not isinstance(value, list) or not value:
            refuse(
                path, value, "a list of one filter or more is needed", f'write {{"{name}": [{{…}}, {{…}}]}}'
            )
        parts = tuple(self._part(part, f"{path}[{at}]", depth) for at, part in enumerate(value))
        return And(parts) if name == "$and" else Or(parts)

    def _part(self, value: object, path: str, depth: int) -> Node:
        if not isinstance(value, Mapping) or not value:
            refuse(path, value, "a filter of one condition or more is needed", 'write {"field": value}')
        return self.parse(value, path, depth + 1)

    def _field(self, name: str, value: object, path: str) -> list[Condition]:
        checks = ID_OPERANDS if name == ID_FIELD else OPERANDS
        if not isinstance(value, Mapping) or is_datetime(value):
            return self._conditions_of(name, "$eq", value, path, checks)
        operators = [key for key in value if isinstance(key, str) and key.startswith("$")]
        if not operators:
            refuse(path, value, "an object is no value to compare with", _object_hint(name))
        if len(operators) < len(value):
            refuse(path, value, "operators and fields are mixed", "give each its own condition under $and")
        return [
            condition
            for key in operators
            for condition in self._conditions_of(name, key, value[key], f"{path}.{key}", checks)
        ]

    def _conditions_of(
        self, field: str, name: str, operand: object, path: str, checks: Mapping[str, Check]
    ) -> list[Condition]:
        self._conditions += 2 if name == BETWEEN else 1
        if self._conditions > CONDITIONS_MAX:
            refuse(
                path,
                operand,
                f"more than {CONDITIONS_MAX} conditions",
                "use $in for many values",
                CONDITIONS_MAX,
            )
        if name == BETWEEN:
            low, high = bounds(operand, path, checks["$gte"])
            return [Condition(field, "$gte", low), Condition(field, "$lte", high)]
        check = checks.get(name)
        if check is None:
            _refuse_operator(name, path, among=(*checks, BETWEEN))
        return [Condition(field, name, check(operand, path))]


def _object_hint(name: str) -> str:
    if name == ID_FIELD:
        return 'an id is a string: {"$id": "text"}'
    dotted = f'{{"{name[:VALUE_CHARACTERS_SHOWN]}.key": value}}'
    return f"use dots to reach into it: {dotted}; a datetime is {DATETIME_FORM}"


def _check_key(key: object, path: str) -> None:
    if not isinstance(key, str):
        refuse(path, key, "a field's name is a string", "quote it")
    if len(key) > FIELD_CHARACTERS_MAX:
        reason = f"a field's name has at most {FIELD_CHARACTERS_MAX} characters"
        refuse(path, key, reason, "shorten it", FIELD_CHARACTERS_MAX)


def _refuse_operator(name: str, path: str, among: tuple[str, ...]) -> NoReturn:
    hint = f"known here: {', '.join(among)}"
    if name in LOGICAL:
        hint = f'{name} stands outside of the field: {{"{name}": {"{…}" if name == "$not" else "[{…}]"}}}'
    elif ID_FIELD in among and (name in OPERANDS or name == BETWEEN):
        hint = f'an operator stands under a field: {{"field": {{"{name}": value}}}}'
    refuse_operator(name, path, among, hint)
