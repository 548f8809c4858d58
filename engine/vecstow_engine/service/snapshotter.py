"""`index.bin`, written by a forked child from a quiescent graph, and `payload.bin` (rule 13 of the disk).

hnswlib's save blocks the interpreter for its whole duration. With a child, only the fork itself blocks the
engine. The child holds no lock and no descriptor, and dies with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hnsw import HNSWLIB_VERSION
from vecstow_engine.index.payload.columns_file import FILE_VERSION, file_parts
from vecstow_engine.model.errors import StorageError
from vecstow_engine.service.collection import Collection
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import COLUMNS
from vecstow_engine.storage.snapshots import (
    describe_columns,
    describe_snapshot,
    install_snapshot,
    refuse_without_room,
    snapshot_temporary,
)

POLL_SECONDS: Final = 0.02
CHILD_SECONDS_MAX: Final = 600.0
PR_SET_PDEATHSIG: Final = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

log = structlog.stdlib.get_logger(__name__)


def take_snapshot(collection: Collection, checkpoint: Callable[[], object]) -> bool:
    """Write and install index.bin of one collection. The caller holds the collection's upkeep lock.

    `checkpoint` makes the contents of the graph durable. Returns False when there is no graph, or when the
    checkpoint did not contain all of it. Raises DiskFull, StorageError, files.SyncFailed, or Quarantined when
    the collection's files are gone.
    """
    store, index = collection.store, collection.index
    assert store is not None and index is not None
    collection.refuse_if_gone()
    path = snapshot_temporary(store.layers.folder)
    files.remove(path)
    with index.fork_point() as graph:
        if graph is None or graph.live_count == 0:
            return False
        sequence, count, size = store.last_sequence, graph.row_count, graph.hnsw.file_size()
        space, connections = graph.hnsw.space, graph.hnsw.max_connections
        refuse_without_room(store.layers.folder, size)
        child = _fork(graph, path)
    try:
        _wait(child)
        collection.refuse_if_gone()
        entry = describe_snapshot(
            store.layers.folder,
            expected_bytes=size,
            sequence=sequence,
            space=space,
            max_connections=connections,
            library=HNSWLIB_VERSION,
        )
        if store.meta.applied < sequence:
            checkpoint()
        if store.meta.applied < sequence:
            return False
        with store.fatal_errors("recording a snapshot of the index"):
            install_snapshot(store.layers.folder, entry)
    finally:
        files.remove(path)  # without an error the file was renamed; otherwise its room is freed
    collection.snapshot_sequence, collection.snapshot_rows = sequence, count
    log.info("index snapshot written", collection=collection.name, bytes=size, rows=count, sequence=sequence)
    return True


def save_columns(collection: Collection, checkpoint: Callable[[], object]) -> bool:
    """Write and install payload.bin of one collection. The caller holds the collection's upkeep lock.

    `checkpoint` makes the points in the columns durable. Returns False when there are no complete columns,
    when a write fails meanwhile, or when the checkpoint did not contain all points. Raises the errors of
    `take_snapshot`.
    """
    store, columns = collection.store, collection.payload_indexes.complete
    assert store is not None
    if columns is None:
        return False
    collection.refuse_if_gone()
    folder = store.layers.folder
    path = snapshot_temporary(folder, COLUMNS)
    files.remove(path)
    refuse_without_room(folder, columns.memory_bytes, COLUMNS)
    try:
        changes = columns.changes
        with files.closing(files.open_new(path)) as fd:
            files.write_parts(fd, file_parts(columns))
        if columns.is_torn:
            return False
        # Each point in the file was logged before it came into the columns.
        sequence = store.last_sequence
        entry = describe_columns(folder, sequence=sequence, version=FILE_VERSION)
        if store.meta.applied < sequence:
            checkpoint()
        if store.meta.applied < sequence:
            return False
        with store.fatal_errors("recording a snapshot of the payload indexes"):
            install_snapshot(folder, entry)
    finally:
        files.remove(path)
    columns.saved(changes)
    log.info("payload indexes written", collection=collection.name, bytes=entry.bytes, sequence=sequence)
    return True


def _fork(graph: HnswGraph, path: Path) -> int:
    parent = os.getpid()
    with warnings.catch_warnings():
        # Python warns of a fork with threads. The child runs only this thread, and only code of hnswlib.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _save_and_exit(graph, path, parent)
    return child


def _save_and_exit(graph: HnswGraph, path: Path, parent: int) -> None:
    """Save the graph in the child, and exit: this function never returns."""
    try:
        # The engine's handlers would catch the signals that must end this process.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            os.umask(0o027)
            graph.save(str(path))
            os._exit(0)
    finally:
        os._exit(1)


def _wait(child: int) -> None:
    deadline = time.monotonic() + CHILD_SECONDS_MAX
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    if status != 0:
        raise StorageError(f"the child that saves the index ended with status {status}")
