"""An engine in memory with the service's methods: what the API is tested against, without a disk.

Search is exact. Everything else does the least that lets a test see what the API asked for.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from vecstow_engine.model.conditions import Condition, Stamp
from vecstow_engine.model.errors import Conflict, NotFound, VecstowError
from vecstow_engine.model.manifest import Manifest, PayloadIndex, manifest_document
from vecstow_engine.model.points import Point, PointBatch, decode_rows
from vecstow_engine.model.queries import Search
from vecstow_engine.model.searches import Hit, SearchQuery
from vecstow_engine.query.targets import aim
from vecstow_engine.service.aliases import Aliases
from vecstow_engine.service.attempts import Attempts
from vecstow_engine.service.memory_accounts import Accounts
from vecstow_engine.service.memory_plan import plan
from vecstow_engine.service.request_memory import RequestMemory
from vecstow_engine.storage.volume import Room


@dataclass
class FakeCollection:
    """A manifest and its points."""

    manifest: Manifest
    points: dict[str, Point] = field(default_factory=dict)
    changed_at: float | None = None

    @property
    def name(self) -> str:
        return self.manifest.name


class FakeEngine:
    """The facade's methods over dictionaries; `fails` makes the next search raise."""

    def __init__(self, body_bytes_max: int = 2_000_000) -> None:
        limits = SimpleNamespace(body_bytes_max=body_bytes_max, batch_points_max=1000)
        self.requests = RequestMemory(512 << 20)
        self.accounts = Accounts(plan(4 << 30))
        self.settings: Any = SimpleNamespace(limits=limits)
        self.collections: dict[str, FakeCollection] = {}
        self.dropped: dict[str, FakeCollection] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.attempts = Attempts()
        self.discovered = True
        self.all_ready = True
        self.live = True
        self.leaving = False
        self.fails: Exception | None = None
        self.registry = SimpleNamespace(
            aliases=Aliases(), collections=lambda: list(self.collections.values()), resolve=lambda name: name
        )
        self.volume = SimpleNamespace(room=lambda: Room(total_bytes=100, available_bytes=40), full=False)
        self.catalog = self
        self.aliases: Any = SimpleNamespace(
            listed=list, get=self._no_alias, set=self._set_alias, remove=self._remove_alias
        )
        self.declarations = SimpleNamespace(declare_payload_indexes=self._declare)
        self.hold = SimpleNamespace(begin=self._begin_hold, end=lambda: self.calls.append(("release_hold",)))
        self.sequence = 0
        self.starts = 0
        self.stops = 0

    def start(self) -> None:
        self.starts += 1
        if isinstance(self.fails, VecstowError):
            raise self.fails

    def stop(self) -> None:
        self.stops += 1

    def not_ready(self) -> dict[str, str]:
        return {} if self.all_ready else {"docs": "recovering"}

    def collection(self, name: str | FakeCollection) -> FakeCollection:
        name = name if isinstance(name, str) else name.name
        if name not in self.collections:
            raise NotFound(f"no collection {name!r}", collection=name)
        return self.collections[name]

    def collection_names(self) -> list[str]:
        return sorted(self.collections)

    def create(self, manifest: Manifest, *, exist_ok: bool = False) -> bool:
        there = self.collections.get(manifest.name)
        if there is not None:
            if exist_ok and there.manifest.shape == manifest.shape:
                return False
            raise Conflict(f"collection {manifest.name!r} exists", collection=manifest.name)
        self.collections[manifest.name] = FakeCollection(manifest)
        return True

    def describe(self, name: str) -> dict[str, object]:
        collection = self.collection(name)
        count = len(collection.points)
        live = {"vector_count": count, "indexed": count, "state": "ready", "reason": None, "progress": None}
        indexes = [
            dataclasses.asdict(each) | {"ready": each.type != "text", "bytes": 12_000}
            for each in collection.manifest.payload_indexes
        ]
        return manifest_document(collection.manifest) | live | {"payload_index_state": indexes}

    def _declare(self, collection: FakeCollection, declared: tuple[PayloadIndex, ...]) -> None:
        collection.manifest = dataclasses.replace(collection.manifest, payload_indexes=declared)

    def stats(self, name: str) -> dict[str, object]:
        collection = self.collection(name)
        return {
            "name": name,
            "vector_count": len(collection.points),
            "dimension": collection.manifest.dimension,
            "index_size": 0,
            "memory_usage": 0,
        }

    def drop(self, name: str) -> None:
        self.collection(name)
        self.dropped[name] = self.collections.pop(name)

    def hard_delete(self, name: str) -> None:
        self.collection(name)
        del self.collections[name]

    def deleted(self) -> list[dict[str, object]]:
        return [
            {"name": name, "path": f".deleted/{name}-1-u", "deleted_timestamp": 1, "age_hours": 0.0}
            for name in self.dropped
        ]

    def remarks_on(self, name: str) -> str | None:
        return None

    def restore(self, backup_path: str, new_name: str | None) -> str:
        for name in list(self.dropped):
            if backup_path == f".deleted/{name}-1-u":
                self.collections[new_name or name] = self.dropped.pop(name)
                return new_name or name
        raise NotFound(f"no backup {backup_path!r}")

    def cleanup(self, retention_hours: float) -> list[str]:
        self.calls.append(("cleanup", retention_hours))
        names, self.dropped = sorted(self.dropped), {}
        return names

    def backup(self, name: str) -> str:
        self.collection(name)
        return f".backups/{name}-1"

    def compact(self, name: str) -> dict[str, object]:
        self.collection(name)
        return {"progress": 1.0}

    def check(self, name: str, *, recall: bool = False) -> dict[str, object]:
        self.collection(name)
        return {"problems": []}

    def repair(self, name: str, *, dry_run: bool = False) -> dict[str, object]:
        self.collection(name)
        return {"outcome": "planned" if dry_run else "repaired"}

    def import_orphan(self, orphaned_path: str, wanted: Manifest) -> None:
        self.calls.append(("import", orphaned_path, wanted))

    def _begin_hold(self, seconds: float) -> str:
        self.calls.append(("hold", seconds))
        return "2026-01-01T00:01:00Z"

    def server_stats(self) -> dict[str, object]:
        return {
            "total_vectors": sum(len(collection.points) for collection in self.collections.values()),
            "total_collections": len(self.collections),
            "memory_usage": 1,
            "disk_usage": 2,
            "uptime_seconds": 3,
        }

    def _no_alias(self, name: str) -> None:
        raise NotFound(f"alias {name!r} does not exist")

    def _set_alias(self, name: str, collection: str, authorise: Any) -> None:
        authorise(name, name)
        self.calls.append(("set_alias", name, collection))

    def _remove_alias(self, name: str, authorise: Any) -> None:
        authorise(name, name)
        self._no_alias(name)

    def state_document(self) -> dict[str, Any]:
        rows = [
            {
                "name": name,
                "state": "ready",
                "vector_count": len(collection.points),
                "log_bytes": 100,
            }
            for name, collection in sorted(self.collections.items())
        ]
        aliases: dict[str, Any] = {"count": 0, "fault": None, "problems": []}
        return {
            "engine": "fake",
            "volume_id": "v",
            "failure": None,
            "collections": rows,
            "aliases": aliases,
        }

    def refresh(self, findings: dict[str, Any]) -> None:
        self.calls.append(("refresh", findings))

    async def upsert(self, name: str | FakeCollection, points: PointBatch) -> list[str]:
        collection = self.collection(name)
        vectors = decode_rows(points.rows, collection.manifest.vector_type)
        for point_id, vector, payload in zip(points.ids, vectors, points.payloads, strict=True):
            self.sequence += 1
            stamp = Stamp("0" * 32, self.sequence, 0)
            collection.points[point_id] = Point(point_id, vector, payload, stamp)
        return points.ids

    async def delete_points(
        self, name: str | FakeCollection, ids: list[str], condition: Condition | None = None
    ) -> list[bool]:
        assert condition is None
        points = self.collection(name).points
        return [points.pop(point_id, None) is not None for point_id in ids]

    async def get_points(self, name: str | FakeCollection, ids: list[str]) -> list[Point | None]:
        points = self.collection(name).points
        return [points.get(point_id) for point_id in ids]

    async def search(self, name: str | FakeCollection, search: Search) -> list[Hit]:
        if self.fails is not None:
            raise self.fails
        points = self.collection(name).points
        view: Any = SimpleNamespace(get=lambda ids: [points.get(point_id) for point_id in ids])
        [query] = aim(view, [search])
        self.calls.append(("search", query))
        if not isinstance(query, SearchQuery):
            return []
        hits = [
            Hit(point.id, float(np.linalg.norm(point.vector - query.vector)), point.payload)
            for point in points.values()
            if point.id not in query.excluded
        ]
        return sorted(hits, key=lambda hit: hit.distance)[: query.limit]
