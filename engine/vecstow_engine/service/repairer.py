"""The repair of one collection while the others serve: take it out of service, repair, open again."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from vecstow_engine.doctor.repair import CollectionRepair, Progress, RepairOutcome, repair_collection
from vecstow_engine.model.errors import NotFound, OutcomeUnknown, Recovering, StorageError, VecstowError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.service.catalog import Catalog
from vecstow_engine.service.collection import Collection, quarantined
from vecstow_engine.service.hold import Gate
from vecstow_engine.service.lifecycle import InQuarantine, Retired, State
from vecstow_engine.service.loader import PROGRESS_SECONDS, Loader
from vecstow_engine.service.registry import Registry
from vecstow_engine.storage.files import check_interruption
from vecstow_engine.storage.layout import POINTS, Layout
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.points.reader import table_at_rest
from vecstow_engine.storage.points.table_repair import Fault, find_faults

_SERVING = (State.READY, State.DEGRADED, State.READ_ONLY)

log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False)
class Repairer:
    """The repairs of this engine. Methods may be called from any thread; a collection has one at a time."""

    _layout: Layout
    _registry: Registry
    _catalog: Catalog
    _loader: Loader
    _gate: Gate
    _unknown: set[str] = field(default_factory=set, init=False)
    """Names whose repair had an unknown outcome: only the next start sees which folder is in place."""

    def repair(self, name: str, *, dry_run: bool) -> CollectionRepair:
        """Plan the repair of one collection, and unless `dry_run` carry it out.

        Raises NotFound, Recovering while the collection is opened or repaired, Conflict during a hold,
        ReadOnly after an unknown outcome, and DiskFull before anything was changed. After StorageError or
        OutcomeUnknown, the collection's state gives the reason.
        """
        if name in self._unknown:
            self._catalog.changes.refuse_after_failure("repair", name)
        collection = self._find(name)
        if dry_run:
            if collection is None:
                return repair_collection(self._layout, name, dry_run=True, served=True)
            return self._plan(collection)
        with self._gate.required("repair"):
            if collection is None:
                return self._repair_undeclared(name)
            if collection.state in _SERVING and (sound := self._unneeded(collection)) is not None:
                return sound
            return self._repair(collection)

    def _find(self, name: str) -> Collection | None:
        """Return the collection; None for a folder whose manifest is lost or broken."""
        collection = self._registry.find(name)
        if collection is not None:
            if collection.state is State.RECOVERING:
                collection.readable()
            return collection
        if not self._layout.collection(name).is_dir():
            raise NotFound(f"collection {name!r} does not exist", collection=name)
        return None

    def _unneeded(self, collection: Collection) -> CollectionRepair | None:
        """Return the report for a collection that needs no repair and goes on serving; None if it does."""
        planned = self._plan(collection)
        return None if planned.outcome is RepairOutcome.PLANNED else planned

    def _plan(self, collection: Collection) -> CollectionRepair:
        """Plan from the files of a collection that may serve; the upkeep lock keeps checkpoints away."""
        with collection.upkeep_lock:
            self._registry.refuse_gone(collection)
            rebuild_reason = _why_rebuild(self._layout, collection, collection.broken)
            return repair_collection(
                self._layout, collection.name, dry_run=True, rebuild_reason=rebuild_reason, served=True
            )

    def _repair(self, collection: Collection) -> CollectionRepair:
        name = collection.name
        self._catalog.changes.refuse_after_failure("repair", name)
        stand_in, broken = self._take_out(collection)
        try:
            rebuild_reason = _why_rebuild(self._layout, collection, broken)
            done = self._carry_out(name, stand_in, rebuild_reason)
        except BaseException as error:
            self._put_back(stand_in, error, broken)
            raise
        self._reopen(stand_in)
        return done

    def _carry_out(
        self, name: str, stand_in: Collection | None = None, rebuild_reason: str | None = None
    ) -> CollectionRepair:
        progress = _progress_of(stand_in)
        try:
            with self._catalog.changes.names("repair", name), self._gate.interruptible("repair"):
                done = repair_collection(
                    self._layout, name, rebuild_reason=rebuild_reason, served=True, progress=progress
                )
        except OutcomeUnknown:
            self._unknown.add(name)
            raise
        log.warning(
            "collection repaired",
            collection=name,
            outcome=done.outcome.value,
            kept=done.plan.kept,
            restored=done.plan.restored,
            lost=done.plan.lost,
            lost_records=done.plan.lost_records,
            quarantine=done.quarantine,
        )
        return done

    def _take_out(self, collection: Collection) -> tuple[Collection, str | None]:
        """Take a collection out of service, and put a stand-in in its place that answers Recovering.

        Returns the stand-in, and why the collection took no writes; None when it took them.
        """
        name = collection.name
        away = Recovering(f"collection {name!r} is being repaired", collection=name, retry_after_seconds=5)
        with collection.upkeep_lock, self._registry.changing:
            self._registry.refuse_gone(collection)
            broken = collection.lifecycle.failure
            collection.move_to(Retired(away))
            stand_in = Collection(collection.manifest)
            stand_in.progress = {"task": "repair", "done": 0, "total": 0}
            self._registry.add(stand_in)
            if collection.store is not None:
                broken = collection.store.retire("it is being repaired", away) or broken
        return stand_in, broken

    def _put_back(self, stand_in: Collection, error: BaseException, broken: str | None) -> None:
        """Open the files after a failed repair, or quarantine the stand-in.

        After a failed sync this process must not trust the files, since the page cache may hide a loss.
        """
        log.error("repair failed", collection=stand_in.name, reason=str(error))
        if broken is None and not isinstance(error, OutcomeUnknown) and not self._gate.is_ending:
            self._loader.load(stand_in)
            return
        if broken is not None:
            stand_in.fail(broken)
        why = f"its repair failed: {error}; a restart opens what is there"
        stand_in.move_to(InQuarantine(quarantined(stand_in.name, why)))

    def _reopen(self, stand_in: Collection) -> None:
        manifest = self._readable_manifest(stand_in.name)
        self._loader.load(self._registry.replace(stand_in, manifest or stand_in.manifest))

    def _repair_undeclared(self, name: str) -> CollectionRepair:
        """Repair a folder without a readable manifest; its name is taken until it is a collection."""
        self._registry.take_name(name, "it is being repaired")
        try:
            done = self._carry_out(name)
        except BaseException:
            self._registry.give_name_back(name)
            raise
        self._declare(name)
        return done

    def _declare(self, name: str) -> None:
        with self._registry.changing:
            self._registry.give_name_back(name)
            manifest = self._readable_manifest(name)
            if manifest is not None and manifest.dropped_at is None:
                self._catalog.open_new(manifest)

    def _readable_manifest(self, name: str) -> Manifest | None:
        try:
            return read_manifest(self._layout.collection(name))
        except (VecstowError, OSError):
            return None


def _why_rebuild(layout: Layout, collection: Collection, broken: str | None) -> str | None:
    """Return why a repair must write all files again although they pass their checks; None if it need not.

    Reasons are a failed sync, and a tree or index of points.db that does not lead to the points. A start
    would rebuild that tree, so a check of the files alone finds them sound. `broken`: why the collection took
    no writes before the repair; nothing writes its files meanwhile.
    """
    if broken is not None:
        return f"it takes no writes ({broken}): what the disk has of its files is unknown"
    if collection.store is None:
        return None
    faults: list[Fault] = []
    with suppress(StorageError, OSError), table_at_rest(layout.collection(collection.name) / POINTS) as table:
        faults = find_faults(table)
    return "; ".join(f"{POINTS}: {fault.value}" for fault in faults) or None


def _progress_of(collection: Collection | None) -> Progress:
    """Return a function that shows a repair's progress in the collection and in the log.

    The function raises Busy once the engine stops.
    """
    logged_at = time.monotonic()

    def progress(label: str, done: int, total: int) -> None:
        nonlocal logged_at
        check_interruption()
        name, _, step = label.partition(":")  # `notes: writing rows`
        task = "repair:" + step
        if collection is not None:
            collection.progress = {"task": task, "done": done, "total": total}
        if time.monotonic() - logged_at > PROGRESS_SECONDS:
            logged_at = time.monotonic()
            log.info("repairing", collection=name, task=task, done=done, total=total)

    return progress
