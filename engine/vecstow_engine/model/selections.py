"""The points of a request that changes many, and the change of their payloads. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from vecstow_engine.model.errors import InvalidInput, TooLarge, WrongShape, refused
from vecstow_engine.model.fields import type_name
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.payloads import check_field, encode_payload

UNSET_FIELDS_MAX: Final = 64
"""The limit of fields in one `unset`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The points of these ids, or those that match a filter; with neither, all points."""

    ids: list[str] | None = None
    """Legal, distinct ids."""
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class PayloadChange:
    """A change of payloads: a new payload, or keys that are merged, and then fields that are removed."""

    replacement: Mapping[str, Any] | None = None
    merged: Mapping[str, Any] | None = None
    """Keys of the payload itself, with their new values. An object replaces an object, it is not merged."""
    removed: tuple[str, ...] = ()
    """Fields, with dots for nested ones."""
    _replacement: bytes | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        """Raise InvalidInput or TooLarge for values that no payload holds."""
        if self.merged:
            encode_payload(self.merged, "merge")
        if self.replacement:
            object.__setattr__(self, "_replacement", encode_payload(self.replacement, "set"))

    def apply(self, payload: bytes | None, point_id: str) -> bytes | None:
        """Return the changed payload as it is stored, None for an empty one.

        Raises InvalidInput or TooLarge, which name the point, for a payload that cannot be stored.
        """
        if self.replacement is not None:
            return self._replacement
        place = f"metadata of point {point_id!r}"
        try:
            changed: dict[str, Any] = msgspec.json.decode(payload or b"{}")
        except RecursionError:
            raise InvalidInput(
                f"{place} nests too deep to be changed",
                hint="replace it with set",
                details=refused("metadata", point_id) | {"id": point_id},
            ) from None
        changed.update(self.merged or {})
        for name in self.removed:
            _remove(changed, name)
        if not changed:
            return None
        try:
            return encode_payload(changed, place)
        except (InvalidInput, TooLarge) as error:
            error.details["id"] = point_id
            raise


def parse_unset(value: object) -> tuple[str, ...]:
    """Return the fields of a list of 1 to 64 names; raise WrongShape, InvalidInput or TooLarge."""
    if not isinstance(value, list):
        raise WrongShape(
            f"unset is {type_name(value)}; it must be a list of fields", details=refused("unset", value)
        )
    if not value:
        raise InvalidInput("unset is empty; at least one field is needed", details=refused("unset", 0, 1))
    if len(value) > UNSET_FIELDS_MAX:
        raise TooLarge(
            f"unset has {len(value)} fields; at most {UNSET_FIELDS_MAX} are allowed",
            details=refused("unset", len(value), UNSET_FIELDS_MAX),
        )
    return tuple(check_field(name, f"unset[{at}]") for at, name in enumerate(value))


def _remove(payload: dict[str, Any], name: str) -> None:
    """Remove a field, by the rule of `field_reader`; do nothing where it is absent."""
    if name in payload:
        del payload[name]
        return
    *steps, last = name.split(".")
    holder: Any = payload
    for step in steps:
        holder = holder.get(step) if isinstance(holder, dict) else None
    if steps and isinstance(holder, dict):
        holder.pop(last, None)
