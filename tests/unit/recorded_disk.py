"""The disk under test: each call of `storage.files` that changes the volume, on record.

It stands in for `os` inside `storage.files`, the only module that writes. SQLite's writes are recorded as two
steps: `commit points.db` when they are to be made durable, `durable points.db` when they are. The others:

    create x, write x, data_sync x, sync x, sync folder/, truncate x, allocate x,
    rename x -> y, unlink x, link x -> y
"""

from __future__ import annotations

import errno
import fnmatch
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecstow_engine.storage import files
from vecstow_engine.storage.points import writer


class PowerOff(BaseException):
    """Raised from the step at which a test lets the process die, and from every later one."""


@dataclass
class Fault:
    """Steps that match `pattern` fail `times` times; a write puts `bytes_first` bytes down before."""

    pattern: str
    number: int
    times: int
    bytes_first: int = 0


class RecordedDisk:
    """In place until the monkeypatch fixture takes it away."""

    def __init__(self, monkeypatch: Any) -> None:
        self.steps: list[str] = []
        self.faults: list[Fault] = []
        self.stop_before: int | None = None
        """The number of the step at which the power goes off."""
        self.stop_at: str | None = None
        """The power goes off at the first step that matches; then this is the step's name."""
        self._lock = threading.Lock()
        monkeypatch.setattr(files, "os", self)
        real = writer.make_durable

        def make_durable(connection: Any, path: Path) -> None:
            self._step(f"commit {path.name}")
            real(connection, path)
            self.steps.append(f"durable {path.name}")
            self.became_durable(path)

        monkeypatch.setattr(writer, "make_durable", make_durable)

    # What a test asks ---------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget the steps so far."""
        self.steps.clear()

    def fail(self, pattern: str, number: int = errno.EIO, times: int = 1, bytes_first: int = 0) -> None:
        """Let the next steps that match `pattern` (as of a shell) fail."""
        self.faults.append(Fault(pattern, number, times, bytes_first))

    def matching(self, *patterns: str) -> list[str]:
        """The recorded steps that match one of `patterns`, in order."""
        return [s for s in self.steps if any(fnmatch.fnmatchcase(s, pattern) for pattern in patterns)]

    def first(self, pattern: str) -> int:
        """The position of the first step that matches."""
        return next(i for i, step in enumerate(self.steps) if fnmatch.fnmatchcase(step, pattern))

    def last(self, pattern: str) -> int:
        """The position of the last step that matches."""
        return max(i for i, step in enumerate(self.steps) if fnmatch.fnmatchcase(step, pattern))

    # What a lossy disk keeps of it --------------------------------------------------------------------------

    def became_durable(self, path: Path) -> None:
        """The file's content, or the folder's names, will survive a loss of power."""

    # os, as storage.files sees it ---------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not Path(path).exists():
            self._step(f"create {Path(path).name}")
        return os.open(path, flags, mode)

    def pwritev(self, fd: int, parts: Any, offset: int) -> int:
        name = _path(fd).name
        fault = self._matching_fault(f"write {name}")
        if fault is not None and fault.bytes_first > 0:
            kept = b"".join(parts)[: fault.bytes_first]
            fault.bytes_first = 0
            return os.pwrite(fd, kept, offset)
        self._step(f"write {name}")
        return os.pwritev(fd, parts, offset)

    def fdatasync(self, fd: int) -> None:
        self._step(f"data_sync {_path(fd).name}")
        os.fdatasync(fd)
        self.became_durable(_path(fd))

    def fsync(self, fd: int) -> None:
        path = _path(fd)
        self._step(f"sync {path.name}/" if path.is_dir() else f"sync {path.name}")
        os.fsync(fd)
        self.became_durable(path)

    def ftruncate(self, fd: int, length: int) -> None:
        self._step(f"truncate {_path(fd).name}")
        os.ftruncate(fd, length)

    def posix_fallocate(self, fd: int, offset: int, length: int) -> None:
        self._step(f"allocate {_path(fd).name}")
        os.posix_fallocate(fd, offset, length)

    def rename(self, source: Any, target: Any) -> None:
        self._step(f"rename {Path(source).name} -> {Path(target).name}")
        os.rename(source, target)

    def unlink(self, path: Any) -> None:
        if Path(path).exists():
            self._step(f"unlink {Path(path).name}")
        os.unlink(path)

    def link(self, source: Any, target: Any) -> None:
        if Path(source).exists():
            self._step(f"link {Path(source).name} -> {Path(target).name}")
        os.link(source, target)

    def _step(self, step: str) -> None:
        with self._lock:
            if self.stop_at is not None and fnmatch.fnmatchcase(step, self.stop_at):
                self.stop_at, self.stop_before = step, 0
            if self.stop_before is not None and len(self.steps) >= self.stop_before:
                raise PowerOff(step)
            fault = self._matching_fault(step)
            self.steps.append(step if fault is None else f"FAILED {step}")
        if fault is not None:
            fault.times -= 1
            raise OSError(fault.number, os.strerror(fault.number))

    def _matching_fault(self, step: str) -> Fault | None:
        live = (fault for fault in self.faults if fault.times > 0)
        return next((fault for fault in live if fnmatch.fnmatchcase(step, fault.pattern)), None)


def _path(fd: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{fd}"))
