"""The reading of fields in decoded YAML or JSON: a value of the right type, or an error that names the field.

`where` and `field` are names in the spelling of the document's author, for example `spec.dimension`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

from vecstow_engine.model.errors import InvalidInput, WrongShape, by_kind, refused

_Enum = TypeVar("_Enum", bound=StrEnum)
NAME_CHARACTERS_SHOWN: Final = 80
"""The number of characters of a field's name that a message repeats."""


def required(parent: Mapping[str, Any], field: str, prefix: str = "") -> Any:
    """Return the value of a field; raise WrongShape when it is absent or null."""
    value = parent.get(field)
    if value is None:
        raise WrongShape(f"{prefix}{field} is missing", details={"field": f"{prefix}{field}"})
    return value


def optional(parent: Mapping[str, Any], field: str, default: object) -> Any:
    """Return the value of a field, or `default` when it is absent or null."""
    # The API server drops nulls before it fills in defaults.
    value = parent.get(field)
    return default if value is None else value


def refuse_unknown(
    value: Mapping[str, Any], known: Iterable[str], where: str = "", whole: str = "the body"
) -> None:
    """Raise WrongShape when `value` has a field outside of `known`; `unknown_field` describes `where`."""
    unknown = sorted(str(key) for key in value if key not in known)
    if unknown:
        raise unknown_field(unknown[0], known, where, whole)


def unknown_field(name: str, known: Iterable[str], where: str = "", whole: str = "the body") -> WrongShape:
    """Return the error for an unknown field.

    `where` is the path of the object that has the field. It is empty for the outermost object, whose name in
    the message is `whole`.
    """
    names = list(known)
    return WrongShape(
        f"{where or whole} has an unknown field {name[:NAME_CHARACTERS_SHOWN]!r}; known: {', '.join(names)}",
        details={"field": f"{where}.{name}" if where else name, "known": names},
    )


def mapping(value: object, field: str) -> Mapping[str, Any]:
    """Return `value` when it is a mapping; raise WrongShape otherwise."""
    if not isinstance(value, Mapping):
        raise _wrong_type(value, field, "a mapping")
    return value


def string(value: object, field: str) -> str:
    """Return `value` when it is a string; raise WrongShape otherwise."""
    if not isinstance(value, str):
        raise _wrong_type(value, field, "a string")
    return value


def boolean(value: object, field: str) -> bool:
    """Return `value` when it is a boolean; raise WrongShape otherwise."""
    if not isinstance(value, bool):
        raise _wrong_type(value, field, "true or false")
    return value


def integer(value: object, field: str, low: int, high: int) -> int:
    """Return `value` when it is an integer in [low, high]; raise WrongShape or InvalidInput otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongShape(
            f"{field} is {by_kind(value)!r}; it must be an integer from {low} to {high}",
            details=refused(field, value),
        )
    if not low <= value <= high:
        details = refused(field, value, limit=low if value < low else high)
        raise InvalidInput(f"{field} is {value}; it must be from {low} to {high}", details=details)
    return value


def member(kind: type[_Enum], value: Any, field: str) -> _Enum:
    """Return the member of `kind` with exactly that value; raise InvalidInput, which names the known ones."""
    try:
        return kind(value)
    except ValueError:
        known = [candidate.value for candidate in kind]
        raise InvalidInput(
            f"{field} {value!r} is not one of {', '.join(known)}", details=refused(field, value, known)
        ) from None


def _wrong_type(value: object, field: str, wanted: str) -> WrongShape:
    return WrongShape(f"{field} is {type_name(value)}; it must be {wanted}", details=refused(field, value))


def type_name(value: object) -> str:
    """Return the name of a decoded value's type for a message."""
    return "null" if value is None else type(value).__name__
