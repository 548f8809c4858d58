"""Group commit: writes that arrive while a log is synced share the next sync.

A fixed number of threads serve all collections; one collection's log has one writer at a time. What waits
is bounded in bytes, and refused before it is logged, never after.
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

from vecstow_engine.model.errors import Busy, DiskFull
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.settings import Settings
from vecstow_engine.storage.layers import Applied
from vecstow_engine.storage.records import Delete, Effect
from vecstow_engine.storage.volume import Volume

THREADS: Final = 2
GROUP_BYTES_MAX: Final = 32 << 20
"""Bytes of one log append; what waits beyond it goes with the next."""
POLL_SECONDS: Final = 0.01
SLOW_SECONDS: Final = 1.0

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class _Write:
    """One effect and who waits for it."""

    effect: Effect
    bytes: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Applied]


class _Queue:
    """What waits for one collection's log. `scheduled`: a thread has it or will have it."""

    __slots__ = ("scheduled", "waiting", "waiting_bytes")

    def __init__(self) -> None:
        self.waiting: deque[_Write] = deque()
        self.waiting_bytes = 0
        self.scheduled = False


class Committer:
    """Accepts writes on the event loop, commits them in its threads."""

    def __init__(
        self,
        settings: Settings,
        volume: Volume,
        first_use: Callable[[Collection], None],
        committed: Callable[[Collection], None],
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._first_use = first_use
        self._committed = committed
        self._lock = threading.Lock()
        self._queues: dict[Collection, _Queue] = {}
        self._waiting_bytes = 0
        self._accepts = True
        self._ready: queue.SimpleQueue[Collection | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"commit-{number}", daemon=True)
            for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether all of its threads are."""
        return all(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Take no more writes, finish those that were accepted."""
        with self._lock:
            self._accepts = False
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            thread.join()

    async def write(self, collection: Collection, effect: Effect) -> Applied:
        """Commit one effect; returns when it is durable and visible.

        Raises Busy when there was no room in time, and what `Collection.commit` raises.
        """
        if self._volume.full and not isinstance(effect, Delete):
            raise DiskFull(
                "the volume is full: only deletes are taken until there is room",
                collection=collection.name, operation="write",
                hint="drop collections or enlarge the volume; writes resume by themselves",
            )  # fmt: skip
        size = _size(effect)
        await self._wait_for_room(collection, size)
        loop = asyncio.get_running_loop()
        write = _Write(effect, size, loop, loop.create_future())
        self._enqueue(collection, write)
        # A client that goes away does not take its write back: it is logged already, or will be.
        return await asyncio.shield(write.future)

    async def _wait_for_room(self, collection: Collection, size: int) -> None:
        deadline = time.monotonic() + self._settings.limits.write_wait_seconds
        while (lack := self._lack(collection, size)) is not None:
            collection.writable()
            if time.monotonic() > deadline:
                raise Busy(
                    f"not logged after {self._settings.limits.write_wait_seconds:g} s of waiting: {lack}",
                    collection=collection.name, operation="write", retry_after_seconds=5,
                )  # fmt: skip
            await asyncio.sleep(POLL_SECONDS)

    def _lack(self, collection: Collection, size: int) -> str | None:
        """Why there is no room for so many bytes; None when there is."""
        settings = self._settings
        queue_ = self._queues.get(collection)
        queued = queue_.waiting_bytes if queue_ is not None else 0
        overlay, tail = collection.waiting_bytes()
        if self._waiting_bytes and self._waiting_bytes + size > settings.limits.queue_bytes_max:
            return (
                f"{self._waiting_bytes} bytes wait for the log, of {settings.limits.queue_bytes_max} allowed"
            )
        if overlay and overlay + queued + size > settings.storage.overlay_bytes_max:
            return f"{overlay} bytes wait for a checkpoint, the limit is {settings.storage.overlay_bytes_max}"
        if tail and tail + queued + size > settings.index.tail_bytes_max:
            return f"{tail} bytes wait for the index, the limit is {settings.index.tail_bytes_max}"
        return None

    def _enqueue(self, collection: Collection, write: _Write) -> None:
        with self._lock:
            if not self._accepts:
                raise Busy("the engine is stopping; the write was not logged", retry_after_seconds=5)
            waiting = self._queues.setdefault(collection, _Queue())
            waiting.waiting.append(write)
            waiting.waiting_bytes += write.bytes
            self._waiting_bytes += write.bytes
            if not waiting.scheduled:
                waiting.scheduled = True
                self._ready.put(collection)

    def _run(self) -> None:
        while True:
            collection = self._ready.get()
            if collection is None:
                if self._all_done():
                    return
                self._ready.put(None)  # others are still at work; this thread looks again
                time.sleep(POLL_SECONDS)
                continue
            group = self._take_group(collection)
            self._commit(collection, group)
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
                self._first_use(collection)
            applied = collection.commit([write.effect for write in group])
        except DiskFull as error:
            self._commit_when_full(collection, group, error)
        except Exception as error:  # noqa: BLE001  # The waiting clients must hear of it; the API logs it.
            _answer(group, error)
        else:
            _answer(group, applied)
            self._committed(collection)
        if (elapsed := time.monotonic() - started) > SLOW_SECONDS:
            log.warning(
                "slow commit", collection=collection.name, seconds=round(elapsed, 3), writes=len(group)
            )

    def _commit_when_full(self, collection: Collection, group: list[_Write], full: DiskFull) -> None:
        """One by one, since some may fit; a delete, which makes room in the end, gets the reserve."""
        if collection.store is None:
            _answer(group, full)
            return
        for write in group:
            if len(group) == 1 and not isinstance(write.effect, Delete):
                _answer(group, full)
                return
            try:
                if isinstance(write.effect, Delete):
                    self._volume.release_reserve()
                applied = collection.commit([write.effect])
            except Exception as error:  # noqa: BLE001  # As above.
                _answer([write], error)
            else:
                _answer([write], applied)
                self._committed(collection)

    def _release(self, collection: Collection, group: list[_Write]) -> None:
        size = sum(write.bytes for write in group)
        with self._lock:
            waiting = self._queues[collection]
            waiting.waiting_bytes -= size
            self._waiting_bytes -= size
            if waiting.waiting:
                self._ready.put(collection)
            else:
                del self._queues[collection]


def _size(effect: Effect) -> int:
    if isinstance(effect, Delete):
        return 300 * len(effect.ids)
    return int(effect.rows.nbytes) + sum(len(payload or b"") + 300 for payload in effect.payloads)


def _answer(group: list[_Write], outcome: list[Applied] | Exception) -> None:
    """Wake the waiting clients, once per event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Applied], Applied | Exception]]] = {}
    for number, write in enumerate(group):
        result = outcome if isinstance(outcome, Exception) else outcome[number]
        by_loop.setdefault(write.loop, []).append((write.future, result))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits there any more
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[tuple[asyncio.Future[Applied], Applied | Exception]]) -> None:
    for future, result in answers:
        if future.cancelled():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
