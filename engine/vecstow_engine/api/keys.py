"""API keys: each has a name, a role, optionally some collections, and only the digest of the key itself."""

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
    """The permissions of a key."""

    ADMIN = "admin"
    """Everything."""
    WRITE = "write"
    """The permissions of `read`, and to store and delete points and create collections."""
    READ = "read"
    """The permissions of `monitor`, and to search, get and describe."""
    MONITOR = "monitor"
    """State and figures, no point: for the manager and Prometheus."""
    SIDECAR = "sidecar"
    """Only `POST /state/refresh`."""


LIMITABLE: Final = (Role.ADMIN, Role.WRITE, Role.READ)
"""The roles whose keys may be limited to some collections."""


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One entry of the file of keys. Logs and answers may contain its name."""

    name: str
    role: Role
    digest: bytes = field(repr=False)
    """SHA-256 of the key."""
    patterns: tuple[str, ...] = ()
    """Patterns of collection names, with * and ?; empty: all collections."""
    _names: re.Pattern[str] | None = field(default=None, repr=False)

    def reaches(self, collection: str) -> bool:
        """Whether the key is for that collection."""
        return self._names is None or self._names.fullmatch(collection) is not None


class KeyRing:
    """The keys of one version of the file."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys: Final = tuple(keys)

    def find(self, presented: bytes) -> Key | None:
        """Return the key with these bytes, None without one. The time does not depend on the keys' values."""
        if len(presented) > KEY_CHARACTERS_MAX:
            return None
        digest = hashlib.sha256(presented).digest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found
