"""The keys that are in force: those of a file, read again when it changes.

The file is read whole every second, links followed: a Secret that is mounted as a folder is a link that is
swapped, and then neither a watch of the file nor its times can be relied on. What was read is taken when the
next look finds the same: an editor that writes in place may be half-way, at a point where an entry is still
without its `collections`.
"""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path
from typing import Final

import structlog

from vecstow_engine.api.key_parsing import FILE_BYTES_MAX, parse_keys
from vecstow_engine.api.keys import KeyRing
from vecstow_engine.model.errors import InvalidInput, VecstowError

LOOK_SECONDS: Final = 1.0

log = structlog.stdlib.get_logger(__name__)


class KeyFile:
    """The keys of the file's last good state."""

    def __init__(self, path: Path) -> None:
        """Read it; raises InvalidInput when it is not there or not right."""
        self.path = path
        self._seen = self._judged = _read(path)
        self.ring: KeyRing = parse_keys(self._seen, str(path))
        """Replaced as a whole, so that any thread may use it."""
        self.loaded_at = time.time()
        self._refused: str | None = None
        """Why the file's present state is not in force; logged once."""

    @property
    def is_sound(self) -> bool:
        """Whether the file's present state is in force."""
        return self._refused is None

    async def follow(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take what the file has, when the last look found the same. Never raises: the keys before stay."""
        try:
            found = _read(self.path)
        except VecstowError as error:
            self._refuse(error.message)
            self._judged = b""
            return
        if found == self._seen and found != self._judged:
            self._take(found)
        self._seen = found

    def _take(self, content: bytes) -> None:
        self._judged = content
        try:
            ring = parse_keys(content, str(self.path))
        except VecstowError as error:
            self._refuse(error.message)
            return
        self.ring, self.loaded_at, self._refused = ring, time.time(), None
        log.info("keys are read again", file=str(self.path), keys=len(ring.keys))

    def _refuse(self, reason: str) -> None:
        if reason != self._refused:
            log.error("keys cannot be read again, those before stay in force", reason=reason)
        self._refused = reason


def _read(path: Path) -> bytes:
    """At most a byte more than is allowed; raises InvalidInput."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput(f"keys file {path} is no file", hint="name the file in the folder")
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"keys file {path} cannot be read: {error.strerror or error}") from None
