"""The repair of one collection, or of a whole volume without an engine: observe, decide, act."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from vecstow_engine.doctor.check import Progress
from vecstow_engine.doctor.check.advice import Remedies
from vecstow_engine.doctor.check.collection import is_sound, wanted
from vecstow_engine.doctor.check.findings import no_progress
from vecstow_engine.doctor.repair.observation import Observation, observe
from vecstow_engine.doctor.repair.plan import RepairPlan, make_plan
from vecstow_engine.doctor.repair.staging import (
    begin_evidence,
    build,
    refuse_without_room,
    replace_manifest,
    take_place,
    verify,
)
from vecstow_engine.model.errors import NotFound, StorageError, as_storage_error
from vecstow_engine.model.names import new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import begin_log
from vecstow_engine.storage.discovery import discover
from vecstow_engine.storage.layout import POINTS, ROWS, Layout, rfc3339
from vecstow_engine.storage.staging import clear_away, finish_interrupted, set_log_aside
from vecstow_engine.storage.volume import alone, stopped_volume, unserved

Planned: TypeAlias = Callable[[RepairPlan], None]
"""Gets a plan before anything is done."""


class RepairOutcome(StrEnum):
    """The outcome of a repair."""

    SOUND = "sound"
    """There was nothing to do."""
    PLANNED = "planned"
    """Something is to be done; nothing was."""
    REPAIRED = "repaired"
    IMPOSSIBLE = "impossible"
    """Nothing was changed: what is there is not enough."""


@dataclass(frozen=True, slots=True)
class CollectionRepair:
    """One collection's plan and what came of it."""

    plan: RepairPlan
    outcome: RepairOutcome
    quarantine: str | None = None
    """Where the damage was set aside, relative to the data directory."""

    def document(self) -> dict[str, object]:
        """The outcome and the plan as a JSON-ready mapping."""
        return {"outcome": self.outcome.value, "quarantine": self.quarantine, "plan": self.plan.document()}


@dataclass(slots=True)
class RepairReport:
    """The outcomes of a repair of a volume."""

    collections: dict[str, CollectionRepair] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """The report as a JSON-ready mapping; `open`: whether something is still to be done."""
        left = (RepairOutcome.PLANNED, RepairOutcome.IMPOSSIBLE)
        return {
            "open": any(repair.outcome in left for repair in self.collections.values()),
            "collections": {name: repair.document() for name, repair in self.collections.items()},
        }


def repair_volume(
    data: Path,
    names: Sequence[str] | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
    planned: Planned = lambda plan: None,
) -> RepairReport:
    """Repair the collections of a stopped volume, all or those of these names, one after the other.

    With `dry_run` nothing is written; `planned` gets each plan before it is carried out. Raises
    VolumeRefused while an engine runs, or when `data` is no folder, NotFound for a name that has no folder
    and where there is no collection (both before anything is written), DiskFull before anything of a
    collection was changed, StorageError.
    """
    layout = stopped_volume(data)
    report = RepairReport()
    with _locked(layout, names, dry_run=dry_run):
        if not dry_run:
            finish_interrupted(layout)
        for name in _wanted(layout, names):
            report.collections[name] = repair_collection(
                layout, name, dry_run=dry_run, progress=progress, planned=planned
            )
    return report


def repair_collection(
    layout: Layout,
    name: str,
    *,
    dry_run: bool = False,
    rebuild_reason: str | None = None,
    served: bool = False,
    progress: Progress = no_progress,
    planned: Planned = lambda plan: None,
) -> CollectionRepair:
    """Repair one collection, which no program serves or writes meanwhile.

    `rebuild_reason`: why it must be written again though its files are sound. `served`: an engine has the
    volume; then only a dry run looks for a backup of what is lost, because clients wait for the rest.

    Raises DiskFull or StorageError before it changes anything. Raises OutcomeUnknown or an OSError of the
    exchange itself: then the damaged collection is in its place, or the repaired one is, or the repaired one
    comes there with the next start.
    """

    def tell(task: str, done: int, total: int) -> None:
        progress(f"{name}: {task}", done, total)

    with observe(layout, name, tell, rebuild_reason=rebuild_reason) as found:
        remedies = Remedies(layout, name, is_sound, served=served)
        plan = make_plan(found, remedies, seeks=dry_run or not served)
        planned(plan)
        if plan.impossible is not None:
            return CollectionRepair(plan, RepairOutcome.IMPOSSIBLE)
        if not plan.needed:
            return CollectionRepair(plan, RepairOutcome.SOUND)
        if dry_run:
            return CollectionRepair(plan, RepairOutcome.PLANNED)
        evidence = _act(layout, found, plan, tell)
    return CollectionRepair(plan, RepairOutcome.REPAIRED, os.path.relpath(evidence, layout.data))


def _act(layout: Layout, found: Observation, plan: RepairPlan, progress: Progress) -> Path:
    """Replace the manifest; or build and verify the collection next to the damaged one, and exchange them.

    Returns the folder of evidence.
    """
    assert found.manifest is not None
    manifest, salvage = replace(found.manifest, updated_at=rfc3339()), found.salvage
    aside: Path | None = None
    if salvage is None:
        aside = begin_evidence(layout, plan)
        replace_manifest(layout, aside, found.claims.manifest, manifest)
        return aside
    uid, old_uid = new_collection_uid(), salvage.identity.uid
    manifest = replace(manifest, collection_uid=uid)
    total = plan.kept + plan.restored
    refuse_without_room(layout, manifest.name, salvage, total)
    staging = layout.staging / manifest.name
    try:
        with _as_storage_error(manifest.name):
            build(layout, staging, manifest, salvage, total, progress)
            verify(staging, manifest, progress)
        aside = begin_evidence(layout, plan, salvage.losses(), (old_uid, uid) if found.owns_log else None)
        begin_log(layout, manifest, salvage.applied)
        take_place(layout, staging, aside, found.claims.manifest)
    except BaseException:
        if aside is not None and not (aside / manifest.name).exists():
            clear_away(aside)
        # A start would give the new folder the place of a collection that was dropped since.
        if staging.is_dir() and layout.collection(manifest.name).is_dir():
            clear_away(staging)
            clear_away(layout.log(uid))
        raise
    if found.owns_log:
        set_log_aside(layout, aside, old_uid)
    return aside


@contextmanager
def _as_storage_error(name: str) -> Iterator[None]:
    """Turn errors about files that no reader relies on yet, which are removed, into StorageError."""
    try:
        yield
    except files.SyncFailed as error:
        message = f"repair of {name} failed: {error}"
        raise StorageError(message, collection=name, operation="repair") from error
    except OSError as error:
        raise as_storage_error(error, f"repairing {name}") from error


@contextmanager
def _locked(layout: Layout, names: Sequence[str] | None, *, dry_run: bool) -> Iterator[None]:
    """Lock the volume as its one engine, which takes no room for itself; a dry run leaves no trace."""
    lacks = "" if names else "NAME"  # An engine repairs one collection at a time.
    with unserved(layout, lacks=lacks):
        if dry_run:
            yield
            return
        if not layout.staging.is_dir():  # What a crash cut may be the only collection.
            _wanted(layout, names)
    with alone(layout, lacks=lacks):
        yield


def _wanted(layout: Layout, names: Sequence[str] | None) -> list[str]:
    folders = discover(layout)
    # A folder without a manifest and without data files is no collection.
    data = (layout.collection(folder.name) / file for folder in folders for file in (ROWS, POINTS))
    if names is None and all(folder.bare for folder in folders) and not any(p.exists() for p in data):
        hint = "--data names the directory that an engine uses"
        raise NotFound(f"no collections in {layout.data}", operation="repair", hint=hint)
    try:
        return [folder.name for folder in wanted(layout, folders, names)]
    except NotFound as error:
        if (layout.staging / str(error.collection)).is_dir():
            error.hint = "a crash cut its repair or import: without --dry-run it is finished first"
        raise
