"""The paths below the data directory, and the sizes of files."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

MANIFEST: Final = "metadata.json"
ROWS: Final = "vectors.bin"
POINTS: Final = "points.db"
INDEX: Final = "index.bin"
COLUMNS: Final = "payload.bin"
ALIASES: Final = "aliases.json"
SEGMENT_SUFFIX: Final = ".log"
TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"


class Layout:
    """The paths of one data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.lock = data / "LOCK"
        """The file whose lock the one engine of this volume holds."""
        self.volume_id = data / "VOLUME"
        """The file with the id of this volume; a volume that replaces it has another id."""
        self.reserve = data / "RESERVE"
        """The reserve: bytes that the engine frees when the disk is full."""
        self.manifests_lock = data / ".manifests.lock"
        """The file whose lock is held while a program reads, decides and renames a manifest or aliases."""
        self.aliases = data / ALIASES
        """The file of the aliases of all collections; missing until the first one is set."""
        self.logs = data / "wal"
        """The folder of all write-ahead logs. When `wal` is a file, it belongs to d-vecDB."""
        self.deleted = data / ".deleted"
        """The folder of dropped collections, kept until their retention ends."""
        self.quarantine = data / ".quarantine"
        """The folder of files that a repair set aside, and of evidence; the engine never deletes them."""
        self.backups = data / ".backups"
        """The folder of backups."""
        self.staging = data / ".staging"
        """The folder of unfinished collections. After a crash, the next start finishes or removes them."""

    def collection(self, name: str) -> Path:
        """Return the folder of a collection."""
        return self.data / name

    def log(self, uid: str) -> Path:
        """Return the folder of one incarnation's log segments."""
        return self.logs / uid


def has_content(path: Path) -> bool:
    """Whether a data file exists and is not empty; an empty file counts as missing."""
    return size_or_zero(path) > 0


def size_or_zero(path: Path) -> int:
    """Return the size of a file in bytes; 0 when it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def segment_name(first_sequence: int) -> str:
    """Return the file name of the segment that may begin with `first_sequence`."""
    return f"{first_sequence:020d}{SEGMENT_SUFFIX}"


def timestamp() -> str:
    """Return the present time in UTC, to the second, in the form that folder names have."""
    return datetime.datetime.now(datetime.UTC).strftime(TIME_FORMAT)


def rfc3339(moment: datetime.datetime | None = None) -> str:
    """Return the moment (default: now) in UTC as RFC 3339 with milliseconds."""
    moment = moment or datetime.datetime.now(datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
