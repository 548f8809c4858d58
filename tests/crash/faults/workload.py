"""One round of everything that changes a volume, the same each time, as steps with names.

Client `a` has collections of its own, `a` to `c` write into the shared ones. Only what the steps ask for
happens: nothing on the volume is done by the clock, so the N-th call of a round is the same place in it
each time, but for the moments when three clients write at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from tests.crash.faults.writer import DIMENSION, Writer
from tests.crash.ledger import ALIAS, Points
from tests.unit.store_on_disk import StoreOnDisk, vector

FLAGS = ("--checkpoint-seconds", 1e9, "--rescan-seconds", 1e9, "--reserve-bytes", 1 << 20)
OWN, NEW, COPY, IMPORTED = "own", "new", "copy", "imported"
SHARED, GRAPH = "shared", "graph"
SECOND = "second"
"""An alias, which leads to one and then to the other of the two."""
GRAPH_POINTS = 1_100
"""Enough that the index is a graph, which has a snapshot."""
AT_ONCE = 4
"""Batches of each client while all three write."""

Step = tuple[str, Callable[[], object]]


class Workload:
    """The clients, and the rounds that they go. `orphan` is a folder to import from."""

    def __init__(self, seed: int, orphan: Path) -> None:
        self.orphan = orphan
        self.slow_syncs: Callable[[], AbstractContextManager[None]] = nullcontext
        """Slows the syncs, so that writers gather."""
        self.orphaned = make_orphan(orphan)
        self.main = Writer(
            "a", seed, owned=(OWN, NEW, COPY, IMPORTED, ALIAS + SECOND), shared=(SHARED, GRAPH)
        )
        self.others = [Writer("b", seed, shared=(SHARED, GRAPH)), Writer("c", seed, shared=(SHARED, GRAPH))]
        self.backup: str | None = None
        """The path of the last backup."""

    @property
    def writers(self) -> list[Writer]:
        """All clients."""
        return [self.main, *self.others]

    @property
    def flags(self) -> tuple[object, ...]:
        """The flags that the server starts with."""
        return (*FLAGS, "--import-root", self.orphan.parent)

    def connect(self, port: int) -> None:
        """All clients, to a server that was started again."""
        for writer in self.writers:
            writer.connect(port)

    def disconnect(self) -> None:
        """All clients."""
        for writer in self.writers:
            writer.disconnect()

    def found(self) -> None:
        """Make what all rounds share, on a new volume."""
        self.main.rest.create(SHARED, DIMENSION)
        self.main.rest.create(GRAPH, DIMENSION, "Cosine")
        self.main.fill(GRAPH, [f"a/{number}" for number in range(GRAPH_POINTS)])

    def ids(self, name: str) -> list[str]:
        """All that were ever used in one collection."""
        if name == GRAPH:
            return [f"a/{number}" for number in range(GRAPH_POINTS)]
        return [*self.orphaned, *(point_id for writer in self.writers for point_id in writer.ids())]

    def tidy(self, data: Path) -> None:
        """Bring the volume to where a round begins, whatever a crash left; the last round's backup is served
        as a collection, so that it is read too.
        """
        main, served = self.main, self.main.served()
        main.late.clear()
        for name in (NEW, COPY, IMPORTED):
            if name in served:
                main.hard_delete(name)
        self._restore_backup()
        if COPY not in main.served():
            main.create(COPY)
        self.backup = None
        for path in (data / ".backups").glob(f"{OWN}-*Z"):
            shutil.rmtree(path)  # their names have seconds: two of one second are a conflict
        if OWN not in served:
            trash = main.trash()
            if OWN in trash:
                main.restore(OWN, trash[OWN], OWN)
            else:
                main.create(OWN)
        main.purge()
        for name in (OWN, SHARED, GRAPH):
            main.put(name, 6)
            main.check(name)

    def steps(self) -> Iterator[Step]:
        """One round."""
        main = self.main
        yield "ingest", lambda: (main.put(OWN, 5), main.put_one(OWN), main.delete(OWN, 2), main.put(OWN, 1))
        yield "group commit", self._write_at_once
        yield "checkpoint", lambda: main.check(SHARED)
        yield "ingest", lambda: (main.put(SHARED, 3), main.delete(GRAPH, 3), main.put(GRAPH, 4))
        yield "alias", lambda: (main.lead(SECOND, SHARED), main.lead(SECOND, GRAPH))
        yield "compact", lambda: main.compact(SHARED)
        yield "create", lambda: main.create(NEW)
        yield "first write", lambda: main.put(NEW, 4)
        yield "backup", self._back_up
        yield "ingest", lambda: (main.put(OWN, 3), main.delete(OWN, 1))
        yield "drop", lambda: main.drop(OWN)
        yield "restore", self._restore
        yield "ingest", lambda: main.put(OWN, 2)
        yield "restore a backup", self._restore_backup
        yield "ingest", lambda: main.put(COPY, 2)
        yield "import", lambda: main.take_in(IMPORTED, str(self.orphan), self.orphaned)
        yield "ingest", lambda: main.put(IMPORTED, 2)
        yield "hard delete", lambda: main.hard_delete(NEW)
        yield "drop", lambda: main.drop(IMPORTED)
        yield "cleanup", main.purge
        yield "checkpoint", lambda: main.check(OWN)

    def _write_at_once(self) -> None:
        """All clients into one log: what waits while one sync runs shares the next."""
        with self.slow_syncs(), ThreadPoolExecutor(len(self.writers)) as threads:
            for work in [threads.submit(_write_batches, *each) for each in enumerate(self.writers)]:
                work.result()

    def _back_up(self) -> None:
        self.backup = self.main.backup(OWN)

    def _restore(self) -> None:
        if (path := self.main.trash().get(OWN)) is not None:
            self.main.restore(OWN, path, OWN)

    def _restore_backup(self) -> None:
        if self.backup is not None:
            if COPY in self.main.served():
                self.main.hard_delete(COPY)
            self.main.restore(f"backup of {OWN}", self.backup, COPY)


def make_orphan(folder: Path) -> Points:
    """Data files without a manifest; returns the points in them."""
    values = {f"o{number}": float(number + 1) for number in range(8)}
    store = StoreOnDisk(folder.with_name("made"))
    store.put(**values)
    store.checkpoint()
    store.close()
    shutil.copytree(store.folder, folder, ignore=shutil.ignore_patterns("metadata.json", "*-shm"))
    shutil.rmtree(store.data)
    return {name: (np.array(vector(value), "<f4").tobytes(), {"v": value}) for name, value in values.items()}


def _write_batches(place: int, writer: Writer) -> None:
    """Batches of different sizes, so that half of what one append holds may be a whole record."""
    for number in range(AT_ONCE):
        writer.put(SHARED, 1 + 4 * ((number + place) % 3))
    writer.delete(SHARED, 2)
