"""The engine: the facade that api and cli call, which owns the threads and passes each call to a module.

Callers use worker threads for blocking methods and the event loop for async ones, and check names
beforehand. Methods raise errors of `model.errors`.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any, Final

import structlog

from vecstow_engine.doctor.check import check_folder
from vecstow_engine.model.errors import Busy, DiskFull, Quarantined, Recovering, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.points import Hit, Point, PointBatch, SearchQuery
from vecstow_engine.service import stats
from vecstow_engine.service.attempts import Attempts
from vecstow_engine.service.catalog import Catalog
from vecstow_engine.service.collection import Collection, State
from vecstow_engine.service.committer import Committer
from vecstow_engine.service.hold import Hold
from vecstow_engine.service.hold_gate import Gate
from vecstow_engine.service.indexer import Indexer
from vecstow_engine.service.loader import Loader
from vecstow_engine.service.lost_files import refuse_if_gone
from vecstow_engine.service.manifest_watcher import ManifestWatcher
from vecstow_engine.service.memory_accounts import Accounts
from vecstow_engine.service.memory_plan import fitted, plan_for
from vecstow_engine.service.opener import Opener, open_volume
from vecstow_engine.service.rebuilds import Rebuilds
from vecstow_engine.service.recall import self_recall
from vecstow_engine.service.registry import Bound, Registry
from vecstow_engine.service.repairer import Repairer
from vecstow_engine.service.request_memory import RequestMemory
from vecstow_engine.service.searcher import Searcher, get_many
from vecstow_engine.service.settings import Settings
from vecstow_engine.service.upkeep import Upkeep
from vecstow_engine.storage.backup import make_backup
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.log.segment import Delete, Upsert
from vecstow_engine.storage.points.writer import limit_caches
from vecstow_engine.storage.staging import clear_refused
from vecstow_engine.storage.volume import Volume

NOT_READY: Final = (State.RECOVERING, State.READ_ONLY)
FINDINGS_SECONDS_MAX: Final = 60.0
"""The age at which findings are stale. A sidecar reports every few seconds."""
PURGE_SECONDS: Final = 60.0

log = structlog.stdlib.get_logger(__name__)


class Engine:
    """One served volume. Call `start` once and `stop` once."""

    def __init__(self, settings: Settings) -> None:
        """Divide the memory limit; raise InvalidInput when it is not a size, or too small."""
        self.memory_plan = plan_for(settings.memory_limit)
        self.requests = RequestMemory(self.memory_plan.request_bytes)
        self.accounts = Accounts(self.memory_plan)
        self.settings = settings = fitted(settings, self.memory_plan)
        self.layout = Layout(settings.data.absolute())
        self.gate = Gate(lambda: self.leaving)
        self.registry = Registry(self.layout)
        self.ready = False
        """Whether the volume is discovered; each collection has its own state."""
        self.leaving = False
        """Whether the engine stops soon: clients that have another engine should use that one."""
        self.findings: dict[str, Any] = {}
        """The last report of the sidecar."""
        self.volume: Volume | None = None
        self._started_at = self._rescanned_at = self._purged_at = self._refreshed_at = time.monotonic()
        self.attempts = Attempts()
        self._handles = HandleCache(settings.storage.handles_max, self._make_room, _tell_unclosed)
        self._rebuilds = Rebuilds(self.accounts, self._notify)
        self._loader = Loader(
            self.layout, self._handles, settings.index, self._make_room, self.attempts, lambda: self.leaving,
            settings.storage.overlay_bytes_max, self.accounts, self._rebuilds,
        )  # fmt: skip
        self._opener = Opener(self.registry, self._loader, self.gate, self._notify)
        self._hold = Hold(self.gate, self.registry, lambda: self.volume, settings.limits.hold_seconds_max)
        self._searcher = Searcher(settings.limits.search_queue_max)
        self._catalog = Catalog(
            self.layout, self.registry, self._loader, self._handles, self.gate,
            settings.import_root, self._notify, self._make_room,
        )  # fmt: skip
        self._repairer = Repairer(
            self.layout, self.registry, self._catalog, self._loader, self.gate,
            self._notify,
        )  # fmt: skip
        self._manifest_watcher = ManifestWatcher(
            self.layout, self.registry, self._catalog, self.gate,
            self.attempts, self._rebuilds,
        )  # fmt: skip

    # Life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Lock the volume, discover its collections, open them in the background. Raises VolumeRefused."""
        self.volume = open_volume(self.layout, self.settings.storage, lambda: self.leaving)
        if self.volume is None:
            return
        limit_caches(self.memory_plan.cache_bytes)
        self._catalog.finish_interrupted_changes()
        collections = self.registry.discover(lambda: self.leaving)
        if self.leaving:
            return
        self._indexer = Indexer(self.settings.index.index_threads, self.attempts, self.accounts)
        self._committer = Committer(
            self.settings, self.volume, self.accounts, self.attempts, self._catalog.create_files_of,
            self._indexer.notify,
        )  # fmt: skip
        self._upkeep = Upkeep(
            self.settings,
            self.volume,
            self.gate,
            self.registry.collections,
            self._indexer,
            self.attempts,
            self.accounts,
            self._rebuilds,
            (
                self._hold.let_drops_if_over,
                self._opener.open_postponed,
                self._rescan_when_due,
                self._purge_when_due,
                self._clear_leftovers,
            ),
        )
        self.ready = True
        self._opener.begin(collections)

    def stop(self) -> None:
        """Take no more writes, finish the work under way, checkpoint, snapshot, and unlock the volume."""
        if self.volume is None:
            return
        with contextlib.ExitStack() as steps:  # last in, first out; the other steps run after one that fails
            steps.callback(self._leave_volume)
            steps.callback(self._handles.close)
            if self.ready:
                self.ready = False
                steps.callback(self.gate.close)
                steps.callback(self._upkeep.finish)
                steps.callback(self._searcher.stop)
                steps.callback(self._indexer.stop)
                steps.callback(self._upkeep.stop)
                steps.callback(self._committer.stop)
                steps.callback(self._opener.stop)

    @property
    def live(self) -> bool:
        """Whether all threads are alive; only a new process restores one that ended."""
        parts = (self._committer, self._indexer, self._upkeep) if self.ready else ()
        return all(part.is_alive for part in parts)

    @property
    def all_ready(self) -> bool:
        """Whether no collection is recovering or read-only."""
        return self.ready and not self.not_ready()

    def not_ready(self) -> dict[str, str]:
        """Return name and state of the collections that keep `all_ready` false."""
        found = self.registry.collections()
        return {c.name: state.value for c in found if (state := c.state) in NOT_READY}

    # Collections ------------------------------------------------------------------------------------------

    def collection(self, name: str) -> Collection:
        """Return a collection; raise NotFound, Quarantined, or Recovering until the volume is discovered."""
        if not self.ready:
            raise Recovering("the volume is being discovered", retry_after_seconds=1)
        return self.registry.get(name)

    def collection_names(self) -> list[str]:
        """Return the names of all collections, sorted."""
        return sorted(c.name for c in self.registry.collections())

    def create(self, manifest: Manifest, *, exist_ok: bool = False) -> bool:
        """Declare a collection durably. Return False if it exists with the same shape and `exist_ok` is true.

        Raises Conflict when the name is taken.
        """
        return self._catalog.create(manifest, exist_ok=exist_ok)

    def describe(self, name: str) -> dict[str, object]:
        """Return the manifest and the live facts of one collection."""
        return self.collection(name).describe()

    def stats(self, name: str) -> dict[str, object]:
        """Return name, vector_count, dimension, index_size and memory_usage (both in bytes)."""
        return stats.collection_stats(self.collection(name))

    def _bound(self, target: Collection | str) -> Bound:
        """Return the collection of a request as a context; Conflict when another takes its name meanwhile."""
        if not self.ready:
            raise Recovering("the volume is being discovered", retry_after_seconds=1)
        return self.registry.bound(target)

    def drop(self, name: str) -> None:
        """Move a collection to `.deleted/`; its name is free afterwards. Raises Conflict, NotFound."""
        self._catalog.drop(self.collection(name))

    def hard_delete(self, name: str) -> None:
        """Drop a collection and purge it at once."""
        self._catalog.hard_delete(self.collection(name))

    def deleted(self) -> list[dict[str, object]]:
        """Return the collections that can be restored, newest first; paths are relative to the volume."""
        return [deleted.document(self.layout.data) for deleted in self._catalog.deleted()]

    def cleanup(self, retention_hours: float) -> list[str]:
        """Purge the collections that were dropped at least `retention_hours` ago; return their names."""
        return self._catalog.cleanup(retention_hours)

    def restore(self, backup_path: str, new_name: str | None) -> str:
        """Restore a dropped collection or a backup; return the collection's name."""
        return self._catalog.restore(backup_path, new_name)

    def import_orphan(
        self, *, orphaned_path: str, collection_name: str, dimension: int,
        distance_metric: DistanceMetric, vector_type: VectorType,
    ) -> None:  # fmt: skip
        """Make a collection from data files without a manifest, or from data files of d-vecDB."""
        wanted = Manifest(
            name=collection_name,
            dimension=dimension,
            distance_metric=distance_metric,
            vector_type=vector_type,
        )
        self._catalog.import_orphan(orphaned_path, wanted)

    def remarks_on(self, name: str) -> str | None:
        """Return what a collection lacks after it was made or copied; None if it is complete or unknown."""
        collection = self.registry.find(name)
        return collection.reason if collection is not None else None

    def backup(self, name: str) -> str:
        """Copy one collection to `.backups/`; return the path, relative to the data directory."""
        with self._bound(name) as collection, collection.upkeep, self.gate.interruptible("backup"):
            collection.readable()  # the previous holder of the lock may have moved the folder
            refuse_if_gone(collection)
            return str(make_backup(self.layout, collection.manifest).relative_to(self.layout.data))

    def compact(self, name: str) -> dict[str, object]:
        """Free the space of deleted points: rows move into free slots, files are truncated.

        Returns bytes_before, bytes_after and progress. Raises Conflict during a hold.
        """
        before = after = 0
        with self._bound(name) as collection:
            collection.writable()
            with self.gate.required("compact"), collection.upkeep, self.gate.interruptible("compact"):
                collection.writable()  # the previous holder of the lock may have moved the folder
                if collection.store is not None:
                    before, after = self._upkeep.compact(collection)
                    self._indexer.notify(collection)
        return {
            "bytes_before": before,
            "bytes_after": after,
            "progress": collection.describe()["progress"],
        }

    def check(self, name: str, *, recall: bool = False) -> dict[str, object]:
        """Verify every file and row of one collection, after a checkpoint of its changes.

        During a hold there is no checkpoint. With `recall`, measure the self-recall too. Writes go on
        meanwhile. Raises Recovering or NotFound.
        """
        if name in self.registry.broken():
            with self.gate.interruptible("check"):
                return check_folder(self.layout, name).document()
        collection = self.collection(name)
        if collection.state is State.RECOVERING:
            collection.readable()
        is_rival = self.registry.is_rival(collection)
        with self.gate.passing() as free, collection.upkeep:
            self.registry.refuse_gone(collection)
            if free and collection.store is not None and collection.broken is None:
                with contextlib.suppress(DiskFull, Busy, StorageError, Quarantined):
                    self._upkeep.checkpoint(collection)
            with self.gate.interruptible("check"):
                report = check_folder(self.layout, name, is_rival=is_rival, serving=True)
                if collection.store is not None:
                    with contextlib.suppress(StorageError, Quarantined):  # the report contains the error
                        collection.store.view.verify()
        if recall and collection.serves():
            report.collections.setdefault(name, {})["recall"] = self_recall(collection)
        return report.document()

    def repair(self, name: str, *, dry_run: bool = False) -> dict[str, object]:
        """Repair one collection while the others serve; with `dry_run` return only the plan.

        The damaged files go to `.quarantine/`, and a new collection is made of everything that passes its
        checks. Raises the errors of `Repairer.repair`.
        """
        if not self.ready:
            raise Recovering("the volume is being discovered", retry_after_seconds=1)
        return self._repairer.repair(name, dry_run=dry_run).document()

    def hold(self, seconds: float) -> str:
        """Begin a hold of so many seconds; return its end, RFC 3339. Raises the errors of `Hold.begin`."""
        return self._hold.begin(seconds)

    def release_hold(self) -> None:
        """End the hold."""
        self._hold.end()

    # Points -----------------------------------------------------------------------------------------------

    # A `target` is a collection or its name. A request stays bound to one incarnation: the methods raise
    # Conflict for a batch or query checked against another one, and when the collection is replaced.

    async def upsert(self, target: Collection | str, points: PointBatch) -> list[str]:
        """Write points, all or none; return their ids when the points are durable and visible."""
        with self._bound(target) as collection:
            collection.refuse_misfit(points.manifest)
            collection.writable()
            if points.ids:
                effect = Upsert(points.ids, points.rows, points.payloads, points.all_new)
                await self._committer.write(collection, effect)
        return points.ids

    async def delete_points(self, target: Collection | str, ids: list[str]) -> list[bool]:
        """Delete points; return for each id whether its point existed."""
        with self._bound(target) as collection:
            collection.writable()
            if not ids or collection.store is None:
                return [False] * len(ids)
            return (await self._committer.write(collection, Delete(ids))).existed

    async def get_points(self, target: Collection | str, ids: list[str]) -> list[Point | None]:
        """Return the points of these ids, None for an unknown id."""
        with self._bound(target) as collection:
            return await self._searcher.run(get_many, collection, ids)

    async def search(self, target: Collection | str, query: SearchQuery) -> list[Hit]:
        """Return the nearest points, nearest first."""
        with self._bound(target) as collection:
            collection.refuse_misfit(query.manifest)
            collection.readable()
            return await self._searcher.search(collection, query)

    # Figures ----------------------------------------------------------------------------------------------

    def server_stats(self) -> dict[str, object]:
        """Return the body of `GET /stats`."""
        return stats.server_stats(self.registry.collections(), self.layout, self._started_at)

    def state_document(self) -> dict[str, object]:
        """Return the body of `GET /state`: everything that the manager reads."""
        return {
            "engine": self.settings.name,
            "pod_uid": self.settings.pod_uid,
            "volume_id": self.volume.id if self.volume is not None else "",
            "held": self.gate.remaining_seconds > 0,
            "failure": self._catalog.failure,
            "memory": self.accounts.document(),
            "volume_full": self.volume is not None and self.volume.full,
            "collections": stats.state_rows(self.registry),
            "findings": self.findings,
            "findings_stale": time.monotonic() - self._refreshed_at > FINDINGS_SECONDS_MAX,
        }

    def refresh(self, findings: dict[str, Any]) -> None:
        """Store the findings of the sidecar, and follow changed manifests now.

        While another thread does so or changes names, the upkeep thread follows later.
        """
        self.findings = findings
        self._refreshed_at = time.monotonic()
        self._rescan()

    # Inside -----------------------------------------------------------------------------------------------

    def _notify(self, collection: Collection) -> None:
        """Wake the indexer: the collection may have rows that its graph lacks."""
        self._indexer.notify(collection)

    def _leave_volume(self) -> None:
        volume, self.volume = self.volume, None
        if volume is not None:
            volume.close()

    def _make_room(self) -> bool:
        """Give up the reserve; return False when the reserve is spent."""
        return self.volume is not None and self.volume.release_reserve()

    def _rescan_when_due(self) -> None:
        is_due = time.monotonic() - self._rescanned_at > self.settings.storage.rescan_seconds
        if is_due or any(collection.is_lost for collection in self.registry.collections()):
            self._rescan()

    def _clear_leftovers(self) -> None:
        """Remove leftovers of failed copies and repairs that an error kept on the disk; not during a hold."""
        if self.gate.remaining_seconds == 0:
            clear_refused(self.layout.data)

    def _purge_when_due(self) -> None:
        now, retention = time.monotonic(), self.settings.storage.retention_hours
        if now - self._purged_at <= PURGE_SECONDS or self.gate.remaining_seconds > 0 or retention <= 0:
            return
        with self.registry.changing_now() as free:
            if free:
                self._purged_at = now
                self._catalog.cleanup(retention)

    def _rescan(self) -> None:
        self._rescanned_at = time.monotonic()
        if not self._manifest_watcher.rescan():
            self._rescanned_at = -math.inf  # the upkeep thread rescans as soon as it can


def _tell_unclosed(error: Exception) -> None:
    log.error("a file could not be closed", reason=str(error), exc_info=error)
