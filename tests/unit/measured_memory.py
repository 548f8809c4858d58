"""The memory of a structure: by its own account, and as the kernel counts it in a fresh process.

python -m tests.unit.measured_memory graph 20000 128
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from vecstow_engine.cli.serving import M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.index.places import LabelTable, Tail
from vecstow_engine.model.manifest import IndexConfig, PayloadIndex
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.points import make_labels
from vecstow_engine.service.memory_plan import anonymous_bytes
from vecstow_engine.storage.layers import Entry, Overlay
from vecstow_engine.storage.rows import SlotTable

BATCH = 500
CONFIG = IndexConfig(max_connections=16, ef_construction=16)
_GENERATOR = np.random.default_rng(0)
_Add = Callable[[int], object]
"""Adds the batch whose first row has this number; what it returns is kept."""


def measured(kind: str, rows: int, dimension: int) -> tuple[int, int]:
    """Bytes by the structure's own account, and bytes of resident memory that it took."""
    command = [sys.executable, "-m", __name__, kind, str(rows), str(dimension)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    own, grown = said.split()
    return int(own), int(grown)


def graph(dimension: int) -> tuple[_Add, Callable[[], int]]:
    """A graph that grows from nothing."""
    made = HnswGraph(DistanceMetric.EUCLIDEAN, dimension, CONFIG)
    return (lambda first: made.add(_vectors(dimension), _labels(first), 2)), lambda: made.memory_bytes


def tail(dimension: int) -> tuple[_Add, Callable[[], int]]:
    """Rows that no graph has yet."""
    made = Tail(DistanceMetric.EUCLIDEAN, dimension)
    return (lambda first: made.add(_vectors(dimension), _labels(first))), lambda: made.bytes


def overlay(dimension: int) -> tuple[_Add, Callable[[], int]]:
    """Points of float32 with a small payload, until a checkpoint."""
    made = Overlay(1)

    def add(first: int) -> None:
        block = _vectors(dimension).view(np.uint8)
        for line in range(BATCH):
            number = first + line
            point_id, payload = f"point-{number:010}", b'{"n":%d}' % number
            made.put(Entry(point_id, first + 2**20, number, 1, number + 2**31, payload, block, line))

    return add, lambda: made.bytes


def columns(dimension: int) -> tuple[_Add, Callable[[], int]]:
    """Payload indexes of all types, with distinct keywords and arrays."""
    made = PayloadColumns(
        tuple(
            PayloadIndex(field, kind)
            for field, kind in (
                ("n", "integer"), ("word", "keyword"), ("tags", "keyword"), ("x", "float"),
                ("flag", "boolean"), ("at", "datetime"),
            )
        )
    )  # fmt: skip

    def add(first: int) -> None:
        payloads = [
            b'{"n":%d,"word":"word %d","tags":["a","b%d"],"x":%d.5,"flag":true,"at":"2024-05-01T10:00:%02dZ"}'
            % (number, number, number % 1000, number, number % 60)
            for number in range(first, first + BATCH)
        ]
        made.put(_labels(first), payloads)

    return add, lambda: made.memory_bytes


def tables(dimension: int) -> tuple[_Add, Callable[[], int]]:
    """Slots and labels, as a collection at rest keeps them."""
    slots, labels = SlotTable(), LabelTable()

    def add(first: int) -> None:
        given = slots.allocate(BATCH)
        slots.occupy(given, 1, np.zeros(BATCH, np.uint32))
        labels.put(_labels(first), 3)

    return add, lambda: slots.bytes + labels.bytes


def _vectors(dimension: int) -> np.ndarray:
    return _GENERATOR.standard_normal((BATCH, dimension)).astype(np.float32)


def _labels(first: int) -> np.ndarray:
    return make_labels(np.arange(first, first + BATCH), 1)


def main(kind: str, rows: int, dimension: int) -> None:
    """Print both figures. Another structure of the kind comes first: it loads what each one uses."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    kinds = {"graph": graph, "tail": tail, "overlay": overlay, "tables": tables, "columns": columns}
    make = kinds[kind]
    warm, _ = make(4)
    for first in range(0, 4 * BATCH, BATCH):
        warm(first)
    gc.collect()
    before = anonymous_bytes()
    add, own = make(dimension)
    for first in range(0, rows, BATCH):
        add(first)
    gc.collect()
    print(own(), anonymous_bytes() - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
