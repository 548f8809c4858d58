"""A client of the recorded server, which remembers which answer on which connection each entry's was."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.crash.faults.writer import DIMENSION, Gone, Writer
from tests.crash.ledger import ALIAS, Answer, Ledger, Operation, Points
from tests.crash.power.events import Answered, Event
from tests.crash.rest import Rest

SHAPES = {"floats": ("Euclidean", "Float32"), "halves": ("Cosine", "Float16"), "bytes": ("Manhattan", "Int8")}
"""Metric and type by name; of the last two a record has one."""
OWN, NEW, COPY, SECOND = "own", "new", "copy", "second"
PAYLOAD_BYTES_MAX = 900
"""Large enough that the records of one group lie in sectors of their own."""

Key = tuple[int, int, int]
"""Process, port of the connection, number of the answer on it."""


def answers_in(events: Sequence[Event], ends: Sequence[int]) -> dict[Key, int]:
    """Where each answer began to be sent."""
    return {
        (sum(event.entry >= end for end in ends), event.port, event.number): event.entry
        for event in events
        if isinstance(event, Answered)
    }


class TimedLedger(Ledger):
    """A ledger that keeps, for each entry, the key of its answer."""

    def __init__(self, client: str, owned: Iterable[str], shared: Iterable[str]) -> None:
        super().__init__(client, owned, shared)
        self.keys: list[Key] = []
        self.last: Key = (0, 0, 0)
        """The place of the answer to the last request."""

    def add(self, operation: Operation, answer: Answer) -> None:
        super().add(operation, answer)
        self.keys.append(self.last)

    def told_at(self, answers: Mapping[Key, int], ends: Sequence[int]) -> list[int]:
        """Where each entry was answered; one that never was, where its process ended."""
        return [answers.get(key, ends[key[0]]) for key in self.keys]


class CountedRest(Rest):
    """Tells the ledger the place of each answer."""

    def __init__(self, process: int, port: int, ledger: TimedLedger) -> None:
        super().__init__(port)
        self._process = process
        self._ledger = ledger
        self._counts: Counter[int] = Counter()

    def _request(self, *arguments: Any) -> Any:
        if self._connection.sock is None:
            self._connection.connect()
        port = self._connection.sock.getsockname()[1]
        self._ledger.last = self._process, port, self._counts[port]
        self._counts[port] += 1
        return super()._request(*arguments)


class Client(Writer):
    """One writer, or the one that also creates and drops."""

    def __init__(self, client: str, seed: int, owned: Iterable[str] = ()) -> None:
        self._shared = ("floats", ("halves", "bytes")[seed % 2])
        super().__init__(client, seed, owned, self._shared)
        self.ledger: TimedLedger = TimedLedger(client, owned, self._shared)
        self._is_admin = bool(owned)
        self._backup: str | None = None
        self.begun: Key = (0, 0, 0)
        """The answer from which on all shared collections are there."""

    @classmethod
    def admin(cls, seed: int) -> Client:
        return cls("a", seed, (OWN, NEW, COPY, ALIAS + SECOND))

    @classmethod
    def writer(cls, name: str, seed: int) -> Client:
        return cls(name, seed)

    def begin(self, process: int, port: int) -> None:
        """Connect to a server that was started; the first one's volume is new."""
        self.leave()
        self._rest = CountedRest(process, port, self.ledger)
        if self._is_admin and process == 0:
            for name in self._shared:
                self._rest.create(name, DIMENSION, *SHAPES[name])
            self.begun = self.ledger.last

    def leave(self) -> None:
        """Close the connection."""
        if self._rest is not None:
            self._rest.__exit__()

    def work(self, operations: int, stop: threading.Event) -> None:
        """Until so many operations are done; the admin until a round is done that ends when the others have;
        or until the server is gone.
        """
        try:
            if self._is_admin:
                self._tidy()
                while not stop.is_set():
                    self._administer()
            else:
                for _ in range(operations):
                    self._write(self._any_shared())
        except Gone:
            pass

    def points(self, ids: list[str]) -> Points:
        """Whole numbers up to 127, which all three types hold exactly; payloads of any size."""
        vectors = self._rng.integers(-127, 128, (len(ids), DIMENSION)).astype("<f4")
        vectors[:, self._rng.integers(DIMENSION)] = 127
        sizes = self._rng.integers(PAYLOAD_BYTES_MAX, size=len(ids)).tolist()
        return {
            point_id: (row.tobytes(), {"text": self._text(size)} if size % 8 else None)
            for point_id, row, size in zip(ids, vectors, sizes, strict=True)
        }

    def _text(self, size: int) -> str:
        return self._rng.bytes(size // 2).hex()

    def _any_shared(self) -> str:
        return str(self._rng.choice(self._shared, p=[0.7, 0.3]))

    def _write(self, name: str) -> None:
        kind = self._rng.random()
        if kind < 0.6:
            self.put(name, int(self._rng.integers(1, 7)))
        elif kind < 0.8:
            self.put_one(name)
        else:
            self.delete(name, int(self._rng.integers(1, 4)))

    def _administer(self) -> None:
        for step in (
            lambda: self.create(NEW), lambda: self._write(NEW), lambda: self._write(OWN), self._back_up,
            lambda: self.lead(SECOND, "floats"),
            lambda: self._write(OWN), lambda: self.drop(OWN), lambda: self._write("floats"),
            lambda: self.lead(SECOND, self._shared[1]),
            self._restore, lambda: self._write(OWN), lambda: self.hard_delete(NEW), self._restore_backup,
            lambda: self.compact("floats"), lambda: self._write(COPY),
            lambda: self.compact(self._shared[1]), lambda: self.hard_delete(COPY),
            lambda: self.drop(OWN), self.purge, lambda: self.create(OWN),
        ):  # fmt: skip
            step()

    def _tidy(self) -> None:
        """Begin a round with what every round begins with, whatever the crash left."""
        served = self.served()
        for name in (NEW, COPY):
            if name in served:
                self.hard_delete(name)
        if OWN not in served:
            self._restore() if OWN in self.trash() else self.create(OWN)

    def _back_up(self) -> None:
        self._backup = self.backup(OWN) or self._backup

    def _restore(self) -> None:
        if (path := self.trash().get(OWN)) is not None:
            self.restore(OWN, path, OWN)

    def _restore_backup(self) -> None:
        if self._backup is not None:
            self.restore(f"backup of {OWN}", self._backup, COPY)
