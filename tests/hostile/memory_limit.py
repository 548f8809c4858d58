"""A memory limit for one process: a control group where one can be made, else a limit of its data segment.

Sources: cgroups(7), "Control Group v2" (memory.max), "Memory Resource Controller" (memory.limit_in_bytes),
getrlimit(2).
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
NAME = f"vecstow-hostile-{os.getpid()}"
REMOVAL_SECONDS_MAX = 20.0


class MemoryLimit:
    """A limit that a child process applies to itself before it becomes the engine."""

    def __init__(self, limit_bytes: int, group: Path | None) -> None:
        self.limit_bytes = limit_bytes
        self.group = group

    def apply(self) -> None:
        """Put this process under the limit."""
        if self.group is not None:
            (self.group / "cgroup.procs").write_text(str(os.getpid()))
        else:
            # Address space would also count what is reserved and never touched.
            resource.setrlimit(resource.RLIMIT_DATA, (self.limit_bytes, self.limit_bytes))


@contextlib.contextmanager
def memory_limit(limit_bytes: int) -> Iterator[MemoryLimit]:
    """A limit; its control group is removed when the processes in it have ended."""
    group = _make_group(limit_bytes)
    try:
        yield MemoryLimit(limit_bytes, group)
    finally:
        if group is not None:
            _remove(group)


def _make_group(limit_bytes: int) -> Path | None:
    for folder, file in (
        (CONTROL_GROUPS, "memory.max"),
        (CONTROL_GROUPS / "memory", "memory.limit_in_bytes"),
    ):
        # Elsewhere a folder is a folder: only the kernel puts this file there.
        if not (folder / "cgroup.procs").exists():
            continue
        group = folder / NAME
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / file).write_text(str(limit_bytes))
        except OSError:
            group.rmdir()
            continue
        return group
    return None


def _remove(group: Path) -> None:
    deadline = time.monotonic() + REMOVAL_SECONDS_MAX
    while True:
        try:
            group.rmdir()
        except OSError:
            # The kernel counts an ended process for a moment longer.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
