"""Dropped collections: moved to `.deleted/` by one rename, listed, restored, purged (promise 5).

The log stays under its uid until the purge, so a restore loses nothing.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vecstow_engine.model.errors import as_storage_error
from vecstow_engine.model.names import new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import MANIFEST, TIME_FORMAT, Layout, timestamp
from vecstow_engine.storage.manifests import manifests_locked

_FOLDER = re.compile(r"(?P<name>.+)-(?P<time>[0-9]{8}T[0-9]{6}Z)-(?P<uid>[0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class DeletedCollection:
    """One collection in `.deleted/`."""

    name: str
    uid: str
    path: Path
    deleted_at: datetime.datetime

    @property
    def age_hours(self) -> float:
        """Hours since the drop."""
        return (datetime.datetime.now(datetime.UTC) - self.deleted_at).total_seconds() / 3600

    def document(self, data: Path) -> dict[str, object]:
        """Return the JSON object that clients get; its path is relative to the data directory."""
        return {
            "name": self.name,
            "path": str(self.path.relative_to(data)),
            "deleted_timestamp": int(self.deleted_at.timestamp()),
            "age_hours": round(self.age_hours, 4),
        }


def move_to_deleted(layout: Layout, name: str, uid: str | None) -> Path:
    """Move a collection's folder to `.deleted/`, durably, and return its path; the name is free afterwards.

    Raises DiskFull, StorageError or files.SyncFailed.
    """
    target = layout.deleted / f"{name}-{timestamp()}-{uid or new_collection_uid()}"
    try:
        with manifests_locked(layout):
            files.make_folder(layout.deleted)
            files.remove_tree(layout.staging / name)  # The next start would rename it to the free place.
            files.rename(layout.collection(name), target)
    except files.SyncFailed:
        raise
    except OSError as error:
        raise as_storage_error(error, f"moving {name} to {layout.deleted.name}") from error
    return target


def list_deleted(layout: Layout) -> list[DeletedCollection]:
    """Return the collections in `.deleted/`, the newest drop first."""
    return sorted(_deleted(layout), key=lambda deleted: deleted.deleted_at, reverse=True)


def purge(layout: Layout, deleted: DeletedCollection) -> None:
    """Remove a dropped collection for good, its log first: after a crash, the purge can be repeated."""
    if not is_claimed(layout, deleted.uid):
        files.remove_tree(layout.log(deleted.uid))
    files.remove_tree(deleted.path)


def is_claimed(layout: Layout, uid: str) -> bool:
    """Whether a collection has this uid, for example a copy or the result of an interrupted restore."""
    for folder in layout.data.iterdir():
        try:
            raw = (folder / MANIFEST).read_bytes()
        except OSError:
            continue
        if uid.encode() in raw:
            return True
    return False


def _deleted(layout: Layout) -> Iterator[DeletedCollection]:
    if not layout.deleted.is_dir():
        return
    for path in layout.deleted.iterdir():
        match = _FOLDER.fullmatch(path.name)
        if match is not None and path.is_dir():
            moment = datetime.datetime.strptime(match["time"], TIME_FORMAT).replace(tzinfo=datetime.UTC)
            yield DeletedCollection(match["name"], match["uid"], path, moment)
