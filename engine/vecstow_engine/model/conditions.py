"""Conditions on the points of a write, checked when it is committed, and the versions that they name."""

from __future__ import annotations

import hashlib
import struct
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

_VERSION_BYTES: Final = 16
_NUMBERS: Final = struct.Struct("<QI")


class Presence(Enum):
    """A condition on an id that names no version."""

    ABSENT = "absent"
    PRESENT = "present"


Condition: TypeAlias = Presence | frozenset[str]
"""A condition on each point of a write: it is absent, or present, or it has one of these versions."""


def requires_point(condition: Condition | None) -> bool:
    """Whether an absent point cannot meet the condition."""
    return condition is not None and condition is not Presence.ABSENT


class Stamp(NamedTuple):
    """The facts that tell the stored states of one point apart, next to its payload."""

    uid: str
    """The collection's incarnation, 32 hexadecimal digits."""
    sequence: int
    """The number of the record that wrote the point."""
    row_checksum: int

    def version(self, payload: bytes | None) -> str:
        """Return a token of 32 hexadecimal digits, which another write of the point changes.

        A volume that is restored from a copy counts sequences on from the copy. The content is a part of the
        token, so that a new write there has another version than a lost write with its sequence.
        """
        content = b"\0" if payload is None else payload
        numbers = _NUMBERS.pack(self.sequence, self.row_checksum)
        return hashlib.blake2b(self.uid.encode() + numbers + content, digest_size=_VERSION_BYTES).hexdigest()
