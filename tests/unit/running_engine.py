"""An engine in this process, whose background work happens only when a test asks for it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.store_on_disk import MANIFEST, vector
from tests.waiting import SECONDS_MAX
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.points import PointBatch
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.engine import Engine
from vecstow_engine.service.settings import IndexSettings, LimitSettings, Settings, StorageSettings


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.002)


class RunningEngine(Engine):
    """Started on entering, when all collections are opened; stopped on leaving."""

    def __init__(self, data: Path, **storage: Any) -> None:
        never: dict[str, Any] = {"checkpoint_seconds": 1e9, "rescan_seconds": 1e9, "reserve_bytes": 0}
        super().__init__(
            Settings(
                data=data,
                storage=StorageSettings(**(never | storage)),
                index=IndexSettings(index_threads=1, rebuild_deleted_ratio=1.0),
                limits=LimitSettings(write_wait_seconds=SECONDS_MAX),
            )
        )

    def __enter__(self) -> RunningEngine:
        self.start()
        wait_until(self.registry.all_opened)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def declare(self, name: str = "notes", **fields: Any) -> Manifest:
        """Create a collection of four dimensions."""
        shape: dict[str, Any] = {"dimension": 4, "distance_metric": MANIFEST.distance_metric}
        manifest = Manifest(name=name, **(shape | fields))
        self.catalog.create(manifest)
        return manifest

    async def put(self, collection: str = "notes", /, **values: float) -> list[str]:
        """Store points of these values."""
        vectors = np.array([vector(value) for value in values.values()], np.float32)
        manifest = self.collection(collection).manifest
        batch = PointBatch.build(manifest, list(values), vectors, [{"v": value} for value in values.values()])
        return await self.upsert(collection, batch)

    async def values(self, collection: str = "notes", *ids: str) -> list[float | None]:
        """The values of points, None where there is none."""
        points = await self.get_points(collection, list(ids))
        return [None if point is None else float(point.vector[0]) for point in points]

    async def nearest(self, collection: str, value: float, limit: int = 1) -> list[str]:
        """Ids of the points nearest to a value."""
        manifest = self.collection(collection).manifest
        query = SearchQuery.build(manifest, np.array(vector(value), np.float32), limit)
        return [hit.id for hit in await self.search(collection, query)]

    def checkpoint(self, name: str = "notes") -> bool:
        """Make a checkpoint, as the upkeep thread does when one is due."""
        collection = self.collection(name)
        with collection.upkeep_lock:
            return self._upkeep.checkpoint(collection)

    def import_orphan(self, *, orphaned_path: str, collection_name: str, **shape: Any) -> None:
        """Make a collection from the files at a path."""
        self.catalog.import_orphan(orphaned_path, Manifest(name=collection_name, **shape))

    def indexed(self, name: str = "notes") -> Collection:
        """The collection, when no row waits for its graph."""
        collection = self.collection(name)
        assert collection.index is not None
        index = collection.index
        wait_until(lambda: index.pending == 0 and not index.rebuilding)
        return collection

    def newest_deleted(self) -> str:
        """The path of the collection that was dropped last, as a restore takes it; of none without one."""
        return next((str(deleted["path"]) for deleted in self.catalog.deleted()), ".deleted/none")

    def copied(self, name: str = "copy", **storage: Any) -> RunningEngine:
        """An engine for a copy of the volume as it lies there, as after a SIGKILL."""
        target = self.settings.data.with_name(name)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.settings.data, target)
        return RunningEngine(target, **storage)


def fill(names: str, count: int, value: float = 0.0) -> dict[str, float]:
    """Points of rising values."""
    return {f"{names}{number}": value + number + 1 for number in range(count)}
