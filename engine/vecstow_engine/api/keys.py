"""What an API key is: a name, a role, perhaps some collections, and of the key itself a digest alone."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

KEY_CHARACTERS_MIN: Final = 16
KEY_CHARACTERS_MAX: Final = 256


class Role(StrEnum):
    """What a key is for."""

    ADMIN = "admin"
    """Everything."""
    WRITE = "write"
    """What `read` may, and to store and delete points and create collections."""
    READ = "read"
    """What `monitor` may, and to search, get and describe."""
    MONITOR = "monitor"
    """State and figures, no point: the manager, Prometheus."""
    SIDECAR = "sidecar"
    """To poke the engine, and nothing else."""


LIMITABLE: Final = (Role.ADMIN, Role.WRITE, Role.READ)
"""Roles whose keys may be limited to some collections."""


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One entry of the file. Its name may be logged and answered."""

    name: str
    role: Role
    digest: bytes = field(repr=False)
    """SHA-256 of the key."""
    patterns: tuple[str, ...] = ()
    """Empty: all collections."""
    _names: re.Pattern[str] | None = field(default=None, repr=False)

    def reaches(self, collection: str) -> bool:
        """Whether this key is for that collection."""
        return self._names is None or self._names.fullmatch(collection) is not None


class KeyRing:
    """The keys of one state of the file."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys: Final = tuple(keys)

    def find(self, presented: bytes) -> Key | None:
        """The key that was presented; the time it takes tells nothing about any."""
        if len(presented) > KEY_CHARACTERS_MAX:
            return None
        digest = hashlib.sha256(presented).digest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found
