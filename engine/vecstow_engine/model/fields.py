"""Reading the fields of decoded YAML or JSON: the value in its type, or an error that names the field.

`where` and `field` are names as the person who wrote the document knows them, such as `spec.dimension`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from vecstow_engine.model.errors import InvalidInput, WrongShape

_Enum = TypeVar("_Enum", bound=StrEnum)


def required(parent: Mapping[str, Any], field: str, prefix: str = "") -> Any:
    """The value of a field; raises WrongShape when it is absent or null."""
    value = parent.get(field)
    if value is None:
        raise WrongShape(f"{prefix}{field} is missing")
    return value


def optional(parent: Mapping[str, Any], field: str, default: object) -> Any:
    """The value of a field, or `default` when it is absent or null."""
    # The API server drops nulls before it fills in defaults.
    value = parent.get(field)
    return default if value is None else value


def refuse_unknown(parent: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise WrongShape when `parent` has a field that is not in `known`."""
    unknown = sorted(str(key) for key in parent if key not in known)
    if unknown:
        raise WrongShape(f"{where} has an unknown field {unknown[0]!r}; known: {', '.join(known)}")


def mapping(value: object, field: str) -> Mapping[str, Any]:
    """`value` when it is a mapping; raises WrongShape otherwise."""
    if not isinstance(value, Mapping):
        raise WrongShape(f"{field} is {type_name(value)}; it must be a mapping")
    return value


def string(value: object, field: str) -> str:
    """`value` when it is a string; raises WrongShape otherwise."""
    if not isinstance(value, str):
        raise WrongShape(f"{field} is {type_name(value)}; it must be a string")
    return value


def boolean(value: object, field: str) -> bool:
    """`value` when it is a boolean; raises WrongShape otherwise."""
    if not isinstance(value, bool):
        raise WrongShape(f"{field} is {type_name(value)}; it must be true or false")
    return value


def integer(value: object, field: str, low: int, high: int) -> int:
    """Return `value` when it is an integer in [low, high]; raise WrongShape or InvalidInput otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongShape(f"{field} is {value!r}; it must be an integer from {low} to {high}")
    if not low <= value <= high:
        raise InvalidInput(f"{field} is {value}; it must be from {low} to {high}")
    return value


def member(kind: type[_Enum], value: Any, field: str) -> _Enum:
    """The member of `kind` with exactly that value; raises InvalidInput naming the known ones."""
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(candidate.value for candidate in kind)
        raise InvalidInput(f"{field} {value!r} is not one of {known}") from None


def type_name(value: object) -> str:
    """What to call the type of a decoded value in a message."""
    return "null" if value is None else type(value).__name__
