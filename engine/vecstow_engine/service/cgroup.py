"""The memory that the kernel grants: the limit of this process's control groups, else the machine's memory.

Sources: cgroups(7), "Control Group v2" (memory.max), "Memory Resource Controller" (memory.limit_in_bytes),
proc_pid_mountinfo(5).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LIMIT_FILES: Final = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}


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
