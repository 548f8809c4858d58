"""hnswlib alone, the same build that the engine runs on, with two threads: what the ratios compare with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hnswlib
import numpy as np

from benchmarks.harness.dataset import Mixture, Rows

THREADS: Final = 2
CONNECTIONS: Final = 16
EF_CONSTRUCTION: Final = 200
EF_SEARCH: Final = 50
"""The engine's defaults."""
_SEARCH_SECONDS_MIN: Final = 1.0
_RESIDENT_BLOCK: Final = 50_000


@dataclass(frozen=True, slots=True)
class Resident:
    """A process with an index and nothing else."""

    mib: float
    build_seconds: float


def build(rows: Rows) -> tuple[hnswlib.Index, float]:
    """An index of rows of unit length, made by one call, and the seconds that it took."""
    index = _new_index(rows.shape[1], len(rows))
    started = time.perf_counter()
    index.add_items(rows, num_threads=THREADS)
    return index, time.perf_counter() - started


def search_rate(index: hnswlib.Index, queries: Rows, k: int) -> tuple[float, float]:
    """Queries per second when all are given in one call, for a second or more; processor seconds of one."""
    calls, started, cpu = 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - started) < _SEARCH_SECONDS_MIN:
        index.knn_query(queries, k, num_threads=THREADS)
        calls += 1
    answered = calls * len(queries)
    return answered / elapsed, (time.process_time() - cpu) / answered


def search(index: hnswlib.Index, queries: Rows, k: int) -> list[list[int]]:
    """The labels found for each query."""
    labels: list[list[int]] = index.knn_query(queries, k, num_threads=THREADS)[0].tolist()
    return labels


def resident(count: int, dimension: int) -> Resident:
    """Return the memory of a process that holds nothing but an index of so many rows."""
    command = [sys.executable, "-m", __name__, str(count), str(dimension)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return Resident(**json.loads(done.stdout))


def _new_index(dimension: int, count: int) -> hnswlib.Index:
    index = hnswlib.Index("ip", dimension)
    index.init_index(max_elements=count, M=CONNECTIONS, ef_construction=EF_CONSTRUCTION)
    index.set_ef(EF_SEARCH)
    return index


def _main(count: int, dimension: int) -> None:
    mixture = Mixture(dimension)
    index = _new_index(dimension, count)
    seconds = 0.0
    for start in range(0, count, _RESIDENT_BLOCK):
        rows = mixture.rows(min(_RESIDENT_BLOCK, count - start), start)
        started = time.perf_counter()
        index.add_items(rows, np.arange(start, start + len(rows)), num_threads=THREADS)
        seconds += time.perf_counter() - started
        del rows
    status = Path("/proc/self/status").read_text()
    mib = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    print(json.dumps({"mib": mib, "build_seconds": seconds}))


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
