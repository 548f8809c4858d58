"""The reader of fields: the values of some fields of a stored payload, without decoding the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import UNSET

from vecstow_engine.model.payloads import decode_payload


def text_of(value: Any) -> str | None:
    """Return the text of a field's value: a string, or the strings of an array as lines; None for another."""
    if value.__class__ is str:
        return str(value)
    if value.__class__ is list:
        return "\n".join(each for each in value if each.__class__ is str) or None
    return None


class FieldReader:
    """The reader of fields by the rules of filters: dots reach into objects, and a key with dots wins."""

    def __init__(self, fields: Sequence[str]) -> None:
        keys = list(dict.fromkeys(key for field in fields for key in (field, field.partition(".")[0])))
        self._attributes = {key: f"key_{number}" for number, key in enumerate(keys)}
        self._struct = msgspec.defstruct(
            "Keys",
            [(attribute, Any, UNSET) for attribute in self._attributes.values()],
            rename={attribute: key for key, attribute in self._attributes.items()},
            frozen=True,
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(self._struct)
        self._empty = self._struct()
        self._getters = [self._getter(field) for field in fields]

    def read(self, payloads: Sequence[bytes | None]) -> list[list[Any]]:
        """Return for each field its values in these payloads (JSON), UNSET for an absent one."""
        rows = [self._empty if payload is None else self._decoded(payload) for payload in payloads]
        return [list(map(getter, rows)) for getter in self._getters]

    def has_key(self, payloads: Sequence[bytes | None], field: str) -> bool:
        """Whether one of the payloads has the field, which has dots, as a key of its own."""
        quoted = msgspec.json.encode(field)
        attribute = self._attributes[field]
        return any(
            payload is not None
            and quoted in payload
            and getattr(self._decoded(payload), attribute) is not UNSET
            for payload in payloads
        )

    def _decoded(self, payload: bytes) -> Any:
        try:
            return self._decoder.decode(payload)
        except RecursionError:
            found = decode_payload(payload)
            known = {self._attributes[key]: found[key] for key in self._attributes if key in found}
            return self._struct(**known)

    def _getter(self, field: str) -> Callable[[Any], Any]:
        attribute = self._attributes[field]
        first, *rest = field.split(".")
        if not rest:
            return attrgetter(attribute)
        outer = self._attributes[first]

        def get(row: Any) -> Any:
            value = getattr(row, attribute)
            if value is not UNSET:
                return value
            value = getattr(row, outer)
            for step in rest:
                if value.__class__ is not dict:
                    return UNSET
                value = value.get(step, UNSET)
            return value

        return get
