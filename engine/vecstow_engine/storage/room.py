"""A check that a copy fits on the volume, made before the copy takes the room that writes need."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import DiskFull

SPARE_BYTES: Final = 1 << 20
"""Extra bytes for folders, the first log segment and reports."""


def refuse_without_room(folder: Path, needed: int, operation: str, name: str) -> None:
    """Raise DiskFull unless `needed` bytes are free on the volume of `folder`; change nothing."""
    stats = os.statvfs(folder)
    free = stats.f_bavail * stats.f_frsize
    if free < needed + SPARE_BYTES:
        raise DiskFull(
            f"{operation} of {name!r} takes up to {needed + SPARE_BYTES:,} bytes; {free:,} are free, "
            "and nothing was changed",
            collection=name, operation=operation,
            hint="make room, or enlarge the volume",
        )  # fmt: skip


def tree_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
