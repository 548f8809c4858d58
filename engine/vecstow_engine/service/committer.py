"""Group commit: writes that arrive while a log is synced share the next sync.

A fixed number of threads serve all collections; each log has one writer at a time. The bytes of waiting
writes are limited. A write beyond the limit is refused before it is logged, never after.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from vecstow_engine.index.places import row_bytes
from vecstow_engine.model.errors import Busy, DiskFull, VecstowError
from vecstow_engine.service.attempts import Attempts, Work
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.memory_accounts import Accounts
from vecstow_engine.service.settings import Settings
from vecstow_engine.storage.layers import ENTRY_OVERHEAD_BYTES, Applied
from vecstow_engine.storage.log.segment import Delete, Effect, payload_bytes
from vecstow_engine.storage.volume import Volume

THREADS: Final = 2
GROUP_BYTES_MAX: Final = 32 << 20
"""The most bytes of one log append; further writes go with the next append."""
POLL_SECONDS: Final = 0.01
SLOW_SECONDS: Final = 1.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class _Write:
    """One effect, and the future of the client that waits for it."""

    effect: Effect
    bytes: int
    """Memory that the effect takes in an overlay."""
    changes: int
    """Bytes of memory that the effect takes until a checkpoint and the graph contain it."""
    rows: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Applied]


class _Queue:
    """The writes that wait for one collection's log. `scheduled`: a thread commits them or will do so."""

    __slots__ = ("scheduled", "waiting", "waiting_bytes")

    def __init__(self) -> None:
        self.waiting: deque[_Write] = deque()
        self.waiting_bytes = 0
        self.scheduled = False


class Committer:
    """The queue of writes: accepts them on the event loop, commits them in its threads."""

    def __init__(
        self,
        settings: Settings,
        volume: Volume,
        accounts: Accounts,
        attempts: Attempts,
        create_files_of: Callable[[Collection], None],
        committed: Callable[[Collection], None],
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._accounts = accounts
        self._attempts = attempts
        self._create_files_of = create_files_of
        self._committed = committed
        self._lock = threading.Lock()
        self._queues: dict[Collection, _Queue] = {}
        self._waiting_bytes = 0
        self._accepts = True
        self._to_commit: queue.SimpleQueue[Collection | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"commit-{number}", daemon=True)
            for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether all threads of the committer are alive."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Take no more writes, and finish the accepted ones."""
        with self._lock:
            self._accepts = False
        for _ in self._threads:
            self._to_commit.put(None)
        for thread in self._threads:
            thread.join()

    async def write(self, collection: Collection, effect: Effect) -> Applied:
        """Commit one effect; return when the effect is durable and visible.

        Raises Busy when there was no room in time, TooLarge or OutOfMemory when waiting does not help,
        DiskFull on a full volume, and the errors of `Collection.writable` and `Collection.commit`.
        """
        if self._volume.full and not isinstance(effect, Delete):
            message = "the volume is full: only deletes are taken until there is room"
            hint = "drop collections or enlarge the volume; writes resume by themselves"
            raise DiskFull(message, collection=collection.name, operation="write", hint=hint)
        size, rows = _size(effect), 0 if isinstance(effect, Delete) else len(effect.rows)
        changes = size + rows * row_bytes(collection.manifest.dimension)
        self._accounts.refuse_batch(collection, changes)
        loop = asyncio.get_running_loop()
        write = _Write(effect, size, changes, rows, loop, loop.create_future())
        await self._wait_for_room(collection, write)
        self._enqueue(collection, write)
        # A write goes on after its client disconnects: it is logged already, or will be.
        return await asyncio.shield(write.future)

    async def _wait_for_room(self, collection: Collection, write: _Write) -> None:
        deadline = time.monotonic() + self._settings.limits.write_wait_seconds
        while (lack := self._lack(collection, write)) is not None:
            collection.writable()
            if time.monotonic() > deadline:
                message = (
                    f"not logged after {self._settings.limits.write_wait_seconds:g} s of waiting: {lack}"
                )
                raise Busy(message, collection=collection.name, operation="write", retry_after_seconds=5)
            await asyncio.sleep(POLL_SECONDS)

    def _lack(self, collection: Collection, write: _Write) -> str | None:
        """Return why a write must wait; None if there is room. Raises OutOfMemory when waiting is useless."""
        settings, size = self._settings, write.bytes
        queue_ = self._queues.get(collection)
        queued = queue_.waiting_bytes if queue_ is not None else 0
        overlay, tail = collection.waiting_bytes()
        if self._waiting_bytes and self._waiting_bytes + size > settings.limits.queue_bytes_max:
            return (
                f"{self._waiting_bytes} bytes wait for the log, of {settings.limits.queue_bytes_max} allowed"
            )
        if queued and queued + size > settings.limits.queue_bytes_max // 2:
            return f"{queued} bytes of this collection wait for the log, half of what all may have"
        if overlay and overlay + queued + size > settings.storage.overlay_bytes_max:
            return f"{overlay} bytes wait for a checkpoint, the limit is {settings.storage.overlay_bytes_max}"
        logged = collection.store.log.total_bytes if collection.store is not None else 0
        if overlay and logged + queued + size > settings.storage.overlay_bytes_max:
            return (
                f"the log has {logged} bytes until a checkpoint, "
                f"the limit is {settings.storage.overlay_bytes_max}"
            )
        if tail and tail + queued + size > settings.index.tail_bytes_max:
            return f"{tail} bytes wait for the index, the limit is {settings.index.tail_bytes_max}"
        return self._accounts.lack(collection, write.changes, write.rows)

    def _enqueue(self, collection: Collection, write: _Write) -> None:
        with self._lock:
            if not self._accepts:
                raise Busy("the engine is stopping; the write was not logged", retry_after_seconds=5)
            waiting = self._queues.setdefault(collection, _Queue())
            waiting.waiting.append(write)
            waiting.waiting_bytes += write.bytes
            self._waiting_bytes += write.bytes
            collection.count_queued(write.changes, write.rows)
            if not waiting.scheduled:
                waiting.scheduled = True
                self._to_commit.put(collection)

    def _run(self) -> None:
        while True:
            collection = self._to_commit.get()
            if collection is None:
                if self._all_done():
                    return
                self._to_commit.put(None)  # other threads still commit; this thread checks again
                time.sleep(POLL_SECONDS)
                continue
            group = self._take_group(collection)
            try:
                self._commit(collection, group)
            except Exception as error:  # noqa: BLE001  # The thread must live, for the other collections.
                self._attempts.fail(Work.COMMITTING, collection, error)
            self._release(collection, group)

    def _all_done(self) -> bool:
        with self._lock:
            return not self._queues

    def _take_group(self, collection: Collection) -> list[_Write]:
        with self._lock:
            waiting = self._queues[collection].waiting
            group = [waiting.popleft()]
            size = group[0].bytes
            while waiting and size + waiting[0].bytes <= GROUP_BYTES_MAX:
                group.append(waiting.popleft())
                size += group[-1].bytes
            return group

    def _commit(self, collection: Collection, group: list[_Write]) -> None:
        started = time.monotonic()
        try:
            collection.writable()
            if collection.store is None:
                self._create_files_of(collection)
            applied = collection.commit([write.effect for write in group])
        except DiskFull as error:
            self._commit_when_full(collection, group, error)
        except Exception as error:  # noqa: BLE001  # The waiting clients must get the error.
            if not isinstance(error, VecstowError | OSError):
                self._attempts.fail(Work.COMMITTING, collection, error)
            self._answer(collection, group, error)
        else:
            self._attempts.succeed(Work.COMMITTING, collection)
            self._answer(collection, group, applied)
            self._committed(collection)
        if (elapsed := time.monotonic() - started) > SLOW_SECONDS:
            log.warning(
                "slow commit", collection=collection.name, seconds=round(elapsed, 3), writes=len(group)
            )

    def _commit_when_full(self, collection: Collection, group: list[_Write], full: DiskFull) -> None:
        """Commit the writes one by one, since some may fit. A delete may use the reserve: it frees room."""
        if collection.store is None:
            self._answer(collection, group, full)
            return
        for write in group:
            if len(group) == 1 and not isinstance(write.effect, Delete):
                self._answer(collection, group, full)
                return
            try:
                if isinstance(write.effect, Delete):
                    self._volume.release_reserve()
                applied = collection.commit([write.effect])
            except Exception as error:  # noqa: BLE001  # As above.
                self._answer(collection, [write], error)
            else:
                self._answer(collection, [write], applied)
                self._committed(collection)

    def _answer(
        self, collection: Collection, group: list[_Write], outcome: list[Applied] | Exception
    ) -> None:
        with self._lock:
            changes, rows = sum(write.changes for write in group), sum(write.rows for write in group)
            collection.count_queued(-changes, -rows)
        _wake(group, outcome)

    def _release(self, collection: Collection, group: list[_Write]) -> None:
        size = sum(write.bytes for write in group)
        with self._lock:
            waiting = self._queues[collection]
            waiting.waiting_bytes -= size
            self._waiting_bytes -= size
            if waiting.waiting:
                self._to_commit.put(collection)
            else:
                del self._queues[collection]


def _size(effect: Effect) -> int:
    """Return the bytes of memory that an effect takes; its log record is not larger. Raises TooLarge."""
    return payload_bytes(effect) + ENTRY_OVERHEAD_BYTES * len(effect.ids)


def _wake(group: list[_Write], outcome: list[Applied] | Exception) -> None:
    """Wake the waiting clients, once per event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Applied], Applied | Exception]]] = {}
    for number, write in enumerate(group):
        result = outcome if isinstance(outcome, Exception) else outcome[number]
        by_loop.setdefault(write.loop, []).append((write.future, result))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed, and no client waits there any more
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[tuple[asyncio.Future[Applied], Applied | Exception]]) -> None:
    for future, result in answers:
        if future.cancelled():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
