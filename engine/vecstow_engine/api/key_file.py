"""The keys in force: those of a file, which is read again when it changes.

The whole file is read every second through its links. A Secret that is mounted as a folder is a link that
Kubernetes replaces, so neither a watch of the file nor its times are reliable.

New content is taken when two reads in a row return it. An editor that writes in place may be half-way, where
an entry still lacks its `collections`.
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
    """The keys of the file's last valid content."""

    def __init__(self, path: Path) -> None:
        """Read the file; raise InvalidInput when it is missing or invalid."""
        self.path = path
        self._seen = self._judged = _read(path)
        self.ring: KeyRing = parse_keys(self._seen, str(path))
        """The keys in force. A new object replaces the old one, so that any thread may use it."""
        self.loaded_at = time.time()
        self._refused: str | None = None
        """Why the file's present content is not in force; None when it is. Logged once."""

    @property
    def is_sound(self) -> bool:
        """Whether the file's present content is in force."""
        return self._refused is None

    async def follow(self) -> None:
        """Call `look` every second, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take the file's content if the last look found the same.

        Raises nothing: an error is logged, and the keys in force stay.
        """
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
    """Return the file's content, at most one byte more than is allowed; raise InvalidInput."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput(f"keys file {path} is no file", hint="name the file in the folder")
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(f"keys file {path} cannot be read: {error.strerror or error}") from None
