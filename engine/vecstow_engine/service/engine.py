"""The engine: what api and cli call. It owns the threads, and hands each call to whoever knows.

Blocking methods are called in worker threads, the async ones on the event loop. Names are checked by the
callers; what a method raises comes from `model.errors`.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any, Final

import structlog

from vecstow_engine.doctor.check import check_folder
from vecstow_engine.model.batch import Hit, Point, PointBatch, SearchQuery
from vecstow_engine.model.errors import Busy, DiskFull, Quarantined, Recovering, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType
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
from vecstow_engine.storage.leftovers import clear_refused
from vecstow_engine.storage.log.effects import Delete, Upsert
from vecstow_engine.storage.points.writer import limit_caches
from vecstow_engine.storage.volume import Volume

NOT_READY: Final = (State.RECOVERING, State.READ_ONLY)
FINDINGS_SECONDS_MAX: Final = 60.0
"""A sidecar reports every few seconds; one that has not for so long may have found more since."""
PURGE_SECONDS: Final = 60.0

log = structlog.stdlib.get_logger(__name__)


class Engine:
    """One volume, served. `start` once, `stop` once."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidInput when the memory limit is none, or too small."""
        self.memory_plan = plan_for(settings.memory_limit)
        self.requests = RequestMemory(self.memory_plan.request_bytes)
        self.accounts = Accounts(self.memory_plan)
        self.settings = settings = fitted(settings, self.memory_plan)
        self.layout = Layout(settings.data.absolute())
        self.gate = Gate(lambda: self.leaving)
        self.registry = Registry(self.layout)
        self.ready = False
        """The volume is discovered; each collection has a state of its own."""
        self.leaving = False
        """It ends soon: whoever has another engine to ask should ask that."""
        self.findings: dict[str, Any] = {}
        """What the sidecar reported last."""
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
        """Lock the volume, discover, and recover in the background. Raises VolumeRefused."""
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
        """Take no more writes, finish what is under way, checkpoint, snapshot, give the volume free."""
        if self.volume is None:
            return
        with contextlib.ExitStack() as steps:  # last in, first out; a step that fails keeps no other from it
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
        """False when a thread has ended that nothing but a new process brings back."""
        parts = (self._committer, self._indexer, self._upkeep) if self.ready else ()
        return all(part.is_alive for part in parts)

    @property
    def all_ready(self) -> bool:
        """No collection is recovering or read-only."""
        return self.ready and not self.not_ready()

    def not_ready(self) -> dict[str, str]:
        """Name and state of the collections that keep `all_ready` false."""
        found = self.registry.collections()
        return {c.name: state.value for c in found if (state := c.state) in NOT_READY}

    # Collections ------------------------------------------------------------------------------------------

    def collection(self, name: str) -> Collection:
        """The collection of that name; raises NotFound, or Recovering before the volume is discovered."""
        if not self.ready:
            raise Recovering("the volume is being discovered", retry_after_seconds=1)
        return self.registry.get(name)

    def collection_names(self) -> list[str]:
        """The names of all collections, sorted."""
        return sorted(c.name for c in self.registry.collections())

    def create(self, manifest: Manifest, *, exist_ok: bool = False) -> bool:
        """Declare a collection, durably. False: it exists with the same shape, and `exist_ok` allows that."""
        return self._catalog.create(manifest, exist_ok=exist_ok)

    def describe(self, name: str) -> dict[str, object]:
        """The manifest and the live facts of one collection."""
        return self.collection(name).describe()

    def stats(self, name: str) -> dict[str, object]:
        """name, vector_count, dimension, index_size, memory_usage (bytes)."""
        return stats.collection_stats(self.collection(name))

    def _bound(self, target: Collection | str) -> Bound:
        """The collection of a request, looked up once: Conflict when another takes its name meanwhile."""
        if not self.ready:
            raise Recovering("the volume is being discovered", retry_after_seconds=1)
        return self.registry.bound(target)

    def drop(self, name: str) -> None:
        """Move a collection to `.deleted/`; its name is free when this returns. Raises Conflict, NotFound."""
        self._catalog.drop(self.collection(name))

    def hard_delete(self, name: str) -> None:
        """Drop a collection and purge it at once."""
        self._catalog.hard_delete(self.collection(name))

    def deleted(self) -> list[dict[str, object]]:
        """Dropped collections that can be restored, newest first; paths relative to the data directory."""
        return [deleted.document(self.layout.data) for deleted in self._catalog.deleted()]

    def cleanup(self, retention_hours: float) -> list[str]:
        """Purge what was dropped at least so long ago; returns the names."""
        return self._catalog.cleanup(retention_hours)

    def restore(self, backup_path: str, new_name: str | None) -> str:
        """Bring back a dropped collection or a backup; returns its name."""
        return self._catalog.restore(backup_path, new_name)

    def import_orphan(
        self, *, orphaned_path: str, collection_name: str, dimension: int,
        distance_metric: DistanceMetric, vector_type: VectorType,
    ) -> None:  # fmt: skip
        """Make a collection of data files that lost their manifest, or that d-vecDB wrote."""
        wanted = Manifest(
            name=collection_name,
            dimension=dimension,
            distance_metric=distance_metric,
            vector_type=vector_type,
        )
        self._catalog.import_orphan(orphaned_path, wanted)

    def remarks_on(self, name: str) -> str | None:
        """Return what a collection lacks that was made or copied just now; None when it lacks nothing."""
        collection = self.registry.find(name)
        return collection.reason if collection is not None else None

    def backup(self, name: str) -> str:
        """Copy one collection to `.backups/`; returns the path, relative to the data directory."""
        with self._bound(name) as collection, collection.upkeep, self.gate.interruptible("backup"):
            collection.readable()  # the last holder of the lock may have moved the folder
            refuse_if_gone(collection)
            return str(make_backup(self.layout, collection.manifest).relative_to(self.layout.data))

    def compact(self, name: str) -> dict[str, object]:
        """Give back the space of deleted points: rows move into free slots, files are cut."""
        before = after = 0
        with self._bound(name) as collection:
            collection.writable()
            with self.gate.required("compact"), collection.upkeep, self.gate.interruptible("compact"):
                collection.writable()  # whoever had the lock may have moved its folder away
                if collection.store is not None:
                    before, after = self._upkeep.compact(collection)
                    self._indexer.notify(collection)
        return {
            "bytes_before": before,
            "bytes_after": after,
            "progress": collection.describe()["progress"],
        }

    def check(self, name: str, *, recall: bool = False) -> dict[str, object]:
        """Verify every file and row of one collection, what waited for a checkpoint included.

        With `recall`, measure the self-recall too. Writes go on meanwhile. Raises Recovering or NotFound.
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
                    with contextlib.suppress(StorageError, Quarantined):  # the report has it
                        collection.store.view.verify()
        if recall and collection.serves():
            report.collections.setdefault(name, {})["recall"] = self_recall(collection)
        return report.document()

    def repair(self, name: str, *, dry_run: bool = False) -> dict[str, object]:
        """Set the damage of one collection aside and make it anew of what proves itself; the others serve.

        With `dry_run` only the plan is made. Raises as `Repairer.repair`.
        """
        if not self.ready:
            raise Recovering("the volume is being discovered", retry_after_seconds=1)
        return self._repairer.repair(name, dry_run=dry_run).document()

    def hold(self, seconds: float) -> str:
        """Change nothing but logs for so long; returns the end, RFC 3339.

        Raises Recovering while a collection is opened, which changes its files and its log's; Busy.
        """
        return self._hold.begin(seconds)

    def release_hold(self) -> None:
        """End the hold."""
        self._hold.end()

    # Points -----------------------------------------------------------------------------------------------

    # A `target` is a Collection, to which all steps of a request stay bound, or the name of one. What was
    # checked for another incarnation raises Conflict; so does a collection that is replaced meanwhile.

    async def upsert(self, target: Collection | str, points: PointBatch) -> list[str]:
        """Write points, all or nothing; durable and visible when this returns. Returns the ids."""
        with self._bound(target) as collection:
            collection.refuse_misfit(points.manifest)
            collection.writable()
            if points.ids:
                effect = Upsert(points.ids, points.rows, points.payloads, points.all_new)
                await self._committer.write(collection, effect)
        return points.ids

    async def delete_points(self, target: Collection | str, ids: list[str]) -> list[bool]:
        """Delete points; whether each was there."""
        with self._bound(target) as collection:
            collection.writable()
            if not ids or collection.store is None:
                return [False] * len(ids)
            return (await self._committer.write(collection, Delete(ids))).existed

    async def get_points(self, target: Collection | str, ids: list[str]) -> list[Point | None]:
        """The points of these ids, None where there is none."""
        with self._bound(target) as collection:
            return await self._searcher.run(get_many, collection, ids)

    async def search(self, target: Collection | str, query: SearchQuery) -> list[Hit]:
        """The nearest points, nearest first."""
        with self._bound(target) as collection:
            collection.refuse_misfit(query.manifest)
            collection.readable()
            return await self._searcher.search(collection, query)

    # Figures ----------------------------------------------------------------------------------------------

    def server_stats(self) -> dict[str, object]:
        """What `GET /stats` says."""
        return stats.server_stats(self.registry.collections(), self.layout, self._started_at)

    def state_document(self) -> dict[str, object]:
        """What `GET /state` says: everything that the manager asks each tick."""
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
        """The sidecar's poke: remember what it found, and look at the manifests now.

        Or soon: while another thread looks, or changes names, nobody waits for it.
        """
        self.findings = findings
        self._refreshed_at = time.monotonic()
        self._rescan()

    # Inside -----------------------------------------------------------------------------------------------

    def _notify(self, collection: Collection) -> None:
        """It may have rows that the graph lacks."""
        self._indexer.notify(collection)

    def _leave_volume(self) -> None:
        volume, self.volume = self.volume, None
        if volume is not None:
            volume.close()

    def _make_room(self) -> bool:
        """Give the reserve up; False when it is spent."""
        return self.volume is not None and self.volume.release_reserve()

    def _rescan_when_due(self) -> None:
        is_due = time.monotonic() - self._rescanned_at > self.settings.storage.rescan_seconds
        if is_due or any(collection.is_lost for collection in self.registry.collections()):
            self._rescan()

    def _clear_leftovers(self) -> None:
        """Remove what a failed copy or repair left and the disk refused to remove; never during a hold."""
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
            self._rescanned_at = -math.inf  # the upkeep thread does it, as soon as it can


def _tell_unclosed(error: Exception) -> None:
    log.error("a file could not be closed", reason=str(error), exc_info=error)
