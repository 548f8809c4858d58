"""A check that the data files of a store still have their names: another program can remove or replace them.

An open file can be read and written without a name, and is lost when it is closed. An inode number
distinguishes two files only while both exist, so the check also compares their times of birth.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from vecstow_engine.model.errors import DamagedFile
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
