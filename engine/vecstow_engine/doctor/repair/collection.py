"""One collection: observe, decide, act."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vecstow_engine.doctor.repair.observation import Observation, observe
from vecstow_engine.doctor.repair.plan import (
    CollectionRepair,
    Progress,
    RepairOutcome,
    RepairPlan,
    no_progress,
)
from vecstow_engine.doctor.repair.planner import Elsewhere, all_losses, make_plan
from vecstow_engine.doctor.repair.salvage import Salvage
from vecstow_engine.doctor.repair.staging import build, refuse_without_room, verify
from vecstow_engine.doctor.repair.swap import (
    begin_evidence,
    refuse_changed,
    set_file_aside,
    take_place,
    without_evidence_of_nothing,
)
from vecstow_engine.model.errors import StorageError, as_storage_error
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import begin_log
from vecstow_engine.storage.layout import INDEX, MANIFEST, Layout, rfc3339
from vecstow_engine.storage.manifests import manifests_locked, write_manifest
from vecstow_engine.storage.staging import clear_away, set_log_aside

Planned = Callable[[RepairPlan], None]
"""Hears of a plan before anything is done."""


def nobody(plan: RepairPlan) -> None:
    """Show the plan nowhere."""


def repair_collection(
    layout: Layout,
    name: str,
    *,
    dry_run: bool = False,
    rebuild_reason: str | None = None,
    served: bool = False,
    progress: Progress = no_progress,
    planned: Planned = nobody,
) -> CollectionRepair:
    """Repair one collection, which no program serves or writes meanwhile.

    `rebuild_reason`: why it must be written again though its files are sound. `served`: an engine has the
    volume; then only a dry run looks for a backup of what is lost, because clients wait for the rest.

    Raises DiskFull or StorageError before it changes anything. Raises OutcomeUnknown or an OSError of the
    exchange itself: then the damaged collection is in its place, or the repaired one is, or the repaired one
    comes there with the next start.
    """
    with observe(layout, name, progress, rebuild_reason=rebuild_reason) as found:
        plan = make_plan(found, Elsewhere(layout, name, served=served, seeks=dry_run or not served))
        planned(plan)
        if plan.impossible is not None:
            return CollectionRepair(plan, RepairOutcome.IMPOSSIBLE)
        if not plan.needed:
            return CollectionRepair(plan, RepairOutcome.SOUND)
        if dry_run:
            return CollectionRepair(plan, RepairOutcome.PLANNED)
        if found.salvage is not None:
            refuse_without_room(layout, name, found.salvage, plan.kept + plan.restored)
        quarantine = _act(layout, found, plan, progress)
    return CollectionRepair(plan, RepairOutcome.REPAIRED, quarantine)


def _act(layout: Layout, found: Observation, plan: RepairPlan, progress: Progress) -> str:
    if found.salvage is None:
        return _set_files_aside(layout, found, plan)
    return _make_anew(layout, found, found.salvage, plan, progress)


def _set_files_aside(layout: Layout, found: Observation, plan: RepairPlan) -> str:
    """Repair what needs no other file: the manifest, the index."""
    evidence = begin_evidence(layout, plan, [], None)
    wanted, claims = found.identification.manifest, found.claims
    if wanted is not None and claims is not None and claims.manifest != wanted:
        with manifests_locked(layout):
            refuse_changed(layout.collection(found.name), claims.manifest)
            set_file_aside(layout, evidence, found.name, MANIFEST, keep=True)
            write_manifest(layout.collection(found.name), dataclasses.replace(wanted, updated_at=rfc3339()))
    if found.index_fault is not None:
        set_file_aside(layout, evidence, found.name, INDEX)
    return os.path.relpath(evidence, layout.data)


def _make_anew(
    layout: Layout, found: Observation, salvage: Salvage, plan: RepairPlan, progress: Progress
) -> str:
    assert found.identification.manifest is not None and found.claims is not None
    manifest = dataclasses.replace(
        found.identification.manifest, collection_uid=new_collection_uid(), updated_at=rfc3339()
    )
    staging = layout.staging / found.name
    with _undone_on_error(layout, staging, manifest):
        with _as_storage_error(found.name):
            build(layout, staging, manifest, salvage, plan, progress)
            verify(staging, manifest, progress)
        evidence = begin_evidence(layout, plan, all_losses(salvage), _uids(found, manifest))
        with without_evidence_of_nothing(evidence, found.name):
            begin_log(layout, manifest, salvage.applied)
            take_place(layout, staging, evidence, found.claims.manifest)
    if found.owns_log:
        set_log_aside(layout, evidence, salvage.identity.uid)
    return os.path.relpath(evidence, layout.data)


def _uids(found: Observation, manifest: Manifest) -> tuple[str, str] | None:
    """The incarnation whose log is left behind, and the one that comes instead; None: no log is."""
    assert found.salvage is not None and manifest.collection_uid is not None
    return (found.salvage.identity.uid, manifest.collection_uid) if found.owns_log else None


@contextmanager
def _undone_on_error(layout: Layout, staging: Path, manifest: Manifest) -> Iterator[None]:
    """Throw the new folder away after an error, while the damaged folder has its place.

    A start would give it the place of a collection that was dropped since.
    """
    try:
        yield
    except BaseException:
        if staging.is_dir() and layout.collection(manifest.name).is_dir():
            clear_away(staging)
            clear_away(layout.log(str(manifest.collection_uid)))
        raise


@contextmanager
def _as_storage_error(name: str) -> Iterator[None]:
    """Raise StorageError for a failed sync: the files are not in use yet, and are thrown away."""
    try:
        yield
    except files.SyncFailed as error:
        message = f"repair of {name} failed: {error}"
        raise StorageError(message, collection=name, operation="repair") from error
    except OSError as error:
        raise as_storage_error(error, f"repairing {name}") from error
