"""Open files: a cache of handles, and a check that the files of a store still have their names.

The cache keeps few files and connections open for any number of collections; the oldest idle ones close.
An open file can be read and written without a name, and is lost when it is closed. Another program can remove
or replace it. An inode number distinguishes two files only while both exist, so the check also compares their
times of birth.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

from vecstow_engine.model.errors import DamagedFile, DiskFull
from vecstow_engine.storage.layout import POINTS, ROWS

_AT_FDCWD: Final = -100
_STATX_INO: Final = 0x100
_STATX_BTIME: Final = 0x800
_STATX_BYTES: Final = 256
_STATX: Final = struct.Struct("=I28xQ40xqI44xII")
"""Fields of the result of statx(2): `stx_mask`, `stx_ino`, `stx_btime` (two), `stx_dev_major`, `_minor`."""
_LIBC = ctypes.CDLL(None, use_errno=True)

_Identity: TypeAlias = tuple[int, int, int, int]
"""Device (major, minor), inode, time of birth in nanoseconds (0 where the file system has none)."""


class Closable(Protocol):
    """A handle that the cache can close."""

    def close(self) -> None:
        """Release the descriptors; only the cache calls this, once."""


_Handle = TypeVar("_Handle", bound=Closable)


@dataclass(slots=True)
class _Entry(Generic[_Handle]):
    handle: _Handle | None = None
    """None until the first user opens the handle."""
    users: int = 0
    discarded: bool = False
    opening: threading.Lock = field(default_factory=threading.Lock)


class HandleCache:
    """Open handles, at most `limit` of them idle. Thread-safe; a handle in use is never closed.

    `make_room` is called once when the disk has no room to open a handle: SQLite needs some even to read.
    `make_room` returns whether a second attempt is useful. `unclosed` gets the error of a handle that could
    not be closed. A borrower does not get this error, because the handle belongs to another user.
    """

    def __init__(
        self,
        limit: int,
        make_room: Callable[[], bool] = lambda: False,
        unclosed: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._limit = limit
        self._make_room = make_room
        self._unclosed = unclosed
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry[Closable]] = OrderedDict()

    @contextmanager
    def borrow(self, key: Hashable, opener: Callable[[], _Handle]) -> Iterator[_Handle]:
        """Use the handle of `key`, and open it if necessary; errors of `opener` are raised unchanged."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            entry.users += 1
        try:
            with self._lock:
                self._close_idle()
            with entry.opening:  # On a slow disk only users of this handle wait.
                if entry.handle is None:
                    entry.handle = self._opened(opener)
            yield entry.handle  # type: ignore[misc]
        finally:
            with self._lock:
                entry.users -= 1
                if entry.users == 0 and entry.handle is None and self._entries.get(key) is entry:
                    del self._entries[key]
                if entry.discarded and entry.users == 0:
                    self._close(entry)

    def discard(self, key: Hashable) -> None:
        """Close the handle of `key`, now or after its last user; the next borrow opens the handle again."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return
            entry.discarded = True
            if entry.users == 0:
                self._close(entry)

    def close(self) -> None:
        """Discard every handle."""
        for key in list(self._entries):
            self.discard(key)

    def __len__(self) -> int:
        """Return the number of cached handles."""
        return len(self._entries)

    def _close_idle(self) -> None:
        for key in list(self._entries)[: max(0, len(self._entries) - self._limit)]:
            if self._entries[key].users == 0:
                self._close(self._entries.pop(key))

    def _close(self, entry: _Entry[Closable]) -> None:
        try:
            if entry.handle is not None:
                entry.handle.close()
        except Exception as error:  # noqa: BLE001  # SQLite raises its own errors, too.
            self._unclosed(error)

    def _opened(self, opener: Callable[[], _Handle]) -> _Handle:
        try:
            return opener()
        except DiskFull:
            if not self._make_room():
                raise
        return opener()


@dataclass(frozen=True, slots=True)
class DataFiles:
    """The files at the places of a collection's data at one moment."""

    paths: tuple[str, ...]
    identities: tuple[_Identity | None, ...]

    @classmethod
    def of(cls, folder: Path) -> DataFiles:
        """Return the data files of a folder; raise OSError when statx(2) fails."""
        paths = tuple(str(folder / name) for name in (ROWS, POINTS))
        return cls(paths, tuple(map(_identity, paths)))

    def missing(self) -> DamagedFile | None:
        """Return an error for a file that is not in its place, or None. A failed check counts as present."""
        for path, expected in zip(self.paths, self.identities, strict=True):
            try:
                found = _identity(path)
            except OSError:
                continue
            if found is None:
                return _removed(path)
            if found != expected:
                return DamagedFile("another file came to its place while it was served", file=path)
        return None


def missing_folder(folder: Path) -> DamagedFile | None:
    """Return an error when the folder of a collection without data files is gone; None when it is unknown."""
    try:
        return None if folder.is_dir() else _removed(str(folder))
    except OSError:
        return None


def _removed(path: str) -> DamagedFile:
    return DamagedFile("it was removed or moved away while it was served", file=path)


def _identity(path: str) -> _Identity | None:
    try:
        return _extended(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _extended(path: str) -> _Identity:
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if _LIBC.statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_INO | _STATX_BTIME, buffer) != 0:
        number = ctypes.get_errno()
        if number in (errno.ENOSYS, errno.EPERM):  # a sandbox forbids statx: the time of birth stays unknown
            found = os.stat(path)
            return os.major(found.st_dev), os.minor(found.st_dev), found.st_ino, 0
        raise OSError(number, os.strerror(number), path)
    mask, inode, seconds, nanoseconds, major, minor = _STATX.unpack_from(buffer)
    born_at_ns = seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else 0
    return major, minor, inode, born_at_ns
