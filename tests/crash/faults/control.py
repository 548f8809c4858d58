"""The counts and the orders of the preloaded library, in a file that both processes map into memory.

The layout and the numbers are those of fault.c.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

RECORDS_MAX: Final = 65_536
PATTERN_BYTES: Final = 256
ALWAYS: Final = 1 << 62
"""As `times`: until it is disarmed."""
SYNC_DELAY_US: Final = 3_000


class Kind(IntEnum):
    """The effect of a call on the volume."""

    WRITE = 0
    TRUNCATE = 1
    ALLOCATE = 2
    CREATE = 3
    """An open that may make or empty a file."""
    RENAME = 4
    UNLINK = 5
    RMDIR = 6
    MKDIR = 7
    LINK = 8
    FSYNC = 9
    FDATASYNC = 10
    OPEN = 11
    """Any other open: it changes nothing, but it can fail."""


SYNCS: Final = (Kind.FSYNC, Kind.FDATASYNC)
CHANGES: Final = tuple(kind for kind in Kind if kind is not Kind.OPEN)
"""The calls between which a process may die with a difference."""


class Action(IntEnum):
    """The fault that a call meets."""

    KILL_BEFORE = 1
    KILL_TORN = 2
    """A write is cut short, and then the process dies; other calls are not made."""
    KILL_AFTER = 3
    FAIL = 4
    CUT = 5
    """A write is cut short, and says so."""
    CUT_THEN_FAIL = 6
    """The first is cut short, the next ones fail: how a disk gets full."""


@dataclass(frozen=True)
class Fault:
    """A fault at the `nth` call (from 1) of these kinds, and at the next ones up to `times`."""

    action: Action
    nth: int
    kinds: tuple[Kind, ...] = CHANGES
    times: int = 1
    number: int = errno.EIO
    """errno of FAIL."""
    bytes: int = 0
    """The bytes of a write that are kept; 0: half of it."""
    pattern: str = ""
    """Part of the path; empty: any path below the folder."""


@dataclass(frozen=True)
class Call:
    """One counted call: its kind, and the path below the folder (two of a rename or link)."""

    kind: Kind
    path: str


class _Record(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_uint64), ("path", ctypes.c_char * 248)]


_NUMBERS: Final = (
    "total", "leader", "armed", "kinds", "nth", "times", "action", "number", "bytes", "matched", "fired",
    "fired_at", "sync_delay_us",
)  # fmt: skip


class _Layout(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint64) for name in _NUMBERS),
        ("pattern", ctypes.c_char * PATTERN_BYTES),
        ("records", _Record * RECORDS_MAX),
    ]


class Control:
    """The driver's side. One process under test at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("w+b") as file:
            file.truncate(ctypes.sizeof(_Layout))
            self._memory = mmap.mmap(file.fileno(), 0)
        self._shared = _Layout.from_buffer(self._memory)

    def environment(self, library: Path, folder: Path) -> dict[str, str]:
        """Return the environment in which the process under test starts."""
        return {
            "LD_PRELOAD": str(library),
            "VECSTOW_FAULT_FOLDER": str(folder),
            "VECSTOW_FAULT_CONTROL": str(self.path),
        }

    def arm(self, fault: Fault) -> None:
        """Let it happen, counted from now on."""
        self.disarm()
        shared = self._shared
        shared.kinds = sum(1 << kind for kind in fault.kinds)
        shared.nth, shared.times = fault.nth, fault.times
        shared.action, shared.number, shared.bytes = fault.action, fault.number, fault.bytes
        shared.pattern = fault.pattern.encode()
        shared.matched = shared.fired = shared.fired_at = 0
        shared.armed = 1

    @contextmanager
    def slow_syncs(self) -> Iterator[None]:
        """Meanwhile each fdatasync takes its time, so that writers gather for the next one."""
        self._shared.sync_delay_us = SYNC_DELAY_US
        try:
            yield
        finally:
            self._shared.sync_delay_us = 0

    def disarm(self) -> None:
        """Count and record alone."""
        self._shared.armed = 0

    def forget(self) -> None:
        """Begin the count and the record again; nothing may be under way in the process."""
        used = min(self.total, RECORDS_MAX)
        ctypes.memset(ctypes.byref(self._shared.records), 0, used * ctypes.sizeof(_Record))
        self._shared.total = 0

    @property
    def total(self) -> int:
        """Calls counted since the last `forget`."""
        return int(self._shared.total)

    @property
    def matched(self) -> int:
        """Calls since it was armed that the fault's kinds and pattern match."""
        return int(self._shared.matched)

    @property
    def fired(self) -> int:
        """Calls that the fault befell."""
        return int(self._shared.fired)

    @property
    def victim(self) -> Call | None:
        """The first call that the fault befell."""
        return self.call(self.victim_number) if self._shared.fired_at else None

    @property
    def victim_number(self) -> int:
        """The number of that call."""
        return int(self._shared.fired_at) - 1

    def call(self, number: int) -> Call:
        """The call of that number, from 0; the process may have died before it wrote all of it."""
        record = self._shared.records[number]
        return Call(Kind(max(record.kind, 1) - 1), record.path.decode(errors="replace"))

    def calls(self, first: int = 0) -> list[Call]:
        """Return the counted calls from that number on."""
        return [self.call(number) for number in range(first, min(self.total, RECORDS_MAX))]
