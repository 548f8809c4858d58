"""A folder where a sync costs nothing: what syncs are good for is shown by leaving them out."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Instead of pytest's own, which lies on a disk."""
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        yield Path(folder)


def memory() -> str | None:
    """A file system in memory, where there is one."""
    return MEMORY if os.access(MEMORY, os.W_OK) else None
