"""The engine: what api and cli call. It knows which collections there are, and owns the threads.

Blocking methods are called in worker threads, the async ones on the event loop. Names are checked by the
callers; what a method raises comes from `model.errors`.
"""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from vecstow_engine.model.batch import Hit, Point, PointBatch, SearchQuery
from vecstow_engine.model.errors import Conflict, Recovering, VecstowError
from vecstow_engine.model.manifest import ManagedBy, Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.service import figures
from vecstow_engine.service.background import Indexer, Upkeep
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.committer import Committer
from vecstow_engine.service.copies import Copies
from vecstow_engine.service.gate import Gate
from vecstow_engine.service.loading import Loader
from vecstow_engine.service.registry import Registry
from vecstow_engine.service.searcher import Searcher, get_many
from vecstow_engine.service.settings import Settings
from vecstow_engine.storage.creation import first_use, refuse_orphan
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import Layout, rfc3339
from vecstow_engine.storage.manifests import mark_dropped, update_manifest
from vecstow_engine.storage.records import Delete, Upsert
from vecstow_engine.storage.trash import list_deleted, move_to_deleted, purge
from vecstow_engine.storage.volume import Volume

LOADER_THREADS: Final = 2
PURGE_SECONDS: Final = 60.0

log = structlog.stdlib.get_logger(__name__)


class Engine:
    """One volume, served. `start` once, `stop` once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layout = Layout(settings.data.absolute())
        self.gate = Gate()
        self.ready = False
        """The volume is discovered; each collection has a state of its own."""
        self.live = True
        self.started_at = time.monotonic()
        self.findings: dict[str, Any] = {}
        """What the sidecar reported last."""
        self.volume: Volume | None = None
        self._handles = HandleCache(settings.storage.handles_max)
        self._loader = Loader(self.layout, self._handles, settings.index)
        self.registry = Registry(self.layout)
        self._searcher = Searcher(settings.limits.search_queue_max)
        self._rescanned_at = self._purged_at = time.monotonic()

    # Life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Lock the volume, discover, and recover in the background. Raises VolumeRefused."""
        self.volume = Volume(
            self.layout, self.settings.storage.reserve_bytes,
            allow_network=self.settings.storage.allow_network_file_system,
        )  # fmt: skip
        self.copies = Copies(self.settings, self.layout, self.registry)
        self.copies.remove_unfinished()
        collections = self.registry.discover()
        self._committer = Committer(self.settings, self.volume, self._first_use, self._committed)
        self._indexer = Indexer(self.settings.index.index_threads)
        self._upkeep = Upkeep(
            self.settings, self.volume, self.gate, self.registry.collections, self._now_and_then
        )
        self._pool = ThreadPoolExecutor(LOADER_THREADS, thread_name_prefix="load")
        self.ready = True
        for collection in collections:
            self._pool.submit(self._load, collection)

    def stop(self) -> None:
        """Take no more writes, finish what is under way, checkpoint, snapshot, give the volume free."""
        if self.volume is None:
            return
        self.ready = False
        if hasattr(self, "_pool"):
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._committer.stop()
            self._upkeep.stop()
            self._indexer.stop()
            self._searcher.stop()
            self._upkeep.finish()
        self._handles.close()
        self.volume.close()
        self.volume = None

    @property
    def all_ready(self) -> bool:
        """No collection is recovering or read-only."""
        return self.ready and not self.not_ready()

    def not_ready(self) -> dict[str, str]:
        """Name and state of the collections that keep `all_ready` false."""
        waiting = ("recovering", "read_only")
        return {c.name: c.state.value for c in self.registry.collections() if c.state.value in waiting}

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

        def decide(found: Manifest | None) -> Manifest:
            if found is not None or self.registry.knows(manifest.name):
                raise Conflict(
                    f"collection {manifest.name!r} exists", collection=manifest.name, operation="create"
                )
            refuse_orphan(self.layout, manifest.name)
            return manifest

        existing = self.registry.find(manifest.name)
        if existing is not None and exist_ok and existing.manifest.shape == manifest.shape:
            return False
        with self.registry.changing:
            _, created = update_manifest(self.layout, manifest.name, decide)
            assert created is not None
            collection = Collection(created)
            collection.opened(None, None)
            self.registry.add(collection)
        log.info("collection created", collection=manifest.name)
        return True

    def describe(self, name: str) -> dict[str, object]:
        """The manifest and the live facts of one collection."""
        return self.collection(name).describe()

    def stats(self, name: str) -> dict[str, object]:
        """name, vector_count, dimension, index_size, memory_usage (bytes)."""
        return figures.collection_stats(self.collection(name))

    def drop(self, name: str) -> None:
        """Move a collection to `.deleted/`; its name is free when this returns. Raises Conflict, NotFound."""
        self._drop(name)

    def hard_delete(self, name: str) -> None:
        """Drop a collection and purge it at once."""
        path = self._drop(name)
        for deleted in list_deleted(self.layout):
            if deleted.path == path:
                purge(self.layout, deleted)
        log.info("collection purged", collection=name)

    def deleted(self) -> list[dict[str, object]]:
        """Dropped collections that can be restored, newest first."""
        return [
            {
                "name": d.name,
                "path": str(d.path.relative_to(self.layout.data)),
                "deleted_timestamp": int(d.deleted_at.timestamp()),
                "age_hours": round(d.age_hours, 4),
            }
            for d in list_deleted(self.layout)
        ]

    def cleanup(self, retention_hours: float) -> list[str]:
        """Purge what was dropped at least so long ago; returns the names."""
        names = []
        with self.gate.required("cleanup"):
            for deleted in list_deleted(self.layout):
                if deleted.age_hours >= retention_hours:
                    purge(self.layout, deleted)
                    names.append(deleted.name)
        return names

    def restore(self, backup_path: str, new_name: str | None) -> str:
        """Bring back a dropped collection or a backup; returns its name."""
        with self.gate.required("restore"), self.registry.changing:
            manifest = self.copies.restore(backup_path, new_name)
            self._open_new(manifest)
        return manifest.name

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
        with self.gate.required("import"), self.registry.changing:
            manifest = self.copies.import_orphan(orphaned_path, wanted)
            self._open_new(manifest)

    def backup(self, name: str) -> str:
        """Copy one collection to `.backups/`; returns the path, relative to the data directory."""
        collection = self.collection(name)
        collection.readable()
        with collection.upkeep:
            return self.copies.backup(collection)

    def compact(self, name: str) -> dict[str, object]:
        """Give back the space of deleted points: checkpoint, rewrite the point table, rebuild the graph."""
        collection = self.collection(name)
        collection.writable()
        with self.gate.required("compact"), collection.upkeep:
            if collection.store is not None and collection.index is not None:
                before, after = self._upkeep.compact(collection)
                self._indexer.notify(collection)
                return {
                    "bytes_before": before,
                    "bytes_after": after,
                    "progress": collection.describe()["progress"],
                }
        return {"bytes_before": 0, "bytes_after": 0, "progress": None}

    def check(self, name: str) -> dict[str, object]:
        """Verify every file and row of one collection."""
        collection = self.collection(name)
        with collection.upkeep:
            return self.copies.check(collection)

    def hold(self, seconds: float) -> str:
        """Change nothing but logs for so long; returns the end, RFC 3339."""
        return rfc3339(self.gate.hold(min(seconds, self.settings.limits.hold_seconds_max)))

    def release_hold(self) -> None:
        """End the hold."""
        self.gate.release()

    # Points -----------------------------------------------------------------------------------------------

    async def upsert(self, name: str, points: PointBatch) -> list[str]:
        """Write points, all or nothing; durable and visible when this returns. Returns the ids."""
        collection = self.collection(name)
        collection.writable()
        if points.ids:
            effect = Upsert(points.ids, points.rows, points.payloads, points.all_new)
            await self._committer.write(collection, effect)
        return points.ids

    async def delete_points(self, name: str, ids: list[str]) -> list[bool]:
        """Delete points; whether each was there."""
        collection = self.collection(name)
        collection.writable()
        if not ids or collection.store is None:
            return [False] * len(ids)
        return (await self._committer.write(collection, Delete(ids))).existed

    async def get_points(self, name: str, ids: list[str]) -> list[Point | None]:
        """The points of these ids, None where there is none."""
        collection = self.collection(name)
        collection.readable()
        return await self._searcher.run(get_many, collection, ids)

    async def search(self, name: str, query: SearchQuery) -> list[Hit]:
        """The nearest points, nearest first."""
        collection = self.collection(name)
        collection.readable()
        return await self._searcher.search(collection, query)

    # Figures ----------------------------------------------------------------------------------------------

    def server_stats(self) -> dict[str, object]:
        """What `GET /stats` says."""
        return figures.server_stats(self.registry.collections(), self.layout, self.started_at)

    def state_document(self) -> dict[str, object]:
        """What `GET /state` says."""
        return figures.state_document(self)

    def refresh(self, findings: dict[str, Any]) -> None:
        """The sidecar's poke: remember what it found, and look at the manifests now."""
        self.findings = findings
        self._rescan()

    # Inside -----------------------------------------------------------------------------------------------

    def _load(self, collection: Collection) -> None:
        self._loader.load(collection, is_rival=self.registry.is_rival(collection))
        if self.registry.all_opened():
            self.registry.log_counts()
            for opened in self.registry.collections():
                self._indexer.notify(opened)

    def _open_new(self, manifest: Manifest) -> None:
        collection = Collection(manifest)
        self.registry.add(collection)
        self._loader.load(collection, with_graph=False)
        self._indexer.notify(collection)

    def _first_use(self, collection: Collection) -> None:
        with self.gate.required("the first write"), collection.upkeep:
            manifest, store = first_use(self.layout, collection.name, self._handles)
            collection.manifest = manifest
            collection.opened(store, self._loader.new_index(collection))

    def _committed(self, collection: Collection) -> None:
        self._indexer.notify(collection)

    def _drop(self, name: str) -> Any:
        collection = self.collection(name)
        if collection.manifest.managed_by is ManagedBy.KUBERNETES:
            raise Conflict(
                f"collection {name!r} belongs to a Kubernetes resource", collection=name, operation="drop",
                hint="kubectl delete the VectorCollection",
            )  # fmt: skip
        with self.gate.required("drop"):
            mark_dropped(self.layout, name)
            return self._move_away(collection)

    def _move_away(self, collection: Collection) -> Any:
        """The engine's part of a drop: one rename, once nobody writes the files."""
        collection.dropping = True
        with collection.upkeep:
            self.registry.remove(collection)
            if collection.store is not None:
                collection.store.retire("it was dropped")
            path = move_to_deleted(self.layout, collection.name, collection.manifest.collection_uid)
        log.info("collection dropped", collection=collection.name, path=str(path))
        return path

    def _now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._rescanned_at > self.settings.storage.rescan_seconds:
            self._rescan()
        if now - self._purged_at > PURGE_SECONDS:
            self._purged_at = now
            if self.settings.storage.retention_hours > 0 and self.gate.remaining_seconds == 0:
                for name in self.cleanup(self.settings.storage.retention_hours):
                    log.info("collection purged at the end of its retention", collection=name)

    def _rescan(self) -> None:
        """Follow the manifests that somebody else changed on the volume."""
        with self.registry.changing:
            self._rescanned_at = time.monotonic()
            for manifest in self.registry.changed_manifests():
                self._follow_manifest(manifest)

    def _follow_manifest(self, manifest: Manifest) -> None:
        collection = self.registry.find(manifest.name)
        try:
            if collection is None:
                if manifest.dropped_at is None:
                    self._open_new(manifest)
                return
            if manifest.dropped_at is not None:
                with self.gate.passing() as free:
                    if free:
                        self._move_away(collection)
                    else:
                        self.registry.look_again(manifest.name)
                return
            self._change_settings(collection, manifest)
        except (VecstowError, OSError) as error:
            log.error("manifest could not be followed", collection=manifest.name, reason=str(error))

    def _change_settings(self, collection: Collection, manifest: Manifest) -> None:
        if manifest.shape != collection.manifest.shape and collection.store is not None:
            log.error(
                "manifest changed its shape beside the data; it is not followed", collection=manifest.name
            )
            return
        old, new = collection.manifest.index_config, manifest.index_config
        uid = collection.manifest.collection_uid
        collection.manifest = dataclasses.replace(manifest, collection_uid=manifest.collection_uid or uid)
        graph_changed = (old.max_connections, old.ef_construction) != (
            new.max_connections,
            new.ef_construction,
        )
        if graph_changed and collection.index is not None:
            collection.index.start_rebuild(new)
            self._indexer.notify(collection)
        log.info("manifest followed", collection=manifest.name)
