"""Collections that are made in `.staging/` and take their place among the served ones by a rename.

Until the rename the collection does not exist, and a start removes what a failure or crash left. A folder
that stands in its place is moved to `.quarantine/` first. From then on a start finishes the work. A repair
leaves there a folder that has the form of a data directory, so `vecstow check --data` reads it:

    .quarantine/<collection>-<UTC>/<collection>/    the folder as it was found
                                   wal/<uid>/       its log
                                   lost.jsonl       one line for each loss
                                   repair.json      the plan, and the uids before and after

The log is moved last. The repaired collection has its own uid, so no reader uses the old log by then. After a
crash in between, the next start moves it.

A folder that a failed operation leaves is removed at once, because it takes room. When the disk refuses the
removal, the upkeep tries again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import Conflict, DamagedFile, NewerFormat, OutcomeUnknown
from vecstow_engine.model.manifest import ManagedBy, Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.aliases import refuse_alias_name
from vecstow_engine.storage.layout import Layout, timestamp
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest

LOST: Final = "lost.jsonl"
REPORT: Final = "repair.json"
_refused: set[Path] = set()
"""Folders, on any volume of this process, whose removal failed."""
_removing_later = threading.Lock()


def finish_interrupted(layout: Layout) -> list[str]:
    """Finish work that a crash interrupted; return the names of the collections that had no place yet.

    Of the two logs of a repair, the one is set aside whose uid is not the collection's.
    """
    finished = [manifest.name for manifest in finish_staged(layout)]
    for report in sorted(layout.quarantine.glob(f"*/{REPORT}")):
        name, uids = _read_report(report)
        in_place = _uid_in_place(layout, name)
        if uids is not None and in_place in uids and uids[0] != uids[1]:
            before, after = uids
            set_log_aside(layout, report.parent, before if in_place == after else after)
    return finished


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
                take_place(layout, staging, manifest, in_place=False, is_new=False)
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


def take_place(
    layout: Layout, staging: Path, made: Manifest, *, in_place: bool, is_new: bool = True
) -> Manifest:
    """Rename `staging`, whose manifest is `made`, to the collection's place; return the final manifest.

    Raises Conflict when the place is taken, or when the name of a collection that `is_new` is an alias.
    """
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
        elif is_new:
            refuse_alias_name(layout, name, "import")
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
            shape = f"{found.dimension}, {found.distance_metric}, {found.vector_type}"
            message = f"collection {made.name!r} belongs to a Kubernetes resource, which declares {shape}"
            raise Conflict(message, collection=made.name, operation="import")
        return made
    created_at, updated_at = found.created_at or made.created_at, made.updated_at
    return dataclasses.replace(
        found, collection_uid=made.collection_uid, created_at=created_at, updated_at=updated_at
    )


@contextlib.contextmanager
def unknown_between(name: str, operation: str, hint: str) -> Iterator[None]:
    """Turn an OSError, after the old folder was set aside, into OutcomeUnknown: a start finishes the work."""
    try:
        yield
    except files.SyncFailed:
        raise
    except OSError as error:
        message = f"outcome unknown: {name} was set aside, but what was made of it has no place yet: {error}"
        raise OutcomeUnknown(message, collection=name, operation=operation, hint=hint) from error


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


def set_log_aside(layout: Layout, evidence: Path, uid: str) -> None:
    """Move the log of a uid that no collection has any more; do nothing when it does not exist."""
    if layout.log(uid).is_dir():
        files.make_folder(evidence / layout.logs.name)
        files.rename(layout.log(uid), unused_path(evidence / layout.logs.name / uid))


def unused_path(path: Path) -> Path:
    """Return the path, with a number appended when the name is taken."""
    others = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(candidate for candidate in chain([path], others) if not candidate.exists())


def _read_report(path: Path) -> tuple[str, tuple[str, str] | None]:
    """Return the collection, and its uids before and after; ("", None) when the report cannot be read."""
    try:
        document = json.loads(path.read_bytes())
        before, after = document["uids"]
        return document["collection"], (before, after)
    except (OSError, ValueError, KeyError, TypeError):
        return "", None


def _uid_in_place(layout: Layout, name: str) -> str | None:
    with contextlib.suppress(DamagedFile, NewerFormat):
        manifest = read_manifest(layout.collection(name))
        return manifest.collection_uid if manifest is not None else None
    return None


def clear_away(folder: Path) -> None:
    """Remove a folder that no reader uses; on an OSError, record it for `clear_refused`."""
    try:
        files.remove_tree(folder)
    except OSError:
        _refused.add(folder)
    else:
        _refused.discard(folder)


def clear_refused(data: Path) -> None:
    """Retry the removals on this volume that failed."""
    with _removing_later:
        for folder in [path for path in tuple(_refused) if path.is_relative_to(data)]:
            clear_away(folder)


def clear_place(folder: Path) -> None:
    """Remove the folder, because a new one will be made in its place; raise OSError when that fails."""
    with _removing_later:
        files.remove_tree(folder)
        _refused.discard(folder)


@contextlib.contextmanager
def cleared_on_error(*folders: Path) -> Iterator[None]:
    """Remove folders when the block ends with an exception of any kind."""
    try:
        yield
    except BaseException:
        for folder in folders:
            clear_away(folder)
        raise
