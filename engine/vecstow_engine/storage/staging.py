"""Collections that are made in `.staging/` and take their place among the served ones by a rename.

Until the rename the collection does not exist, and a start removes what a failure or crash left. A folder
that stands in its place is moved to `.quarantine/` first. From then on a start finishes the work.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from vecstow_engine.model.errors import Conflict, DamagedFile, NewerFormat, OutcomeUnknown
from vecstow_engine.model.manifest import ManagedBy, Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import Layout, timestamp
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest


def finish_staged(layout: Layout) -> list[Manifest]:
    """Rename complete staged collections to places that are free; return their manifests.

    Only a collection that replaces an old folder is staged under its own name. A free place therefore means
    that the old folder was set aside already.
    """
    finished = []
    for staging in sorted(layout.staging.glob("*")):
        with contextlib.suppress(DamagedFile, NewerFormat):
            manifest = read_manifest(staging)  # The manifest is written last, so the rest is complete.
            if manifest is not None and not layout.collection(manifest.name).exists():
                take_place(layout, staging, manifest, in_place=False)
                finished.append(manifest)
    return finished


def remove_unfinished(layout: Layout) -> None:
    """Remove incomplete collections that a crash left; keep those in a newer format for a later release."""
    for staging in sorted(layout.staging.glob("*")):
        try:
            read_manifest(staging)
        except NewerFormat:
            continue
        except (DamagedFile, OSError):
            pass
        files.remove_tree(staging)
    if not any(layout.staging.glob("*")):
        files.remove_tree(layout.staging)


def take_place(layout: Layout, staging: Path, made: Manifest, *, in_place: bool) -> Manifest:
    """Rename `staging`, whose manifest is `made`, to the collection's place; return the final manifest."""
    name = made.name
    target = layout.collection(name)
    with manifests_locked(layout):
        if in_place:
            made = as_declared(target, made)
            write_manifest(staging, made)
            files.make_folder(layout.quarantine)
            files.rename(target, layout.quarantine / f"{name}-{timestamp()}")
        elif target.exists():
            raise Conflict(f"collection {name!r} exists", collection=name, operation="import")
        doubt = unknown_between(name, "import", "restart the engine: it goes on with it")
        with doubt if in_place else contextlib.nullcontext():
            _move_foreign_log(layout)
            files.rename(staging, target)
    return made


def as_declared(folder: Path, made: Manifest) -> Manifest:
    """Return `made` with the declaration in the manifest that it replaces, so its owner still manages it.

    Raises Conflict when that manifest is marked as dropped, or is a Kubernetes resource's with another shape.
    """
    found = readable_manifest(folder)
    if found is None:
        return made
    if found.dropped_at is not None:
        raise Conflict(f"collection {made.name!r} is dropped", collection=made.name, operation="import")
    if found.shape != made.shape:
        if found.managed_by is ManagedBy.KUBERNETES:
            raise Conflict(
                f"collection {made.name!r} belongs to a Kubernetes resource, which declares "
                f"{found.dimension}, {found.distance_metric}, {found.vector_type}",
                collection=made.name, operation="import",
            )  # fmt: skip
        return made
    return dataclasses.replace(
        found, collection_uid=made.collection_uid,
        created_at=found.created_at or made.created_at, updated_at=made.updated_at,
    )  # fmt: skip


@contextlib.contextmanager
def unknown_between(name: str, operation: str, hint: str) -> Iterator[None]:
    """Turn an OSError, after the old folder was set aside, into OutcomeUnknown: a start finishes the work."""
    try:
        yield
    except files.SyncFailed:
        raise
    except OSError as error:
        raise OutcomeUnknown(
            f"outcome unknown: {name} was set aside, but what was made of it has no place yet: {error}",
            collection=name, operation=operation, hint=hint,
        ) from error  # fmt: skip


def _move_foreign_log(layout: Layout) -> None:
    """Move d-vecDB's `wal`, which is a file, out of the place of the folder of logs."""
    if layout.logs.is_file():
        files.make_folder(layout.quarantine)
        files.rename(layout.logs, layout.quarantine / f"wal-{timestamp()}")


def readable_manifest(folder: Path) -> Manifest | None:
    """Return the manifest; None when it is missing or damaged. Raise NewerFormat."""
    with contextlib.suppress(DamagedFile):
        return read_manifest(folder)
    return None
