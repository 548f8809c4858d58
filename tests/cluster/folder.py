"""Where a cluster lies."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
PREFIX = "vecstow-cluster-"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder, in memory where there is one: etcd writes 128 MB at once. It is removed in the end."""
    place = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
    remove_left_behind(place)
    with tempfile.TemporaryDirectory(dir=place, prefix=f"{PREFIX}{os.getpid()}-") as folder:
        yield Path(folder)


def remove_left_behind(place: Path) -> None:
    """Remove the folders of processes that were killed before they could do so: their names have the pid."""
    for folder in place.glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).split("-")[0]
        if not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
