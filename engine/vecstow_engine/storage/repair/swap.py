"""The damaged collection to `.quarantine/`, the one made anew to its place.

    .quarantine/<collection>-<UTC>/<collection>/    the folder as it was found
                                   wal/<uid>/       its log
                                   lost.jsonl       what could not be saved, line by line
                                   repair.json      the plan, and the uids before and after

The folder of evidence has the form of a data directory, so `vecstow check --data` reads it. A crash leaves
the damaged collection in its place; or, between the two renames, neither, and the next start of an engine or
of a repair does the second one; or the repaired one. The old log goes last: nobody reads it any more, since
the repaired collection has a uid of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import Conflict, DamagedFile, NewerFormat
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.importing import finish_imports, unknown_between
from vecstow_engine.storage.layout import Layout, timestamp
from vecstow_engine.storage.leftovers import clear_away, cleared_on_error
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest
from vecstow_engine.storage.repair.report import Loss, RepairPlan

LOST: Final = "lost.jsonl"
REPORT: Final = "repair.json"
_LINES: Final = 1000


def begin_evidence(
    layout: Layout, plan: RepairPlan, losses: Iterable[Loss], uids: tuple[str, str] | None
) -> Path:
    """Make the folder of evidence, with the plan and all losses; returns it.

    `uids`: of the collection before and after, when its log is to be set aside too.
    """
    files.make_folder(layout.quarantine)
    evidence = _unused(layout.quarantine / f"{plan.collection}-{timestamp()}")
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
    """Exchange the folders. Raises Conflict when the collection was dropped or declared anew meanwhile.

    Raises OutcomeUnknown when the damaged one is set aside, and the repaired one has no place yet.
    """
    name = staging.name
    target = layout.collection(name)
    with manifests_locked(layout):
        _follow(target, staging, observed)
        files.rename(target, evidence / name)
        with unknown_between(name, "repair", "the next start of an engine goes on with it"):
            files.rename(staging, target)


def set_log_aside(layout: Layout, evidence: Path, uid: str) -> None:
    """Move a log that no collection has any more; nothing happens when it is not there."""
    if layout.log(uid).is_dir():
        files.make_folder(evidence / layout.logs.name)
        files.rename(layout.log(uid), _unused(evidence / layout.logs.name / uid))


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


def finish_repairs(layout: Layout) -> list[str]:
    """Bring what a crash cut to its end; returns the names of the collections that had no place.

    Of the two logs the one is set aside that is not that of the collection in its place.
    """
    finished = [manifest.name for manifest in finish_imports(layout)]
    for report in sorted(layout.quarantine.glob(f"*/{REPORT}")):
        name, uids = _read_report(report)
        in_place = _uid_in_place(layout, name)
        if uids is not None and in_place in uids and uids[0] != uids[1]:
            before, after = uids
            set_log_aside(layout, report.parent, before if in_place == after else after)
    return finished


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
            f"collection {found.name!r} was dropped or declared anew meanwhile", collection=found.name,
            operation="repair",
        )  # fmt: skip
    write_manifest(staging, dataclasses.replace(found, collection_uid=repaired.collection_uid))


def refuse_changed(folder: Path, observed: Manifest | None) -> None:
    """Raise Conflict when somebody wrote the manifest since it was observed; the caller holds its lock.

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


def _unused(path: Path) -> Path:
    """The path, with a number behind it when the name is taken."""
    others = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(candidate for candidate in chain([path], others) if not candidate.exists())


def _write_losses(path: Path, losses: Iterable[Loss]) -> None:
    lines = (json.dumps(loss.document(), ensure_ascii=False).encode() + b"\n" for loss in losses)
    with files.new_file(path) as fd:
        offset = 0
        while block := list(islice(lines, _LINES)):
            offset += files.write_at(fd, offset, block)


def _read_report(path: Path) -> tuple[str, tuple[str, str] | None]:
    """The collection, and its uids before and after; None for those when no log is to be set aside."""
    try:
        document = json.loads(path.read_bytes())
        before, after = document["uids"]
        return document["collection"], (before, after)
    except (OSError, ValueError, KeyError, TypeError):
        return "", None


def _uid_in_place(layout: Layout, name: str) -> str | None:
    try:
        manifest = read_manifest(layout.collection(name))
    except (DamagedFile, NewerFormat):
        return None
    return manifest.collection_uid if manifest is not None else None
