"""A record of the real server at work: its calls on the volume, and the answers to its clients, in order."""

from __future__ import annotations

import bisect
import functools
import os
import pickle
import random
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.crash.ledger import Ledger
from tests.crash.power.client import Client, answers_in
from tests.crash.power.events import Event, Mapping, Rename, Sync
from tests.crash.power.moments import places_in
from tests.crash.power.recorded_server import RecordedServer
from tests.crash.power.states import MAPPED_SUFFIX
from tests.crash.power.trace import TraceError
from tests.crash.prove.runner import SHARED
from vecstow_engine.storage.files import locked

FLAGS = ("--rescan-seconds", 0.2, "--reserve-bytes", 0)
CHECKPOINT_SECONDS, CHECKPOINT_SECONDS_AFTER_FAILURE = 0.04, 0.4
"""After a sync that failed a checkpoint would soon make durable by other means what may be lost."""
HANDLES_MAX = (128, 2)
"""With few, readers open and close the point tables all the time, and SQLite makes and removes its files."""
RECORDS_MAX = 3
SYNC_TAKES = "fdatasync:delay_enter=1500"
"""Microseconds: writers that come meanwhile share the next one."""


@dataclass
class Recording:
    """All of it, in memory."""

    seed: int
    events: list[Event]
    """In the order in which they were over."""
    ledgers: Sequence[Ledger]
    told: dict[str, list[int]]
    """By client: where each entry of its ledger was answered."""
    begun: int
    """From here on every collection is in a ledger."""

    def answered(self, position: int) -> dict[str, int]:
        """How many entries of each ledger had their answers."""
        return {client: bisect.bisect_left(told, position) for client, told in self.told.items()}

    def positions(self) -> list[int]:
        """Where the power may go."""
        return [place for place in places_in(self.events) if place > self.begun]

    def mapped(self) -> set[str]:
        """Files that memory writes, unseen: what the proof says of these is nothing."""
        paths = {event.path for event in self.events if isinstance(event, Mapping)}
        return {path for path in paths if not path.endswith(MAPPED_SUFFIX)}


@functools.lru_cache(maxsize=1)
def recording(seed: int, operations: int, fails: bool) -> Recording:
    """Take one of this run, or make it. `fails`: a sync of the first process does."""
    if SHARED not in os.environ:
        return _made(seed, operations, fails)
    path = Path(os.environ[SHARED]) / f"record-{seed}-{operations}-{fails}"
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            path.write_bytes(pickle.dumps(_made(seed, operations, fails)))
    record: Recording = pickle.loads(path.read_bytes())
    return record


def _made(seed: int, operations: int, fails: bool) -> Recording:
    """A kill may cut strace off in the middle of a call that it prints: such a record is rebuilt."""
    unread = TraceError("")
    for _ in range(RECORDS_MAX):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            try:
                return _Session(Path(folder), seed, operations, fails).record()
            except TraceError as error:
                unread = error
    raise unread


def _fails_a_log(events: list[Event]) -> bool:
    """Whether a sync of a segment failed: without one the record shows nothing that a failed sync can do."""
    logs = {event.inode for event in events if isinstance(event, Rename) and event.new.endswith(".log")}
    return any(isinstance(event, Sync) and not event.ok and event.inode in logs for event in events)


class _Session:
    """Three processes on one volume: two are killed, the second one stops in order."""

    def __init__(self, folder: Path, seed: int, operations: int, fails: bool) -> None:
        self._chance = random.Random(seed)
        self._seed, self._operations, self._fails = seed, operations, fails
        seconds = CHECKPOINT_SECONDS_AFTER_FAILURE if fails else CHECKPOINT_SECONDS
        handles = HANDLES_MAX[seed % len(HANDLES_MAX)]
        flags = (*FLAGS, "--checkpoint-seconds", seconds, "--handles-max", handles)
        self._server = RecordedServer(folder, *flags)
        self._clients = [Client.admin(seed), *(Client.writer(name, seed) for name in "bcd")]

    def record(self) -> Recording:
        try:
            for number, end in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)):
                self._live(number, end)
        finally:
            for client in self._clients:
                client.leave()
        events = self._server.events
        if self._fails and not _fails_a_log(events):
            raise TraceError(f"in the record of seed {self._seed} no sync of a log fails")
        answers = answers_in(events, self._server.ends)
        told = {c.ledger.client: c.ledger.told_at(answers, self._server.ends) for c in self._clients}
        ledgers = [client.ledger for client in self._clients]
        return Recording(self._seed, events, ledgers, told, answers[self._clients[0].begun])

    def _live(self, number: int, end: signal.Signals) -> None:
        self._server.inject = list(self._injected(number))
        self._server.start()
        for client in self._clients:
            client.begin(number, self._server.port)
        # After a failure most is refused; what comes after the restart says more.
        self._work(end, self._operations // 3 if self._fails and number == 0 else self._operations)

    def _injected(self, number: int) -> Iterator[str]:
        if self._fails and number == 0:
            # strace counts by thread; an engine spreads its operations over several.
            yield f"fdatasync:error=EIO:when={self._chance.randint(1, self._operations // 8)}"
            yield f"fsync:error=EIO:when={self._chance.randint(25, 60)}"
        else:
            yield SYNC_TAKES

    def _work(self, end: signal.Signals, operations: int) -> None:
        """All clients at once; the end comes while they work, or SIGTERM when they are done."""
        with ThreadPoolExecutor(len(self._clients)) as threads:
            stop = threading.Event()
            work = [threads.submit(c.work, operations, stop) for c in self._clients]
            if end == signal.SIGKILL:
                work[1].result()
                self._server.kill()
            stop.set()
            for each in work:
                each.result()
        if end == signal.SIGTERM:
            self._server.stop()
