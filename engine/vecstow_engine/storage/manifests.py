"""Manifests on disk: read, decide, rename, under one lock, whoever does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.model.manifest import MANIFEST_BYTES_MAX, Manifest, parse_manifest, render_manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import MANIFEST, Layout, rfc3339


@contextmanager
def manifests_locked(layout: Layout) -> Iterator[None]:
    """Hold the manifests' lock; waits for it."""
    with files.locked(layout.manifests_lock):
        yield


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in a collection's folder, None when there is none; its name must be the folder's.

    Raises DamagedFile or NewerFormat.
    """
    path = folder / MANIFEST
    try:
        with path.open("rb") as stream:
            raw = stream.read(MANIFEST_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedFile(f"cannot be read: {error}", file=str(path)) from error
    manifest = parse_manifest(raw, str(path))
    if manifest.name != folder.name:
        raise DamagedFile(f"its name is {manifest.name!r}, but its folder is {folder.name!r}", file=str(path))
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make `manifest` the content of the folder's metadata.json, durably. The caller holds the lock."""
    files.make_folder(folder)
    files.replace_file(folder / MANIFEST, [render_manifest(manifest)])


def update_manifest(
    layout: Layout, name: str, decide: Callable[[Manifest | None], Manifest | None]
) -> tuple[Manifest | None, Manifest | None]:
    """Read, decide and write one manifest under the lock; returns it as it was and as it is.

    `decide` gets what is there (None: nothing) and returns what shall be there, or None to change nothing;
    what it raises comes through and changes nothing. `created_at` and `updated_at` are kept here.
    """
    folder = layout.collection(name)
    with manifests_locked(layout):
        found = read_manifest(folder)
        wanted = decide(found)
        if wanted is None or wanted == found:
            return found, found
        now = rfc3339()
        wanted = dataclasses.replace(wanted, created_at=wanted.created_at or now, updated_at=now)
        try:
            write_manifest(folder, wanted)
        except files.SyncFailed:
            raise
        except OSError as error:
            raise files.as_storage_error(error, f"writing the manifest of {name}") from error
        return found, wanted


def mark_dropped(layout: Layout, name: str) -> Manifest | None:
    """Mark a collection as dropped; the engine moves it away. None when there is no such manifest."""

    def decide(found: Manifest | None) -> Manifest | None:
        return found and dataclasses.replace(found, dropped_at=found.dropped_at or rfc3339())

    return update_manifest(layout, name, decide)[1]
