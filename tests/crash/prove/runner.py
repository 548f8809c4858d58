"""Runs parts over worker processes, until their goals are reached; tells how far it is.

A worker that dies or a batch that hangs is a finding: the engine runs in the workers.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import os
import re
import shutil
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from tests.crash.prove.part import Batch, Finding, Outcome, Part
from tests.engine_process import end_with_parent

MEMORY = "/dev/shm"
SHARED = "VECSTOW_PROVE_SHARED"
"""The variable that names a folder which the processes of a run share."""
BATCH_SECONDS_MAX = 600.0
LOST = "a batch that"
"""A finding that begins so is of a process, not of a case."""
WORKERS = (os.cpu_count() or 1) + 1
"""One more than processors: each waits now and then, for a thread or a sync."""

Told = Callable[["Progress"], None]


@dataclass(eq=False)
class Progress:
    """How far one part is."""

    part: Part
    goal: int | None
    outcome: Outcome = field(default_factory=Outcome)
    begun_at: float | None = None
    seconds: float = 0.0
    all_begun: bool = False
    """It has no more batches."""

    def begin(self) -> None:
        """A batch of it begins."""
        if self.begun_at is None:
            self.begun_at = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """A batch of it ended."""
        assert self.begun_at is not None
        self.outcome.add(outcome)
        self.seconds = time.monotonic() - self.begun_at

    @property
    def reached(self) -> bool:
        """Enough was tried."""
        return self.goal is not None and self.outcome.count >= self.goal

    @property
    def has_lost_workers(self) -> bool:
        """A process is gone, or hangs: nothing more can be run."""
        return any(finding.what.startswith(LOST) for finding in self.outcome.findings)

    def says(self, pattern: str | None) -> bool:
        """Whether a finding matches the regular expression; without one none does."""
        return pattern is not None and any(re.search(pattern, f.what) for f in self.outcome.findings)

    @property
    def seconds_left(self) -> float | None:
        """By the pace so far; None while there is none, or no goal."""
        if self.goal is None or not self.outcome.count:
            return None
        return max(self.goal - self.outcome.count, 0) * self.seconds / self.outcome.count


def run_parts(
    wanted: Iterable[tuple[Part, int | None]],
    depth: str,
    seed: int,
    told: Told,
    *,
    stop_at: str | None = None,
) -> Iterator[Progress]:
    """Run each part's batches until its goal is reached or they end; yields each part when it is done.

    A part begins while the last batches of the one before it are under way. All of it ends with the first
    finding that the regular expression `stop_at` matches.
    """
    line = Line([Progress(part, goal) for part, goal in wanted], depth, seed)
    with _workers() as workers:
        while running := line.fill(workers):
            done, _ = wait(running, BATCH_SECONDS_MAX, FIRST_COMPLETED)
            for future in done or [next(iter(running))]:
                progress, batch = running.pop(future)
                progress.add(_outcome(future, batch))
                told(progress)
                if progress.says(stop_at) or progress.has_lost_workers:
                    yield progress
                    return
            yield from line.take_ended()


def run_part(part: Part, depth: str, goal: int | None, seed: int, told: Told) -> Progress:
    """One part alone."""
    [progress] = run_parts([(part, goal)], depth, seed, told)
    return progress


class Line:
    """Parts, one after the other, and their batches that run."""

    def __init__(self, parts: list[Progress], depth: str, seed: int) -> None:
        self._waiting = deque((progress, progress.part.batches(depth, seed)) for progress in parts)
        self._open = list(parts)
        self._running: dict[Future[Outcome], tuple[Progress, Batch]] = {}

    def fill(self, workers: ProcessPoolExecutor) -> dict[Future[Outcome], tuple[Progress, Batch]]:
        """Give each idle worker a batch, if there is one; returns what runs."""
        while self._waiting and len(self._running) < WORKERS:
            progress, batches = self._waiting[0]
            batch = None if progress.reached else next(batches, None)
            if batch is None:
                progress.all_begun = True
                self._waiting.popleft()
            else:
                progress.begin()
                self._running[workers.submit(run_batch, batch)] = progress, batch
        return self._running

    def take_ended(self) -> Iterator[Progress]:
        """Yield the parts that run no batch any more, and will run none."""
        busy = {id(progress) for progress, _ in self._running.values()}
        ended = [p for p in self._open if (p.all_begun or p.reached) and id(p) not in busy]
        self._open = [progress for progress in self._open if progress not in ended]
        yield from ended


def run_batch(batch: Batch) -> Outcome:
    """One batch in a folder of its own; what it raises is a finding."""
    silence()
    folder = Path(tempfile.mkdtemp(prefix="prove-", dir=memory()))
    multiprocessing.util.get_temp_dir()  # made before, since it outlives the batch
    usual, tempfile.tempdir = tempfile.tempdir, str(folder)  # a check copies tables: in memory too
    try:
        return batch.run(folder)
    except Exception:  # noqa: BLE001 - whatever it is, a person must look at it
        return Outcome(1, findings=[Finding(f"the batch ended with\n{traceback.format_exc()}", str(batch))])
    finally:
        tempfile.tempdir = usual
        shutil.rmtree(folder, ignore_errors=True)


def silence() -> None:
    """The engine's log lines of thousands of starts are of no use."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _outcome(future: Future[Outcome], batch: Batch) -> Outcome:
    """Return the outcome of a batch. A batch that hangs, or kills its process, is a finding."""
    if not future.done():
        return _lost(batch, "hangs, or runs beside one that does")
    try:
        return future.result()
    except BrokenProcessPool:
        return _lost(batch, "killed its process, or ran beside one that did")


@contextmanager
def _workers() -> Iterator[ProcessPoolExecutor]:
    """Processes that share a folder while they live, and are not waited for at the end."""
    with tempfile.TemporaryDirectory(prefix="prove-", dir=memory()) as shared:
        os.environ[SHARED] = shared
        workers = ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"), end_with_parent)
        try:
            yield workers
        finally:
            _end(workers)
            del os.environ[SHARED]  # the folder goes now: no later process may look for it


def memory() -> str | None:
    """A folder in memory, where there is one."""
    return MEMORY if os.access(MEMORY, os.W_OK) else None


def _lost(batch: Batch, how: str) -> Outcome:
    return Outcome(findings=[Finding(f"{LOST} {how}", str(batch))])


def _end(workers: ProcessPoolExecutor) -> None:
    """Without waiting for what is under way."""
    processes = list((workers._processes or {}).values())
    workers.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
