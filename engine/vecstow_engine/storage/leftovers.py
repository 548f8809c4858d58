"""Folders that a failed operation leaves, and that must go at once, for the room that they take.

When the disk refuses even that, the upkeep tries again; a start removes what a crash leaves.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from vecstow_engine.storage import files

_refused: set[Path] = set()
"""What the disk would not remove; of any volume of this process."""
_removing_later = threading.Lock()


def clear_away(folder: Path) -> None:
    """Remove a folder that nobody reads; never raises for what the disk refuses."""
    try:
        files.remove_tree(folder)
    except OSError:
        _refused.add(folder)
    else:
        _refused.discard(folder)


def clear_refused(data: Path) -> None:
    """Try to remove again what the disk of this volume refused to."""
    with _removing_later:
        for folder in [path for path in tuple(_refused) if path.is_relative_to(data)]:
            clear_away(folder)


def clear_place(folder: Path) -> None:
    """Remove what lies where a folder is made next, which then is no leftover. Raises an OSError."""
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
