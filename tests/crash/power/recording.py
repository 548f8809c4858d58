"""A record of the real server at work: what it did to its volume, what its clients were told, and when."""

from __future__ import annotations

import bisect
import functools
import pickle
import random
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.ledger import Ledger
from tests.crash.power.client import Client, answers_in
from tests.crash.power.events import Answered, Event, Mapping, Rename, Sync, Unlink
from tests.crash.power.recorded_server import RecordedServer
from tests.crash.power.states import MAPPED_SUFFIX

FLAGS = ("--checkpoint-seconds", 0.04, "--rescan-seconds", 0.2, "--reserve-bytes", 0)
SYNC_TAKES = "fdatasync:delay_enter=1500"
"""Microseconds: writers that come meanwhile share the next one."""
KEPT = Path(tempfile.gettempdir()) / "vecstow-prove"
"""Where a record is put that a finding is in."""


@dataclass
class Recording:
    """All of it, in memory."""

    seed: int
    events: list[Event]
    """In the order in which they were over."""
    ledgers: list[Ledger]
    told: dict[str, list[int]]
    """By client: where each entry of its ledger was answered."""
    begun: int
    """From here on every collection is in a ledger."""
    path: Path | None = field(default=None, compare=False)
    """Where it is kept, if it is."""

    def answered(self, position: int) -> dict[str, int]:
        """How many entries of each ledger had their answers."""
        return {client: bisect.bisect_left(told, position) for client, told in self.told.items()}

    def positions(self) -> list[int]:
        """Where the power may go: within each event, and after it."""
        places = {place for e in self.events for place in (e.entry + 1, e.exit + 1)}
        return sorted(place for place in places if place > self.begun)

    def weights(self, positions: list[int]) -> list[float]:
        """The moments beside a sync, a rename, an unlink or an answer say most."""
        turning = (Sync, Rename, Unlink, Answered)
        near = {place for e in self.events if isinstance(e, turning) for place in (e.entry + 1, e.exit + 1)}
        return [3.0 if position in near else 1.0 for position in positions]

    def mapped(self) -> set[str]:
        """Files that memory writes, unseen: what the proof says of these is nothing."""
        paths = {event.path for event in self.events if isinstance(event, Mapping)}
        return {path for path in paths if not path.endswith(MAPPED_SUFFIX)}

    def keep(self) -> Path:
        """Write it where it can be found again."""
        if self.path is None:
            KEPT.mkdir(exist_ok=True)
            descriptor, name = tempfile.mkstemp(".record", f"seed-{self.seed}-", KEPT)
            self.path = Path(name)
            with open(descriptor, "wb") as stream:
                pickle.dump(self, stream)
        return self.path


def load(path: Path) -> Recording:
    """A record that was kept."""
    with path.open("rb") as stream:
        found: Recording = pickle.load(stream)
    found.path = path
    return found


@functools.lru_cache(maxsize=1)
def recording(seed: int, operations: int, fails: bool) -> Recording:
    """Make one, or take the last one again. `fails`: a sync of the first process does."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        return _Session(Path(folder), seed, operations, fails).record()


class _Session:
    """Three processes on one volume: two are killed, the second one stops in order."""

    def __init__(self, folder: Path, seed: int, operations: int, fails: bool) -> None:
        self._chance = random.Random(seed)
        self._seed, self._operations, self._fails = seed, operations, fails
        self._server = RecordedServer(folder, *FLAGS)
        self._clients = [Client.admin(seed), *(Client.writer(name, seed) for name in "bcd")]

    def record(self) -> Recording:
        for number, end in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)):
            self._server.inject = list(self._injected(number))
            self._server.start()
            for client in self._clients:
                client.begin(number, self._server.port)
            self._work(end)
        for client in self._clients:
            client.leave()
        events = self._server.events
        answers = answers_in(events, self._server.ends)
        told = {c.ledger.client: c.ledger.told_at(answers, self._server.ends) for c in self._clients}
        ledgers = [client.ledger for client in self._clients]
        return Recording(self._seed, events, ledgers, told, answers[self._clients[0].begun])

    def _injected(self, number: int) -> Iterator[str]:
        if self._fails and number == 0:
            yield f"fdatasync:error=EIO:when={self._chance.randint(12, 40)}"
            yield f"fsync:error=EIO:when={self._chance.randint(25, 60)}"
        else:
            yield SYNC_TAKES

    def _work(self, end: signal.Signals) -> None:
        """All clients at once; the end comes while they work, or SIGTERM when they are done."""
        with ThreadPoolExecutor(len(self._clients)) as threads:
            stop = threading.Event()
            work = [threads.submit(c.work, self._operations, stop) for c in self._clients]
            if end == signal.SIGKILL:
                work[1].result()
                self._server.kill()
            stop.set()
            for each in work:
                each.result()
        if end == signal.SIGTERM:
            self._server.stop()
