"""Manifests on disk: every program reads, decides and renames under one lock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from vecstow_engine.model.errors import Conflict, DamagedFile, StorageError, VecstowError, as_storage_error
from vecstow_engine.model.manifest import (
    MANIFEST_BYTES_MAX,
    ManagedBy,
    Manifest,
    Shape,
    parse_manifest,
    render_manifest,
)
from vecstow_engine.storage import files
from vecstow_engine.storage.aliases import aliases_of, refuse_alias_name
from vecstow_engine.storage.identity import read_header
from vecstow_engine.storage.layout import MANIFEST, ROWS, Layout, rfc3339, timestamp


def manifests_locked(layout: Layout) -> AbstractContextManager[int]:
    """Wait for the manifests' lock, and hold it during the block."""
    return files.locked(layout.manifests_lock)


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest in a collection's folder, or None; its name must be the folder's name.

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
        # The message leaves the other name out: an API key for this collection may not cover that one.
        raise DamagedFile(f"it names another collection than its folder, {folder.name!r}", file=str(path))
    return manifest


def stored_shape(folder: Path) -> Shape | None:
    """Return the shape in the header of the rows, not in the manifest; None when it is unreadable."""
    try:
        return read_header(folder / ROWS).shape
    except (VecstowError, OSError):
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make `manifest` the content of the folder's metadata.json, durably. The caller holds the lock."""
    files.make_folder(folder)
    files.replace_file(folder / MANIFEST, [render_manifest(manifest)])


def update_manifest(
    layout: Layout, name: str, decide: Callable[[Manifest | None], Manifest | None]
) -> tuple[Manifest | None, Manifest | None]:
    """Read, decide and write one manifest under the lock; return the manifest before and after.

    `decide` gets the present manifest (None: there is none) and returns the wanted one, or None to change
    nothing. An error of `decide` is raised unchanged, and nothing is written. This function sets `created_at`
    and `updated_at`. Raises Conflict for a new collection with the name of an alias.
    """
    with manifests_locked(layout):
        found = read_manifest(layout.collection(name))
        wanted = decide(found)
        if wanted is None or wanted == found:
            return found, found
        if found is None and wanted.dropped_at is None:
            refuse_alias_name(layout, name, "create")
        return found, change_manifest(layout, wanted)


def change_manifest(layout: Layout, wanted: Manifest) -> Manifest:
    """Write a manifest with the times of its change, and return it. The caller holds the lock."""
    now = rfc3339()
    wanted = dataclasses.replace(wanted, created_at=wanted.created_at or now, updated_at=now)
    try:
        write_manifest(layout.collection(wanted.name), wanted)
    except files.SyncFailed:
        raise
    except OSError as error:
        raise as_storage_error(error, f"writing the manifest of {wanted.name}") from error
    return wanted


def mark_dropped(layout: Layout, name: str, known: Manifest | None = None) -> Manifest | None:
    """Mark a collection as dropped, and return the manifest; the engine moves the folder away later.

    Returns None when the manifest or folder is missing. Raises Conflict when aliases lead to the collection,
    or when the manifest on the volume belongs to a Kubernetes resource, which can have adopted the collection
    a moment ago. `known` replaces a lost manifest.
    """

    def decide(found: Manifest | None) -> Manifest | None:
        manifest = found or known
        if manifest is not None and manifest.managed_by is ManagedBy.KUBERNETES:
            message = f"collection {name!r} belongs to a Kubernetes resource"
            hint = "kubectl delete the VectorCollection"
            raise Conflict(message, collection=name, operation="drop", hint=hint)
        if aliases := aliases_of(layout, name):
            message = f"collection {name!r} has readers under the alias {aliases[0]!r}"
            hint = f"let the alias lead to another collection, or remove it: DELETE /aliases/{aliases[0]}"
            raise Conflict(message, collection=name, operation="drop", hint=hint)
        if manifest is None or not layout.collection(name).is_dir():
            return None
        return dropped(manifest)

    return update_manifest(layout, name, decide)[1]


def drops_wait(layout: Layout) -> bool:
    """Whether drops must wait, because the engine holds the volume for a copy. The caller holds the lock.

    A drop that begins during the hold would not be part of the copy.
    """
    return files.is_locked(layout.volume_id)


def dropped(manifest: Manifest) -> Manifest:
    """Return the manifest with the mark of a drop."""
    return dataclasses.replace(manifest, dropped_at=manifest.dropped_at or rfc3339())


def copy_manifest_aside(layout: Layout, name: str) -> Path:
    """Copy a manifest, readable or not, to `.quarantine/`, and return the path of the copy.

    The caller holds the lock. An error removes the partial copy, so repeated errors leave nothing behind.
    """
    operation = f"setting the manifest of {name} aside"
    evidence = layout.quarantine / f"{name}-{timestamp()}"
    if evidence.exists():
        raise StorageError(f"{evidence} is there already", collection=name, operation=operation)
    try:
        for folder in (layout.quarantine, evidence, evidence / name):
            files.make_folder(folder)
        files.copy_file(layout.collection(name) / MANIFEST, evidence / name / MANIFEST)
        files.sync_folder(evidence / name)
    except OSError as error:
        with suppress(OSError):
            files.remove_tree(evidence)
        if isinstance(error, files.SyncFailed):
            raise
        raise as_storage_error(error, operation) from error
    return evidence / name / MANIFEST
