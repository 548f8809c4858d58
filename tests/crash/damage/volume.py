"""A volume with all that a volume can hold, as a SIGKILL in the middle of a checkpoint leaves it.

It is made once a process by the engine, kept in memory, and laid out again for each case.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection
from typing import Any
from unittest import mock

import numpy as np

from tests.crash.ledger import Points
from tests.crash.reading import killed
from tests.property.conftest import memory
from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.manifest import IndexConfig, Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.points import PointBatch
from vecstow_engine.service.snapshotter import take_snapshot
from vecstow_engine.storage.points import writer

LONG_PAYLOAD = "long " * 1200
"""It takes overflow pages of SQLite."""
RESERVE_BYTES = 32_768
SEED = 4

_SHAPES: dict[str, dict[str, Any]] = {
    "plain": {"dimension": 4, "distance_metric": DistanceMetric.EUCLIDEAN},
    "twin": {"dimension": 4, "distance_metric": DistanceMetric.EUCLIDEAN},
    "half": {"dimension": 6, "distance_metric": DistanceMetric.COSINE, "vector_type": VectorType.FLOAT16},
    "small": {"dimension": 8, "distance_metric": DistanceMetric.MANHATTAN, "vector_type": VectorType.INT8},
    "graph": {
        "dimension": 4,
        "distance_metric": DistanceMetric.EUCLIDEAN,
        "index_config": IndexConfig(max_connections=6, ef_construction=60),
    },
    "empty": {"dimension": 3, "distance_metric": DistanceMetric.DOT_PRODUCT},
    "gone": {"dimension": 4, "distance_metric": DistanceMetric.EUCLIDEAN},
}
GRAPH_POINTS = 1010


@dataclass
class Truth:
    """The true content of one collection."""

    manifest: Manifest
    states: list[Points] = field(default_factory=lambda: [{}])
    """After each record of its log; the place is the sequence."""
    applied: int = 0
    """The sequence that its last checkpoint has."""
    slots: dict[str, int] = field(default_factory=dict)
    """The slots of the points whose rows only `vectors.bin` has."""

    @property
    def last(self) -> Points:
        """All that was acknowledged."""
        return self.states[-1]

    @property
    def ids(self) -> set[str]:
        """The ids of all points that the collection ever had."""
        return {point_id for state in self.states for point_id in state}


@dataclass
class Volume:
    """Files by their path below the data directory, and what they mean."""

    files: dict[str, bytes]
    older: dict[str, list[bytes]]
    """Earlier contents of each file, newest first."""
    labels: dict[str, str]
    """A name of each file, the same however often the volume is made, and its path."""
    live: dict[str, Truth]
    gone: Truth
    """The dropped collection."""
    backup: Truth
    """The collection that was backed up, as it was then."""

    def lay(self, target: Path, path: str, content: bytes | None) -> None:
        """Write the volume to `target` with this content in the place of that file; None: without it."""
        for name, raw in (self.files | {path: content}).items():
            if raw is not None:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).write_bytes(raw)


@functools.cache
def whole_volume() -> Volume:
    """The one that all cases of this process damage."""
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        return _Maker(Path(folder)).make()


class _Maker:
    """Lives a volume's life."""

    def __init__(self, folder: Path) -> None:
        self.data, self.left = folder / "data", folder / "left"
        self.rng = np.random.default_rng(SEED)
        self.truths: dict[str, Truth] = {}
        self.stages: list[dict[str, bytes]] = []

    def make(self) -> Volume:
        with killed(self.data, reserve_bytes=RESERVE_BYTES) as self.engine:
            for name, shape in _SHAPES.items():
                self.truths[name] = Truth(self.engine.declare(name, **shape))
            self.engine.aliases.set("second", "plain")
            self.stages.append(_files(self.data))
            self.engine.aliases.set("second", "half")
            self._first_life()
            self._second_life()
            self._newer_than_checkpoints()
            self.engine.drop("gone")
            self._killed_in_a_checkpoint("small")
        final = _files(self.left)
        self._find_slots()
        backup = Truth(self.truths["half"].manifest, self.backed_up, self.truths["half"].applied)
        return Volume(
            final, _older(final, self.stages), _labels(final), self.truths, self.truths.pop("gone"), backup
        )

    def _first_life(self) -> None:
        for name in self._with_data():
            for start in range(0, 40, 10):
                self._put(name, range(start, start + 10))
        self._put("graph", range(40, GRAPH_POINTS))
        self.engine.indexed("graph")
        self._checkpoints()

    def _second_life(self) -> None:
        """Updates and deletes, and then points at the slots that those gave up."""
        for name in self._with_data():
            self._put(name, range(5, 15))
            self._delete(name, range(20, 28))
        self._checkpoints()
        for name in self._with_data():
            self._put(name, [*range(2000, 2012), *range(3)])
        self._checkpoints()

    def _newer_than_checkpoints(self) -> None:
        """Over two segments."""
        for name in self._with_data():
            self._put(name, range(3000, 3004))
            self._delete(name, [30, 2001])
        self.engine.backup("half")
        self.backed_up = list(self.truths["half"].states)
        for name in self._with_data():
            store = self.engine.collection(name).store
            assert store is not None
            store.log.start_segment()
            self._put(name, [31, 3001, 3010])
            self._delete(name, [32, 3002])
            self._put(name, [33, 3011])

    def _killed_in_a_checkpoint(self, name: str) -> None:
        """Copy the volume after SQLite commits to its `-wal`, and before the table has that commit."""
        make_durable = writer.make_durable

        def copied_before(connection: Connection, path: Path) -> None:
            if path.parent.name == name and not self.left.exists():
                shutil.copytree(self.data, self.left)
            make_durable(connection, path)

        with mock.patch.object(writer, "make_durable", copied_before):
            self._checkpoint(name)

    def _checkpoints(self) -> None:
        for name in self._with_data():
            self._checkpoint(name)
        graph = self.engine.indexed("graph")
        with graph.upkeep_lock:
            assert take_snapshot(graph, lambda: None)
        self.stages.append(_files(self.data))

    def _checkpoint(self, name: str) -> None:
        assert self.engine.checkpoint(name)
        self.truths[name].applied = len(self.truths[name].states) - 1

    def _put(self, name: str, numbers: Sequence[int]) -> None:
        truth = self.truths[name]
        points = new_points(self.rng, [f"{name}-{number}" for number in numbers], truth.manifest.dimension)
        asyncio.run(put(self.engine, name, points))
        truth.states.append(truth.last | points)

    def _delete(self, name: str, numbers: Sequence[int]) -> None:
        ids = [f"{name}-{number}" for number in numbers]
        truth = self.truths[name]
        asyncio.run(self.engine.delete_points(name, ids))
        truth.states.append({i: point for i, point in truth.last.items() if i not in ids})

    def _with_data(self) -> list[str]:
        return [name for name in _SHAPES if name != "empty"]

    def _find_slots(self) -> None:
        """Opened once as it is: what the log brings back is in memory, and has a newer epoch."""
        with killed(self.left) as engine:
            for collection in engine.registry.collections():
                store = collection.store
                if store is not None:
                    newer = store.layers.active.epoch
                    self.truths[collection.name].slots = {
                        point_id: label & 0xFFFFFFFF
                        for label, point_id, _ in store.view.scan()
                        if label >> 32 < newer
                    }


async def put(engine: RunningEngine, name: str, points: Points) -> None:
    """Store points, by one record of the log."""
    manifest = engine.collection(name).manifest
    vectors = np.stack([np.frombuffer(data, "<f4") for data, _ in points.values()]).astype(np.float32)
    batch = PointBatch.build(manifest, list(points), vectors, [payload for _, payload in points.values()])
    await engine.upsert(name, batch)


def new_points(rng: np.random.Generator, ids: list[str], dimension: int) -> Points:
    """Whole numbers up to 127, which all vector types hold exactly; some payloads are long, some none."""
    vectors = rng.integers(-127, 128, (len(ids), dimension)).astype("<f4")
    vectors[:, int(rng.integers(dimension))] = 127
    kinds = rng.integers(30, size=len(ids)).tolist()
    return {
        point_id: (vector.tobytes(), _payload(point_id, kind))
        for point_id, vector, kind in zip(ids, vectors, kinds, strict=True)
    }


def _payload(point_id: str, kind: int) -> dict[str, Any] | None:
    if kind < 3:
        return None
    return {"id": point_id, "kind": kind} | ({"text": LONG_PAYLOAD} if kind == 3 else {})


def _files(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def _older(final: Mapping[str, bytes], stages: list[dict[str, bytes]]) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for path, content in final.items():
        versions = [stage[path] for stage in reversed(stages) if stage.get(path, content) != content]
        if versions:
            found[path] = list(dict.fromkeys(versions))
    return found


def _labels(final: Mapping[str, bytes]) -> dict[str, str]:
    """Sorted, without uids and times, which differ from one making to the next; logs by their owners."""
    owners = {}
    for path, content in final.items():
        if path.endswith("metadata.json"):
            manifest = json.loads(content)
            owners[manifest["collection_uid"]] = manifest["name"]
    labels = {}
    for path in sorted(final):
        label = re.sub(r"-[0-9]{8}T[0-9]{6}Z(-[0-9a-f]{32})?/", "/", path)
        label = re.sub(r"wal/([0-9a-f]{32})/", lambda match: f"wal/{owners[match[1]]}/", label)
        labels[label] = path
    return dict(sorted(labels.items()))
