"""Runs parts over worker processes, until their goals are reached; tells how far it is.

A worker that dies or a batch that hangs is a finding: the engine runs in the workers.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from tests.crash.prove.part import Batch, Finding, Outcome, Part
from tests.engine_process import end_with_parent

MEMORY = "/dev/shm"
BATCH_SECONDS_MAX = 600.0
WORKERS = (os.cpu_count() or 1) + 1
"""One more than processors: each waits now and then, for a thread or a sync."""

Told = Callable[["Progress"], None]


@dataclass
class Progress:
    """How far one part is."""

    part: Part
    goal: int | None
    outcome: Outcome = field(default_factory=Outcome)
    begun_at: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def reached(self) -> bool:
        """Enough was tried."""
        return self.goal is not None and self.outcome.count >= self.goal

    @property
    def seconds_left(self) -> float | None:
        """By the pace so far; None while there is none, or no goal."""
        if self.goal is None or not self.outcome.count:
            return None
        return max(self.goal - self.outcome.count, 0) * self.seconds / self.outcome.count


def run_part(
    part: Part, depth: str, goal: int | None, seed: int, told: Told, *, stop_at_first: bool = False
) -> Progress:
    """Run batches until the goal is reached, they end, or (if asked) one finds something."""
    progress = Progress(part, goal)
    batches = part.batches(depth, seed)
    for outcome in _outcomes(batches, lambda: progress.reached):
        progress.outcome.add(outcome)
        progress.seconds = time.monotonic() - progress.begun_at
        told(progress)
        if stop_at_first and progress.outcome.findings:
            break
    return progress


def run_batch(batch: Batch) -> Outcome:
    """One batch in a folder of its own; what it raises is a finding."""
    silence()
    folder = Path(tempfile.mkdtemp(prefix="prove-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        return batch.run(folder)
    except Exception:  # noqa: BLE001 - whatever it is, somebody must look at it
        return Outcome(1, findings=[Finding(f"the batch ended with\n{traceback.format_exc()}", str(batch))])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def silence() -> None:
    """The engine's log lines of thousands of starts are of no use."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _outcomes(batches: Iterable[Batch], enough: Callable[[], bool]) -> Iterator[Outcome]:
    """What becomes of batches, as they end; no more are begun when it is enough."""
    waiting = iter(batches)
    running: dict[Future[Outcome], Batch] = {}
    workers = _workers()
    try:
        while True:
            while not enough() and len(running) < WORKERS and (batch := next(waiting, None)) is not None:
                running[workers.submit(run_batch, batch)] = batch
            if not running:
                return
            done, _ = wait(running, BATCH_SECONDS_MAX, FIRST_COMPLETED)
            if not done:
                yield _lost(running, "hangs")
                return
            for future in done:
                batch = running.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    yield _lost({future: batch} | running, "killed its process")
                    return
    finally:
        _end(workers)


def _workers() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn"), end_with_parent)


def _lost(running: dict[Future[Outcome], Batch], how: str) -> Outcome:
    return Outcome(1, findings=[Finding(f"a batch {how}: one of these", str(list(running.values())))])


def _end(workers: ProcessPoolExecutor) -> None:
    """Without waiting for what is under way."""
    processes = list((workers._processes or {}).values())
    workers.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
