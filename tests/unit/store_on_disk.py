"""One collection's store on a folder, in few words. A point of value v has the vector [v, v+1, v+2, v+3]."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.points import PointBatch
from vecstow_engine.storage import files
from vecstow_engine.storage.creation import create_data_files
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layers import Applied
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.log.segment import Delete, Upsert
from vecstow_engine.storage.manifests import read_manifest, update_manifest
from vecstow_engine.storage.recovery import Opened, open_store
from vecstow_engine.storage.store import Store

MANIFEST = Manifest("notes", 4, DistanceMetric.EUCLIDEAN)
STRIDE = 16


def upsert(manifest: Manifest = MANIFEST, **values: float) -> Upsert:
    """The effect that stores a point under each name; the payload is {"v": value}, or none for value 0."""
    vectors = np.array([vector(value) for value in values.values()], np.float32).reshape(-1, 4)
    payloads = [{"v": value} if value else None for value in values.values()]
    batch = PointBatch.build(manifest, list(values), vectors, payloads)
    return Upsert(batch.ids, batch.rows, batch.payloads, batch.all_new)


def vector(value: float) -> list[float]:
    return [value, value + 1, value + 2, value + 3]


class StoreOnDisk:
    """Declares `manifest` on `data` if it is not there, and opens it; the first write makes its files."""

    def __init__(self, data: Path, manifest: Manifest = MANIFEST, **options: Any) -> None:
        files.make_folders(data)
        self.data = data
        self.layout = Layout(data)
        self.folder = self.layout.collection(manifest.name)
        self.handles = HandleCache(8)
        update_manifest(self.layout, manifest.name, lambda found: None if found else manifest)
        found = read_manifest(self.folder)
        assert found is not None
        try:
            self.opened: Opened = open_store(self.layout, found, self.handles, **options)
        except BaseException:
            self.close()
            raise
        self.manifest = self.opened.manifest
        self._store = self.opened.store

    @property
    def store(self) -> Store:
        if self._store is None:
            self.manifest, self._store = create_data_files(self.layout, self.manifest, self.handles)
        return self._store

    @property
    def log_folder(self) -> Path:
        assert self.manifest.collection_uid is not None
        return self.layout.log(self.manifest.collection_uid)

    def segments(self) -> list[int]:
        """The first sequences that the segments are named after."""
        return sorted(int(path.stem) for path in self.log_folder.glob("*.log"))

    def segment(self, first_sequence: int) -> Path:
        return self.log_folder / f"{first_sequence:020d}.log"

    def put(self, **values: float) -> Applied:
        """Store points, by one record."""
        return self.store.commit([upsert(MANIFEST, **values)])[0]

    def delete(self, *ids: str) -> Applied:
        """Remove points, by one record."""
        return self.store.commit([Delete(list(ids))])[0]

    def checkpoint(self) -> None:
        assert self.store.checkpoint()

    def points(self) -> dict[str, float]:
        """Value by id, as a full scan and a read by id show it alike; withheld ones are missing."""
        if self._store is None:
            return {}
        scanned = [point_id for _, point_id, _ in self._store.view.scan()]
        assert len(scanned) == len(set(scanned)), "a point stands twice"
        return {point_id: self.value(point_id) for point_id in scanned}

    def value(self, point_id: str) -> float:
        [point] = self.store.view.get([point_id])
        assert point is not None, f"{point_id} is scanned, but not found by its id"
        value = float(point.vector[0])
        assert point.vector.tolist() == vector(value)
        assert point.payload == (None if value == 0 else b'{"v":%g}' % value), "vector and payload differ"
        return value

    def close(self) -> None:
        """Close the descriptors; the point table's last reader leaves nothing in SQLite's log."""
        self.handles.close()

    def reopened(self) -> StoreOnDisk:
        """Close, and open the same folder again."""
        self.close()
        return StoreOnDisk(self.data, self.manifest)

    def copied(self, name: str = "copy", **options: Any) -> StoreOnDisk:
        """Open a copy of the folder as it lies there: what a process finds after this one was killed."""
        target = self.data.with_name(f"{self.data.name}-{name}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.data, target)
        return StoreOnDisk(target, self.manifest, **options)

    def copied_with_log_of(self, length: int) -> StoreOnDisk:
        """Open a copy whose newest segment was cut to `length` bytes."""
        target = self.data.with_name(f"{self.data.name}-cut")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.data, target)
        newest = max(Layout(target).log(self.log_folder.name).glob("*.log"))
        newest.write_bytes(newest.read_bytes()[:length])
        return StoreOnDisk(target, self.manifest)
