"""The memory limit and its division: one formula for the engine, docs/sizing.md and the chart.

Without a setting the limit is the memory that the kernel grants. Sources for that: cgroups(7), "Control
Group v2" (memory.max), "Memory Resource Controller" (memory.limit_in_bytes), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.service.settings import IndexSettings, LimitSettings, Settings, StorageSettings

MIB: Final = 1 << 20
GIB: Final = 1 << 30

BASE_BYTES: Final = 96 * MIB
"""Bytes of the interpreter and libraries (70 MiB resident when idle), threads and connections."""
REQUEST_SHARE: Final = 1 / 8
REQUEST_BYTES_MAX: Final = 512 * MIB
CHANGE_SHARE: Final = 1 / 6
CHANGE_BYTES_MAX: Final = GIB
WORK_SHARE: Final = 1 / 8
WORK_BYTES_MAX: Final = GIB
LIMIT_BYTES_MIN: Final = 256 * MIB
"""The smallest limit: a smaller one leaves hardly any room for graphs."""

_Group = TypeVar("_Group", StorageSettings, IndexSettings, LimitSettings)

log = structlog.stdlib.get_logger(__name__)

_LIMIT_FILES: Final = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_UNITS: Final = {
    "": 1, "b": 1,
    "k": 10**3, "kb": 10**3, "ki": 1 << 10, "kib": 1 << 10,
    "m": 10**6, "mb": 10**6, "mi": 1 << 20, "mib": 1 << 20,
    "g": 10**9, "gb": 10**9, "gi": 1 << 30, "gib": 1 << 30,
    "t": 10**12, "tb": 10**12, "ti": 1 << 40, "tib": 1 << 40,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """The part of the memory limit for each part of the engine; bytes. `plan` makes an instance."""

    limit_bytes: int
    base_bytes: int
    """Interpreter, libraries, threads, connections."""
    request_bytes: int
    """Bodies, decoded requests, answers that are not sent yet."""
    change_bytes: int
    """Over all collections: overlays, tails of rows that no graph has yet, writes that wait for the log."""
    work_bytes: int
    """Checkpoints, SQLite's caches, recovery, pages that a snapshot's child keeps, the allocator's slack."""

    @property
    def cache_bytes(self) -> int:
        """Return the bytes of SQLite's caches over all connections, a part of `work_bytes`."""
        return self.work_bytes // 4

    @property
    def data_bytes(self) -> int:
        """Return the bytes that remain: for graphs, rebuilds, and tables of slots and labels."""
        taken = self.base_bytes + self.request_bytes + self.change_bytes + self.work_bytes
        return self.limit_bytes - taken


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The reason why a graph is held out: the bytes that it needs and those that are left."""

    needed_bytes: int
    room_bytes: int
    """Bytes that other data leaves of the memory for data."""
    limit_bytes: int

    def __str__(self) -> str:
        return (
            f"its graph is not in memory: it needs {self.needed_bytes} bytes, and {self.room_bytes} are left "
            f"of the limit {self.limit_bytes} (--memory-limit); searches read rows from the volume"
        )


def plan(limit_bytes: int) -> MemoryPlan:
    """Divide a memory limit in bytes; raise InvalidInput below `LIMIT_BYTES_MIN`."""
    if limit_bytes < LIMIT_BYTES_MIN:
        raise InvalidInput(
            f"memory_limit is {limit_bytes} bytes; the engine needs at least {LIMIT_BYTES_MIN} (256 MiB)",
            hint="raise --memory-limit or the container's memory limit (docs/sizing.md)",
        )
    return MemoryPlan(
        limit_bytes=limit_bytes,
        base_bytes=BASE_BYTES,
        request_bytes=min(int(limit_bytes * REQUEST_SHARE), REQUEST_BYTES_MAX),
        change_bytes=min(int(limit_bytes * CHANGE_SHARE), CHANGE_BYTES_MAX),
        work_bytes=min(int(limit_bytes * WORK_SHARE), WORK_BYTES_MAX),
    )


def plan_for(memory_limit: str) -> MemoryPlan:
    """Return the plan for the setting `memory_limit`; when empty, for the memory that the kernel grants.

    Raises InvalidInput.
    """
    return plan(parse_size("memory_limit", memory_limit) if memory_limit else granted_bytes())


def fitted(settings: Settings, made: MemoryPlan) -> Settings:
    """Return settings whose memory limits fit the plan; log each chosen value that is lowered."""
    changes = made.change_bytes
    return replace(
        settings,
        storage=_lowered(settings.storage, checkpoint_bytes=changes // 8, overlay_bytes_max=changes // 2),
        index=_lowered(settings.index, tail_bytes_max=changes // 4),
        limits=_lowered(settings.limits, queue_bytes_max=changes // 4),
    )


def _lowered(group: _Group, **most: int) -> _Group:
    defaults = {field.name: field.default for field in fields(group)}
    lowered: dict[str, Any] = {}
    for name, limit in most.items():
        value = getattr(group, name)
        if value > limit:
            lowered[name] = limit
            if value != defaults[name]:
                log.warning("setting exceeds the memory limit's share", setting=name, value=value, used=limit)
    return replace(group, **lowered)


def anonymous_bytes() -> int:
    """Return the bytes of this process's resident memory without file pages, which the kernel can drop."""
    resident, shared = Path("/proc/self/statm").read_text(encoding="ascii").split()[1:3]
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def parse_size(field: str, text: str) -> int:
    """Return the bytes of a size like `1073741824`, `1GiB`, `512Mi` or `1.5G`; raise InvalidInput.

    `field` names the value in the message.
    """
    match = _SIZE.fullmatch(text.strip())
    unit = _UNITS.get(match[2].lower()) if match is not None else None
    if match is None or unit is None:
        raise InvalidInput(
            f"{field} is {text[:80]!r}; it must be a number of bytes, or one with a unit such as MiB or Gi"
        )
    return int(float(match[1]) * unit)


def granted_bytes(root: Path = Path("/")) -> int:
    """Return the smallest of the machine's memory and the limits of this process's control groups, in bytes.

    `root` holds `proc` and `sys`. A limit of `max`, or above the machine's memory, has no effect. Raises
    OSError when `proc/meminfo` has no MemTotal.
    """
    return min([_machine_bytes(root), *_cgroup_limits(root)])


def _machine_bytes(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemTotal")


def _cgroup_limits(root: Path) -> Iterator[int]:
    for mount_point, folder, file in _memory_groups(root):
        top = root / mount_point.lstrip("/")
        group = top / folder.lstrip("/")
        while True:
            if (limit := _limit(group / file)) is not None:
                yield limit
            if group == top or top not in group.parents:
                break
            group = group.parent


def _memory_groups(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the mount point, the path of this process's group below it, and the name of the limit file."""
    groups = _own_groups(root)
    for line in _lines(root / "proc/self/mountinfo"):
        if " - cgroup" not in line:
            continue
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind not in _LIMIT_FILES or (kind == "cgroup" and "memory" not in options.split(",")):
            continue
        if (path := groups.get(kind)) is None:
            continue
        mounted, mount_point = fields.split(" ")[3:5]
        # A container often sees its own group as the root of the mount, but under the path of the host.
        inside = path.removeprefix(mounted) if mounted != "/" else path
        yield mount_point, "" if ".." in inside.split("/") else inside, _LIMIT_FILES[kind]


def _own_groups(root: Path) -> dict[str, str]:
    """Return the path of this process's group by file system type, for hierarchies that limit memory."""
    groups = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            groups["cgroup2"] = path
        elif "memory" in controllers.split(","):
            groups["cgroup"] = path
    return groups


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
