"""The removal of folders that a failed operation leaves. They are removed at once, because they take room.

When the disk refuses the removal, the upkeep tries again; a start removes the leftovers of a crash.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from vecstow_engine.storage import files

_refused: set[Path] = set()
"""Folders, on any volume of this process, whose removal failed."""
_removing_later = threading.Lock()


def clear_away(folder: Path) -> None:
    """Remove a folder that no reader uses; on an OSError, record it for `clear_refused`."""
    try:
        files.remove_tree(folder)
    except OSError:
        _refused.add(folder)
    else:
        _refused.discard(folder)


def clear_refused(data: Path) -> None:
    """Retry the removals on this volume that failed."""
    with _removing_later:
        for folder in [path for path in tuple(_refused) if path.is_relative_to(data)]:
            clear_away(folder)


def clear_place(folder: Path) -> None:
    """Remove the folder, because a new one will be made in its place; raise OSError when that fails."""
    with _removing_later:
        files.remove_tree(folder)
        _refused.discard(folder)


@contextlib.contextmanager
def cleared_on_error(*folders: Path) -> Iterator[None]:
    """Remove folders when the block ends with an exception of any kind."""
    try:
        yield
    except BaseException:
        for folder in folders:
            clear_away(folder)
        raise
