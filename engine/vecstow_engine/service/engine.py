"""The engine: the facade that api and cli call, which owns the threads and passes each call to a module.

Callers use worker threads for blocking methods and the event loop for async ones, and check names
beforehand. Methods raise errors of `model.errors`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final

import structlog

from vecstow_engine.doctor.check import check_folder
from vecstow_engine.model.conditions import Condition, requires_point
from vecstow_engine.model.errors import Busy, DiskFull, Quarantined, Recovering, StorageError
from vecstow_engine.model.groups import Group, GroupSearch
from vecstow_engine.model.points import Point, PointBatch
from vecstow_engine.model.queries import Search
from vecstow_engine.model.searches import Hit
from vecstow_engine.service import stats
from vecstow_engine.service.aliases import AliasChanges
from vecstow_engine.service.attempts import Attempts
from vecstow_engine.service.catalog import Catalog
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.committer import Committer
from vecstow_engine.service.declarations import Declarations
from vecstow_engine.service.hold import ChangeGuard, Gate, Hold
from vecstow_engine.service.indexer import Indexer
from vecstow_engine.service.lifecycle import State
from vecstow_engine.service.loader import Loader, open_volume
from vecstow_engine.service.manifest_watcher import ManifestWatcher
from vecstow_engine.service.memory_accounts import Accounts
from vecstow_engine.service.memory_plan import fitted, plan_for
from vecstow_engine.service.payload_indexer import PayloadIndexer
from vecstow_engine.service.registry import Bound, Registry
from vecstow_engine.service.repairer import Repairer
from vecstow_engine.service.request_memory import RequestMemory
from vecstow_engine.service.searcher import Searcher, get_many
from vecstow_engine.service.selections import Selections
from vecstow_engine.service.settings import Settings
from vecstow_engine.service.upkeep import Upkeep
from vecstow_engine.storage.backup import make_backup
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.log.segment import Delete, Upsert
from vecstow_engine.storage.points.writer import limit_caches
from vecstow_engine.storage.volume import Volume

NOT_READY: Final = (State.RECOVERING, State.READ_ONLY)
FINDINGS_SECONDS_MAX: Final = 60.0
"""The age at which findings are stale. A sidecar reports every few seconds."""

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
        self.discovered = False
        """Whether the volume is discovered; each collection has its own state."""
        self.leaving = False
        """Whether the engine stops soon: clients that have another engine should use that one."""
        self.findings: dict[str, Any] = {}
        """The last report of the sidecar."""
        self.volume: Volume | None = None
        self._started_at = self._refreshed_at = time.monotonic()
        self.attempts = Attempts()
        self.hold = Hold(self.gate, self.registry, lambda: self.volume, settings.limits.hold_seconds_max)
        self._handles = HandleCache(settings.storage.handles_max, self._make_room, _log_unclosed)
        self._indexer = Indexer(settings.index.index_threads, self.attempts, self.accounts)
        self._payload_indexer = PayloadIndexer(self.attempts, self.accounts)
        layout, gate, registry, attempts = self.layout, self.gate, self.registry, self.attempts
        make_room, indexer = self._make_room, self._indexer
        self._loader = Loader(
            layout, settings, registry, gate, self._handles, attempts, self.accounts, indexer, make_room
        )
        self._searcher = Searcher(settings.limits.search_queue_max)
        self.selections = Selections(
            self._bound, self._searcher, lambda *effect: self._committer.write(*effect)
        )
        changes = ChangeGuard(gate, registry.changing)
        self.catalog = Catalog(
            layout, registry, self._loader, self._handles, gate, changes, settings, make_room
        )
        self.aliases = AliasChanges(layout, registry, changes, make_room)
        self.declarations = Declarations(layout, registry, gate, changes)
        rescan_seconds = settings.storage.rescan_seconds
        self._repairer = Repairer(layout, registry, self.catalog, self._loader, gate)
        self._manifest_watcher = ManifestWatcher(
            layout, registry, self.catalog, self.aliases, gate, attempts, indexer, rescan_seconds
        )

    def start(self) -> None:
        """Lock the volume, discover its collections, open them in the background. Raises VolumeRefused."""
        self.volume = open_volume(self.layout, self.settings.storage, lambda: self.leaving)
        if self.volume is None:
            return
        limit_caches(self.memory_plan.cache_bytes)
        self.catalog.finish_interrupted_changes()
        collections = self.registry.discover(lambda: self.leaving)
        if self.leaving:
            return
        self.aliases.load()
        self._indexer.start()
        self._payload_indexer.start()
        create_files, notify = self.catalog.create_files_of, self._indexer.notify
        self._committer = Committer(
            self.settings, self.volume, self.accounts, self.attempts, create_files, notify
        )
        self._upkeep = Upkeep(
            self.settings,
            self.volume,
            self.gate,
            self.registry.collections,
            self._indexer,
            self._payload_indexer,
            self.attempts,
            self.accounts,
            (
                self.hold.let_drops_if_over,
                self._loader.open_postponed,
                self._manifest_watcher.rescan_when_due,
                self.aliases.follow_waiting,
                self.catalog.purge_when_due,
                self.catalog.clear_leftovers,
            ),
        )
        self.discovered = True
        self._loader.begin(collections)

    def stop(self) -> None:
        """Take no more writes, finish the work under way, checkpoint, snapshot, and unlock the volume."""
        if self.volume is None:
            return
        with contextlib.ExitStack() as steps:  # last in, first out; the other steps run after one that fails
            steps.callback(self._leave_volume)
            steps.callback(self._handles.close)
            if self.discovered:
                self.discovered = False
                steps.callback(self.gate.close)
                steps.callback(self._upkeep.finish)
                steps.callback(self._searcher.stop)
                steps.callback(self._indexer.stop)
                steps.callback(self._payload_indexer.stop)
                steps.callback(self._upkeep.stop)
                steps.callback(self._committer.stop)
                steps.callback(self._loader.stop)

    @property
    def live(self) -> bool:
        """Whether all threads are alive; only a new process restores one that ended."""
        parts = (
            (self._committer, self._indexer, self._payload_indexer, self._upkeep) if self.discovered else ()
        )
        return all(part.is_alive for part in parts)

    def not_ready(self) -> dict[str, str]:
        """Return name and state of the collections that are recovering or read-only."""
        found = self.registry.collections()
        return {c.name: state.value for c in found if (state := c.state) in NOT_READY}

    def collection(self, name: str) -> Collection:
        """Return a collection; raise NotFound, Quarantined, or Recovering until the volume is discovered."""
        if not self.discovered:
            raise Recovering("the volume is being discovered", retry_after_seconds=1)
        return self.registry.get(name)

    def collection_names(self) -> list[str]:
        """Return the names of all collections, sorted."""
        return sorted(c.name for c in self.registry.collections())

    def describe(self, name: str) -> dict[str, object]:
        """Return the manifest and the live facts of one collection."""
        return stats.description(self.collection(name), self.registry)

    def stats(self, name: str) -> dict[str, object]:
        """Return name, vector_count, dimension, index_size and memory_usage (both in bytes)."""
        return stats.collection_stats(self.collection(name))

    def _bound(self, target: Collection | str) -> Bound:
        """Return the collection of a request as a context; Conflict when another takes its name meanwhile."""
        if not self.discovered:
            raise Recovering("the volume is being discovered", retry_after_seconds=1)
        return Bound(self.registry, self.registry.get(target) if isinstance(target, str) else target)

    def drop(self, name: str) -> None:
        """Move a collection to `.deleted/`; its name is free afterwards. Raises Conflict, NotFound."""
        self.catalog.drop(self.collection(name))

    def hard_delete(self, name: str) -> None:
        """Drop a collection and purge it at once."""
        self.catalog.hard_delete(self.collection(name))

    def remarks_on(self, name: str) -> str | None:
        """Return what a collection lacks after it was made or copied; None if it is complete or unknown."""
        collection = self.registry.find(name)
        return collection.reason if collection is not None else None

    def backup(self, name: str) -> str:
        """Copy one collection to `.backups/`; return the path, relative to the data directory."""
        with self._bound(name) as collection, collection.upkeep_lock, self.gate.interruptible("backup"):
            collection.readable()  # the previous holder of the lock may have moved the folder
            collection.refuse_if_gone()
            return str(make_backup(self.layout, collection.manifest).relative_to(self.layout.data))

    def compact(self, name: str) -> dict[str, object]:
        """Free the space of deleted points: rows move into free slots, files are truncated.

        Returns bytes_before, bytes_after and progress. Raises Conflict during a hold.
        """
        before = after = 0
        with self._bound(name) as collection:
            collection.writable()
            with self.gate.required("compact"), collection.upkeep_lock, self.gate.interruptible("compact"):
                collection.writable()  # the previous holder of the lock may have moved the folder
                if collection.store is not None:
                    before, after = self._upkeep.compact(collection)
                    self._indexer.notify(collection)
        return {"bytes_before": before, "bytes_after": after, "progress": stats.progress(collection)}

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
        with self.gate.passing() as free, collection.upkeep_lock:
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
            report.collections.setdefault(name, {})["recall"] = stats.self_recall(collection)
        return report.document()

    def repair(self, name: str, *, dry_run: bool = False) -> dict[str, object]:
        """Repair one collection while the others serve; with `dry_run` return only the plan.

        The damaged files go to `.quarantine/`, and a new collection is made of everything that passes its
        checks. Raises the errors of `Repairer.repair`.
        """
        if not self.discovered:
            raise Recovering("the volume is being discovered", retry_after_seconds=1)
        return self._repairer.repair(name, dry_run=dry_run).document()

    # A `target` is a collection or its name. A request stays bound to one incarnation: the methods raise
    # Conflict for a batch or query checked against another one, and when the collection is replaced.

    async def upsert(self, target: Collection | str, points: PointBatch) -> list[str]:
        """Write points, all or none; return their ids when the points are durable and visible.

        With a condition, only the points that meet it are written, and only their ids returned.
        """
        with self._bound(target) as collection:
            collection.refuse_misfit(points.manifest)
            collection.writable()
            if not points.ids or (collection.store is None and requires_point(points.condition)):
                return []
            guards = None if points.condition is None else [points.condition] * len(points.ids)
            effect = Upsert(points.ids, points.rows, points.payloads, points.all_new, guards)
            rejected = set((await self._committer.write(collection, effect)).rejected)
        return [i for at, i in enumerate(points.ids) if at not in rejected] if rejected else points.ids

    async def delete_points(
        self, target: Collection | str, ids: list[str], condition: Condition | None = None
    ) -> list[bool]:
        """Delete points; return for each id whether its point existed, and met the condition."""
        with self._bound(target) as collection:
            collection.writable()
            if not ids or collection.store is None:
                return [False] * len(ids)
            guards = None if condition is None else [condition] * len(ids)
            applied = await self._committer.write(collection, Delete(ids, guards))
        rejected, existed = set(applied.rejected), iter(applied.existed)
        return [at not in rejected and next(existed) for at in range(len(ids))]

    async def get_points(self, target: Collection | str, ids: list[str]) -> list[Point | None]:
        """Return the points of these ids, None for an unknown id."""
        with self._bound(target) as collection:
            return await self._searcher.run(get_many, collection, ids)

    async def search(self, target: Collection | str, search: Search) -> list[Hit]:
        """Return the nearest points, nearest first."""
        with self._bound(target) as collection:
            return await self._searcher.search(collection, search)

    async def search_batch(self, target: Collection | str, searches: Sequence[Search]) -> list[list[Hit]]:
        """Return the hits of each search; raise the error of the first search that fails."""
        with self._bound(target) as collection:
            return await self._searcher.search_batch(collection, searches)

    async def search_groups(self, target: Collection | str, search: GroupSearch) -> list[Group]:
        """Return the groups of a search, the nearest first."""
        with self._bound(target) as collection:
            return await self._searcher.search_groups(collection, search)

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
            "failure": self.catalog.changes.failure,
            "memory": self.accounts.document(),
            "volume_full": self.volume is not None and self.volume.full,
            "collections": stats.state_rows(self.registry),
            "aliases": self.aliases.document(),
            "findings": self.findings,
            "findings_stale": time.monotonic() - self._refreshed_at > FINDINGS_SECONDS_MAX,
        }

    def refresh(self, findings: dict[str, Any]) -> None:
        """Store the findings of the sidecar, and follow changed manifests now.

        While another thread does so or changes names, the upkeep thread follows later.
        """
        self.findings = findings
        self._refreshed_at = time.monotonic()
        self._manifest_watcher.rescan()

    def _leave_volume(self) -> None:
        volume, self.volume = self.volume, None
        if volume is not None:
            volume.close()

    def _make_room(self) -> bool:
        """Give up the reserve; return False when the reserve is spent."""
        return self.volume is not None and self.volume.release_reserve()


def _log_unclosed(error: Exception) -> None:
    log.error("a file could not be closed", reason=str(error), exc_info=error)
