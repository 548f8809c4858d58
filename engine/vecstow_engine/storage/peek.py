"""Looking into a `points.db` that another process may own: no lock is taken, no file is made or changed.

What SQLite's own log holds is not seen, so the answer is that of the last checkpoint.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.storage.points import Meta


def peek_meta(path: Path) -> Meta:
    """The meta row; raises DamagedFile when it is not there or fails its checksum."""
    # `immutable` keeps SQLite from making -wal and -shm, which recovery must find as the engine left them.
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            row = connection.execute(
                "SELECT uid, name, applied, checkpoints, points, checksum_sum, checksum FROM meta"
            ).fetchone()
        uid, *fields, checksum = row
        meta = Meta(uid.hex(), *fields)
        valid = meta.checksum == checksum
    except (sqlite3.Error, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DamagedFile(f"cannot be read: {error}", file=str(path)) from error
    if not valid:
        raise DamagedFile("the meta row fails its checksum", file=str(path))
    return meta
