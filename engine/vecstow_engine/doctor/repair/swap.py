"""The damaged collection to `.quarantine/`, the one rebuilt to its place.

`storage.staging` draws the folder of evidence. A crash leaves the damaged collection in its place; or,
between the two renames, neither, and the next start of an engine or of a repair does the second one; or the
repaired one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from vecstow_engine.doctor.repair.plan import Loss, RepairPlan
from vecstow_engine.model.errors import Conflict, DamagedFile, NewerFormat
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import Layout, timestamp
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest
from vecstow_engine.storage.staging import (
    LOST,
    REPORT,
    clear_away,
    cleared_on_error,
    unknown_between,
    unused_path,
)

_LINES: Final = 1000


def begin_evidence(
    layout: Layout, plan: RepairPlan, losses: Iterable[Loss], uids: tuple[str, str] | None
) -> Path:
    """Make the folder of evidence, with the plan and all losses; returns it.

    `uids`: of the collection before and after, when its log is to be set aside too.
    """
    files.make_folder(layout.quarantine)
    evidence = unused_path(layout.quarantine / f"{plan.collection}-{timestamp()}")
    with cleared_on_error(evidence):
        files.make_folder(evidence)
        _write_losses(evidence / LOST, losses)
        document = plan.document() | {"collection": plan.collection, "uids": uids}
        files.replace_file(evidence / REPORT, [json.dumps(document, indent=2, ensure_ascii=False).encode()])
    return evidence


@contextlib.contextmanager
def without_evidence_of_nothing(evidence: Path, name: str) -> Iterator[None]:
    """Remove the folder of evidence when the block fails before anything was set aside in it."""
    try:
        yield
    except BaseException:
        if not (evidence / name).exists():
            clear_away(evidence)
        raise


def take_place(layout: Layout, staging: Path, evidence: Path, observed: Manifest | None) -> None:
    """Exchange the folders. Raises Conflict when the collection was dropped or declared again meanwhile.

    Raises OutcomeUnknown when the damaged one is set aside, and the repaired one has no place yet.
    """
    name = staging.name
    target = layout.collection(name)
    with manifests_locked(layout):
        _follow(target, staging, observed)
        files.rename(target, evidence / name)
        with unknown_between(name, "repair", "the next start of an engine goes on with it"):
            files.rename(staging, target)


def set_file_aside(layout: Layout, evidence: Path, name: str, file: str, *, keep: bool = False) -> None:
    """Move one file of a collection, or copy it when it is to be replaced."""
    source, target = layout.collection(name) / file, evidence / name / file
    if source.exists():
        files.make_folder(target.parent)
        if keep:
            files.copy_file(source, target)
            files.sync_folder(target.parent)
        else:
            files.rename(source, target)


def _follow(target: Path, staging: Path, observed: Manifest | None) -> None:
    """A manifest that was changed while its data was repaired counts, but for its uid."""
    try:
        found = read_manifest(target)
    except (DamagedFile, NewerFormat):
        return
    repaired = read_manifest(staging)
    assert repaired is not None
    if found is None or found == observed:
        return
    if found.dropped_at is not None or found.shape != repaired.shape:
        raise Conflict(
            f"collection {found.name!r} was dropped or declared again meanwhile", collection=found.name,
            operation="repair",
        )  # fmt: skip
    write_manifest(staging, dataclasses.replace(found, collection_uid=repaired.collection_uid))


def refuse_changed(folder: Path, observed: Manifest | None) -> None:
    """Raise Conflict when the manifest was written since it was observed; the caller holds its lock.

    Raises NewerFormat when that was a later release.
    """
    try:
        found = read_manifest(folder)
    except DamagedFile:
        found = None
    if found != observed:
        raise Conflict(
            f"the manifest of collection {folder.name!r} was changed meanwhile", collection=folder.name,
            operation="repair", hint="call again",
        )  # fmt: skip


def _write_losses(path: Path, losses: Iterable[Loss]) -> None:
    lines = (json.dumps(loss.document(), ensure_ascii=False).encode() + b"\n" for loss in losses)
    with files.new_file(path) as fd:
        offset = 0
        while block := list(islice(lines, _LINES)):
            offset += files.write_at(fd, offset, block)
