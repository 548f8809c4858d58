"""Threads that no collection and no API key can take for itself: one stays for the others, and so does room
to wait in. Waiting calls have a queue for each collection and key, and the queues are served in turn.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from vecstow_engine.model.errors import Busy, Unavailable

TENANT: Final[ContextVar[str | None]] = ContextVar("tenant", default=None)
"""The name of the request's API key; None without keys."""

Done = Callable[["asyncio.Future[Any]"], None]
_Answer = TypeVar("_Answer")
_Owners = tuple[Hashable, ...]


@dataclass(slots=True)
class _Job:
    """One call, and the callback for its end."""

    call: Callable[..., Any]
    values: tuple[object, ...]
    done: Done
    is_wanted: Callable[[], bool]


class FairPool:
    """A pool of threads, used from one event loop. An owner (a collection, a key) gets all but one at most.

    `waiting_max`: the limit of waiting calls. One owner gets half. Beyond a limit `run` and `submit`
    raise Busy.
    """

    def __init__(self, threads: int, name: str, waiting_max: int | None = None) -> None:
        self._threads = threads
        self._running_max = max(1, threads - 1)
        self._waiting_max = waiting_max
        self._what = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._running: dict[Hashable, int] = {}
        self._running_total = 0
        self._queues: OrderedDict[_Owners, deque[_Job]] = OrderedDict()
        self._waiting: Counter[Hashable] = Counter()
        self._waiting_total = 0

    async def run(self, collection: Hashable, call: Callable[..., _Answer], *values: object) -> _Answer:
        """Run a call in a thread, and return its result. `collection` is None for a call without one."""
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self.submit(collection, call, values, partial(_pass_on, future), lambda: not future.cancelled())
        return await future

    def submit(
        self,
        collection: Hashable,
        call: Callable[..., Any],
        values: tuple[object, ...],
        done: Done,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Run a call like `run`, without waiting: the event loop calls `done` with the finished future."""
        tenant = TENANT.get()
        owners: _Owners = (collection,) if collection is not None else ()
        if tenant is not None:
            owners += (("key", tenant),)
        job = _Job(call, values, done, is_wanted)
        if self._may_run(owners):
            self._start(owners, job)
        else:
            self._refuse_beyond_limit(owners)
            self._queues.setdefault(owners, deque()).append(job)
            self._waiting.update(owners)
            self._waiting_total += 1

    def shutdown(self, *, wait: bool) -> None:
        """Start no more calls; with `wait`, return after the running calls ended."""
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _may_run(self, owners: _Owners) -> bool:
        return self._running_total < self._threads and all(
            self._running.get(owner, 0) < self._running_max for owner in owners
        )

    def _refuse_beyond_limit(self, owners: _Owners) -> None:
        limit = self._waiting_max
        if limit is None:
            return
        if self._waiting_total >= limit:
            raise Busy(f"{self._waiting_total} {self._what} calls wait, the limit", retry_after_seconds=1)
        share = max(1, limit // 2)
        if any(self._waiting[owner] >= share for owner in owners):
            raise Busy(
                f"{share} {self._what} calls of this collection or key wait, the limit", retry_after_seconds=1
            )

    def _start(self, owners: _Owners, job: _Job) -> None:
        for owner in owners:
            self._running[owner] = self._running.get(owner, 0) + 1
        self._running_total += 1
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._pool, job.call, *job.values)
        except RuntimeError:
            running = loop.create_future()
            running.set_exception(Unavailable("the engine is stopping"))
        running.add_done_callback(partial(self._finish, owners, job.done))

    def _finish(self, owners: _Owners, done: Done, running: asyncio.Future[Any]) -> None:
        _discount(self._running, owners)
        self._running_total -= 1
        if self._queues:
            self._start_waiting()
        done(running)

    def _start_waiting(self) -> None:
        """Start the waiting calls that may run, one of each queue in turn."""
        while (owners := next(filter(self._may_run, self._queues), None)) is not None:
            queue = self._queues.pop(owners)
            job = queue.popleft()
            _discount(self._waiting, owners)
            self._waiting_total -= 1
            if queue:
                self._queues[owners] = queue  # behind the others
            if job.is_wanted():
                self._start(owners, job)


def _discount(counts: dict[Hashable, int], owners: _Owners) -> None:
    """Count one call less for each owner. Forget an owner without calls: a collection may hold a graph."""
    for owner in owners:
        left = counts.pop(owner) - 1
        if left:
            counts[owner] = left


def _pass_on(future: asyncio.Future[Any], finished: asyncio.Future[Any]) -> None:
    if future.cancelled():
        return
    error = asyncio.CancelledError() if finished.cancelled() else finished.exception()
    if error is None:
        future.set_result(finished.result())
    elif isinstance(error, Exception):
        future.set_exception(error)
    else:
        future.cancel()
