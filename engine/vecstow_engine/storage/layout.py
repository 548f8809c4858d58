"""Where everything lies below the data directory: path arithmetic, and one question to the disk."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MANIFEST: Final = "metadata.json"
ROWS: Final = "vectors.bin"
POINTS: Final = "points.db"
INDEX: Final = "index.bin"
SEGMENT_SUFFIX: Final = ".log"
TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one data directory."""

    data: Path

    @property
    def lock(self) -> Path:
        """Held by the one engine of this volume."""
        return self.data / "LOCK"

    @property
    def volume_id(self) -> Path:
        """The id that tells this volume from its replacement."""
        return self.data / "VOLUME"

    @property
    def reserve(self) -> Path:
        """Bytes given up when the disk is full."""
        return self.data / "RESERVE"

    @property
    def manifests_lock(self) -> Path:
        """Held over each read-decide-rename of a manifest."""
        return self.data / ".manifests.lock"

    @property
    def logs(self) -> Path:
        """The folder of all write-ahead logs; a file of this name is d-vecDB's."""
        return self.data / "wal"

    @property
    def deleted(self) -> Path:
        """Dropped collections, until their retention ends."""
        return self.data / ".deleted"

    @property
    def quarantine(self) -> Path:
        """What repair set aside, and evidence; never deleted by the engine."""
        return self.data / ".quarantine"

    @property
    def backups(self) -> Path:
        """Copies made by `backup`."""
        return self.data / ".backups"

    @property
    def staging(self) -> Path:
        """Collections that are being made; the next start finishes or removes what a crash leaves there."""
        return self.data / ".staging"

    def collection(self, name: str) -> Path:
        """The collection's folder."""
        return self.data / name

    def log(self, uid: str) -> Path:
        """The folder of one incarnation's log segments."""
        return self.logs / uid


def has_content(path: Path) -> bool:
    """Whether a data file is there and not empty; an empty one is as good as none."""
    return size_or_zero(path) > 0


def size_or_zero(path: Path) -> int:
    """Return the bytes of a file; 0 when it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def segment_name(first_sequence: int) -> str:
    """The file name of the segment that may begin with `first_sequence`."""
    return f"{first_sequence:020d}{SEGMENT_SUFFIX}"


def timestamp() -> str:
    """Now, UTC, to the second, as folder names carry it."""
    return datetime.datetime.now(datetime.UTC).strftime(TIME_FORMAT)


def rfc3339(moment: datetime.datetime | None = None) -> str:
    """The moment (default now) in UTC as RFC 3339 with milliseconds."""
    moment = moment or datetime.datetime.now(datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
