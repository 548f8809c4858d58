"""A file read in blocks: memory stays bounded, and an error of the disk is an exception, not a signal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import StorageError

BLOCK_BYTES: Final = 4 * 1024 * 1024
_ZEROS: Final = bytes(64 * 1024)


class BlockReader:
    """The bytes of one open file, with the last read block in memory."""

    def __init__(self, path: Path, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self._block_bytes = block_bytes
        self._base = 0
        self._block = b""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise StorageError(f"{path} cannot be opened: {error.strerror}") from error

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`; fewer at the end of the file. Raise StorageError."""
        at = self._load(start, length)
        return self._block[at : at + length]

    def find(self, pattern: bytes, start: int, stop: int) -> int:
        """Return the offset of the first `pattern` that lies within [start, stop); -1 when there is none."""
        stop = min(stop, self.size)
        while start + len(pattern) <= stop:
            at = self._load(start, len(pattern))
            found = self._block.find(pattern, at, stop - self._base)
            if found >= 0:
                return self._base + found
            start = self._base + len(self._block) - len(pattern) + 1
        return -1

    def zeros_end(self, start: int) -> int:
        """Return the offset where the zeros that begin at `start` end; `start` itself when there are none."""
        while start < self.size:
            chunk = self.read(start, len(_ZEROS))
            if chunk != _ZEROS[: len(chunk)]:
                return start + len(chunk) - len(chunk.lstrip(b"\0"))
            start += max(len(chunk), 1)
        return self.size

    def _load(self, start: int, length: int) -> int:
        """Load [start, start + length) into the block, up to the file's end; return its place there."""
        wanted_end = min(start + length, self.size)
        if start < self._base or wanted_end > self._base + len(self._block):
            try:
                self._block = os.pread(self._descriptor, max(self._block_bytes, length), start)
            except OSError as error:
                raise StorageError(f"{self.path} cannot be read at byte {start}: {error.strerror}") from error
            self._base = start
            if len(self._block) < wanted_end - start:
                self.size = start + len(self._block)
        return start - self._base
