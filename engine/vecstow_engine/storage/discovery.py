"""What is on the volume: each folder looked at once, decided by its manifest, nothing written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import is_collection_name
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import read_manifest


@dataclass(frozen=True, slots=True)
class Found:
    """One folder that could be a collection. Exactly one of `manifest` and `problem` is set."""

    name: str
    manifest: Manifest | None = None
    problem: str | None = None
    bare: bool = False
    """There is no metadata.json: not a collection, but worth a warning."""


def discover(layout: Layout) -> list[Found]:
    """Every folder with a legal name, sorted. Of folders that claim one uid all stand here; see `rivals`."""
    return sorted(_look(layout), key=lambda found: found.name)


def rivals(found: list[Found]) -> set[str]:
    """The uids that more than one folder claims."""
    counts = Counter(f.manifest.collection_uid for f in found if f.manifest and f.manifest.collection_uid)
    return {uid for uid, count in counts.items() if uid is not None and count > 1}


def _look(layout: Layout) -> Iterator[Found]:
    for folder in layout.data.iterdir():
        if is_collection_name(folder.name) and folder.is_dir():
            yield _look_at(folder)


def _look_at(folder: Path) -> Found:
    try:
        manifest = read_manifest(folder)
    except (DamagedFile, NewerFormat) as error:
        return Found(folder.name, problem=error.message)
    if manifest is None:
        return Found(folder.name, problem="metadata.json is missing", bare=True)
    return Found(folder.name, manifest=manifest)
