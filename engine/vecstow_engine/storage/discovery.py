"""Discovery: one scan of the folders on the volume. The manifest decides, and nothing is written."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import is_collection_name
from vecstow_engine.storage.identity import read_header
from vecstow_engine.storage.layout import POINTS, ROWS, Layout, has_content
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.trash import list_deleted


@dataclass(frozen=True, slots=True)
class Found:
    """One folder that can be a collection. Exactly one of `manifest` and `problem` is set."""

    name: str
    manifest: Manifest | None = None
    problem: str | None = None
    bare: bool = False
    """Whether metadata.json is missing. Such a folder is not a collection, but needs a warning."""
    has_data: bool = False
    """Whether a bare folder holds data files: its manifest was lost, or the data is to be imported."""


def discover(layout: Layout, is_enough: Callable[[], bool] = lambda: False) -> list[Found]:
    """Return every folder with a legal name, sorted by name. `rivals` finds those that claim the same uid.

    The scan ends early when `is_enough`, called before each folder, returns True.
    """
    looked_at = itertools.takewhile(lambda _: not is_enough(), _look(layout))
    return sorted(looked_at, key=lambda found: found.name)


def rivals(layout: Layout, found: list[Found]) -> set[str]:
    """Return the names of the folders whose uid another folder claims too."""
    claims = {f.name: claimed_uid(layout, f.manifest) for f in found if f.manifest is not None}
    counts = Counter(uid for uid in claims.values() if uid is not None)
    return {name for name, uid in claims.items() if uid is not None and counts[uid] > 1}


def claimed_uid(layout: Layout, manifest: Manifest | str) -> str | None:
    """Return the uid of a manifest; without one, return the uid in the header of the rows, or None.

    A manifest that a person wrote takes the uid of the rows. `manifest` is the name of a folder when the
    folder has no readable manifest.
    """
    if isinstance(manifest, Manifest) and manifest.collection_uid is not None:
        return manifest.collection_uid
    name = manifest if isinstance(manifest, str) else manifest.name
    try:
        return read_header(layout.collection(name) / ROWS).uid
    except (OSError, DamagedFile, NewerFormat):
        return None


def claimed_beside(layout: Layout, name: str) -> set[str]:
    """Return the uids that other folders claim, also dropped ones and those without a readable manifest."""
    dropped = {deleted.uid for deleted in list_deleted(layout)}
    others = (found for found in _look(layout) if found.name != name)
    said = (claimed_uid(layout, found.manifest or found.name) for found in others)
    return dropped | {uid for uid in said if uid is not None}


def _look(layout: Layout) -> Iterator[Found]:
    for folder in layout.data.iterdir():
        if is_collection_name(folder.name) and folder.is_dir():
            yield _look_at(folder)


def _look_at(folder: Path) -> Found:
    try:
        manifest = read_manifest(folder)
    except (DamagedFile, NewerFormat) as error:
        return Found(folder.name, problem=error.message)
    except Exception as error:  # noqa: BLE001  # The other folders are discovered all the same.
        return Found(folder.name, problem=f"metadata.json cannot be read: {error!r}")
    if manifest is None:
        has_data = any(has_content(folder / name) for name in (ROWS, POINTS))
        return Found(folder.name, problem="metadata.json is missing", bare=True, has_data=has_data)
    return Found(folder.name, manifest=manifest)
