"""Where a cluster lies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder, in memory where there is one: etcd writes 128 MB at once. It is removed in the end."""
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place, prefix="vecstow-cluster-") as folder:
        yield Path(folder)
