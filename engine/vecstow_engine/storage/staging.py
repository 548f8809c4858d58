"""Collections that are made in `.staging/`, next to the served ones, and come to their place by a rename.

Before the rename nothing was made, and a start removes what a failure or a crash left. A folder that stands
in the place is moved to `.quarantine/`, whole, first; from then on a start finishes the work.
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
    """Give what was made for the place of an old folder that place, when the old one is set aside already.

    Only that is staged under its name.
    """
    finished = []
    for staging in sorted(layout.staging.glob("*")):
        with contextlib.suppress(DamagedFile, NewerFormat):
            manifest = read_manifest(staging)  # written last, so the rest is whole
            if manifest is not None and not layout.collection(manifest.name).exists():
                take_place(layout, staging, manifest, in_place=False)
                finished.append(manifest)
    return finished


def remove_unfinished(layout: Layout) -> None:
    """Throw away what a crash left half made, except for what a later release finishes."""
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
    """Let `staging`, whose manifest is `made`, be the collection; returns the manifest that it has there."""
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
    """`made`, as the manifest declares it in whose place it comes: whoever wrote that one manages it still.

    Raises Conflict when it is marked as dropped, or a Kubernetes resource declares another shape.
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
    """Around what comes once the old folder is set aside: after an error the next start goes on with it."""
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
    """d-vecDB's `wal` is a file, and stands where the folder of logs must be."""
    if layout.logs.is_file():
        files.make_folder(layout.quarantine)
        files.rename(layout.logs, layout.quarantine / f"wal-{timestamp()}")


def readable_manifest(folder: Path) -> Manifest | None:
    """None also for a damaged one: the caller's word stands. Raises NewerFormat."""
    with contextlib.suppress(DamagedFile):
        return read_manifest(folder)
    return None
