"""Payloads: JSON objects, limited so that each body format can carry what another format brought.

MessagePack has no integer beyond 64 bits. JSON has no bytes, timestamps, NaN or keys other than strings.
Decoders recurse. A write with such a value is refused. Earlier releases stored some of these values, and
reads still return them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from vecstow_engine.model.errors import InvalidInput, TooLarge, WrongShape, refused
from vecstow_engine.model.fields import type_name

PAYLOAD_BYTES_MAX: Final = 64 * 1024
"""The limit of a payload in bytes of compact JSON."""
PAYLOAD_DEPTH_MAX: Final = 128
"""The limit of nested objects and arrays, the same as in d-vecDB; the payload itself is the first level."""
INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 64) - 1
FIELD_CHARACTERS_MAX: Final = 1_024
"""The limit of the name of a field, dots included."""
CHOSEN_FIELDS_MAX: Final = 64
"""The limit of fields in one choice."""
ABSENT: Final = object()
"""The value of a field that a payload lacks. It equals no JSON value."""
_KEY_CHARACTERS_SHOWN: Final = 40

_pack = msgspec.msgpack.Encoder().encode
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_AS_ARRAYS: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STRING_OR_BRACKET: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]')


def encode_payload(payload: Mapping[str, Any], place: str = "metadata") -> bytes:
    """Return a payload as compact JSON; raise InvalidInput or TooLarge."""
    try:
        raw = msgspec.json.encode(payload)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidInput(
            f"{place} cannot be stored as JSON: {error}", details=refused(place, payload)
        ) from error
    if len(raw) > PAYLOAD_BYTES_MAX:
        raise TooLarge(
            f"{place} has {len(raw)} bytes as JSON; at most {PAYLOAD_BYTES_MAX} are allowed",
            details=refused(place, len(raw), PAYLOAD_BYTES_MAX),
        )
    if _is_deep(raw):
        check_payload(payload, place)
    try:
        _pack(payload)
    except OverflowError:
        check_payload(payload, place)
    return raw


def check_unpacked(payload: Mapping[Any, Any], place: str) -> None:
    """Raise InvalidInput for a MessagePack value that JSON would not return unchanged."""
    try:
        comes_back = msgspec.json.decode(msgspec.json.encode(payload)) == payload
    except (TypeError, ValueError, RecursionError):
        comes_back = False
    if not comes_back:
        check_payload(payload, place)


def check_payload(payload: Mapping[Any, Any], place: str) -> None:
    """Raise InvalidInput, which names the path, for a value that a body format cannot carry."""
    path: list[object] = []
    levels: list[Iterator[tuple[object, object]]] = [iter(payload.items())]
    while levels:
        del path[len(levels) - 1 :]
        member = next(levels[-1], None)
        if member is None:
            levels.pop()
            continue
        key, value = member
        path.append(key)
        fault, limit = _fault_of(value)
        if isinstance(value, dict | list):
            if len(levels) >= PAYLOAD_DEPTH_MAX:
                fault = f"nests too deep; at most {PAYLOAD_DEPTH_MAX} levels are allowed"
                limit = PAYLOAD_DEPTH_MAX
            levels.append(iter(value.items() if isinstance(value, dict) else enumerate(value)))
        if fault is not None:
            field = shown_path(place, path)
            raise InvalidInput(f"{field} {fault}", details=refused(field, value, limit))


def decode_payload(payload: bytes) -> dict[str, Any]:
    """Return the object of a stored payload; return levels that are too deep to decode as JSON text."""
    decoded: dict[str, Any]
    try:
        decoded = msgspec.json.decode(payload)
    except RecursionError:
        decoded = msgspec.json.decode(_flattened(payload))
    return decoded


def pack_payload(payload: bytes) -> bytes:
    """Return a stored payload as MessagePack.

    Integers beyond 64 bits become text, and so do levels beyond `PAYLOAD_DEPTH_MAX` that nest too deep.
    """
    try:
        return _pack(decode_payload(payload))
    except (OverflowError, RecursionError):
        return _pack(portable(msgspec.json.decode(_flattened(payload))))


def field_reader(name: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function that returns the value of a field of a decoded payload, or `ABSENT`.

    Dots reach into objects. A key of the payload itself that is spelled with dots wins over the path.
    """
    if "." not in name:
        return lambda payload: payload.get(name, ABSENT)
    first, *rest = name.split(".")

    def read(payload: Mapping[str, Any]) -> Any:
        if name in payload:
            return payload[name]
        value = payload.get(first, ABSENT)
        for step in rest:
            if not isinstance(value, dict):
                return ABSENT
            value = value.get(step, ABSENT)
        return value

    return read


def check_field(value: object, place: str) -> str:
    """Return the name of a field, at most 1,024 characters; raise WrongShape or InvalidInput."""
    if not isinstance(value, str):
        raise WrongShape(f"{place} is {type_name(value)}; it must be a string", details=refused(place, value))
    if len(value) > FIELD_CHARACTERS_MAX:
        raise InvalidInput(
            f"{place} has {len(value)} characters; at most {FIELD_CHARACTERS_MAX} are allowed",
            details=refused(place, len(value), FIELD_CHARACTERS_MAX),
        )
    return value


@dataclass(frozen=True, slots=True)
class PayloadChoice:
    """The part of each payload that an answer contains."""

    fields: tuple[str, ...] | None = None
    """The chosen fields, with dots for nested ones; empty for no payload; None for the whole payload."""
    _readers: tuple[Callable[[Mapping[str, Any]], Any], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_readers", tuple(map(field_reader, self.fields or ())))

    @classmethod
    def parse(cls, value: object, place: str = "with_metadata") -> PayloadChoice:
        """Return the choice that `true`, `false`, null or a list of 1 to 64 names describes; null is `true`.

        Raises WrongShape, InvalidInput or TooLarge, which name `place`.
        """
        if value is None or isinstance(value, bool):
            return cls(() if value is False else None)
        if not isinstance(value, list):
            raise WrongShape(
                f"{place} is {type_name(value)}; it must be true, false or a list of fields",
                details=refused(place, value),
            )
        if not value:
            raise InvalidInput(
                f"{place} is an empty list; at least one field is needed",
                hint="write false for no payload",
                details=refused(place, 0, 1),
            )
        if len(value) > CHOSEN_FIELDS_MAX:
            raise TooLarge(
                f"{place} has {len(value)} fields; at most {CHOSEN_FIELDS_MAX} are allowed",
                details=refused(place, len(value), CHOSEN_FIELDS_MAX),
            )
        return cls(tuple(check_field(name, f"{place}[{at}]") for at, name in enumerate(value)))

    @property
    def is_empty(self) -> bool:
        """Whether an answer contains no payload at all, so that its points have no field for it."""
        return self.fields == ()

    def apply(self, payload: bytes | None) -> bytes | None:
        """Return the chosen part of a stored payload as JSON; None for a point without payload.

        Nested fields stand in objects of their own. A field that the payload lacks is left out.
        """
        if payload is None or self.fields is None:
            return payload
        if not self.fields:
            return None
        decoded = decode_payload(payload)
        chosen: dict[str, Any] = {}
        for name, read in zip(self.fields, self._readers, strict=True):
            value = read(decoded)
            if value is not ABSENT:
                _put(chosen, [name] if name in decoded else name.split("."), value)
        return msgspec.json.encode(chosen)


def _put(target: dict[str, Any], steps: Sequence[str], value: object) -> None:
    """Put a value at the end of a path, through objects that are made where they are missing."""
    for step in steps[:-1]:
        target = target.setdefault(step, {})
    target[steps[-1]] = value


def _is_deep(raw: bytes) -> bool:
    """Whether JSON nests deeper than the limit, found without a step for each value."""
    if raw.count(b"[") + raw.count(b"{") <= PAYLOAD_DEPTH_MAX:
        return False
    brackets = _STRING.sub(b"", raw).translate(_AS_ARRAYS, _NOT_BRACKETS)
    for _ in range(PAYLOAD_DEPTH_MAX):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _fault_of(value: object) -> tuple[str | None, int | None]:
    """Return the fault of a value, or None, and the limit that the value breaks."""
    fault = limit = None
    if isinstance(value, dict):
        kind = next((type(key).__name__ for key in value if not isinstance(key, str)), None)
        fault = None if kind is None else f"has a key of type {kind}; keys are strings"
    elif isinstance(value, int):
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            fault = "is an integer beyond -2^63 to 2^64-1; write it as a string"
            limit = INTEGER_MIN if value < 0 else INTEGER_MAX
    elif isinstance(value, float):
        fault = None if math.isfinite(value) else f"is {value}; JSON has no such number"
    elif value is not None and not isinstance(value, str | list):
        fault = f"is of type {type(value).__name__}, which JSON does not have"
    return fault, limit


def shown_path(place: str, path: Sequence[object]) -> str:
    """Return the path of a value for a message, without its middle when it is long."""
    keys = [f"[{key}]" if isinstance(key, int) else f".{str(key)[:_KEY_CHARACTERS_SHOWN]}" for key in path]
    return place + "".join(keys if len(keys) <= 6 else [*keys[:3], "…", *keys[-2:]])


def _flattened(payload: bytes) -> bytes:
    """Return `payload` with each array or object below the last level as a string that holds its JSON."""
    text = payload.decode()
    parts = []
    depth = start = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth == PAYLOAD_DEPTH_MAX + 1:
                parts.append(text[start : match.start()])
                start = match.start()
        elif match[0] in "]}":
            if depth == PAYLOAD_DEPTH_MAX + 1:
                parts.append(json.dumps(text[start : match.end()]))
                start = match.end()
            depth -= 1
    return "".join([*parts, text[start:]]).encode()


def portable(value: Any) -> Any:
    """Return `value` with integers beyond 64 bits, which MessagePack does not have, as strings of digits."""
    if isinstance(value, dict):
        return {key: portable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner) for inner in value]
    return str(value) if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX else value
