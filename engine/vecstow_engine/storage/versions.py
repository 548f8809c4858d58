"""A check whether a later release wrote a file of a collection, made before any of its files is written."""

from __future__ import annotations

from pathlib import Path

from vecstow_engine.model.errors import NewerFormat, StorageError
from vecstow_engine.storage.layout import POINTS, ROWS
from vecstow_engine.storage.log.replay import read_headers
from vecstow_engine.storage.points.read_at_rest import peek_meta
from vecstow_engine.storage.rows_header import read_header


def refuse_newer(folder: Path, log: Path) -> None:
    """Raise NewerFormat for the data files of a folder, or its log; ignore damage, which others report."""
    for read, path in ((read_header, folder / ROWS), (peek_meta, folder / POINTS), (read_headers, log)):
        try:
            read(path)
        except NewerFormat:
            raise
        except (StorageError, OSError):
            continue
