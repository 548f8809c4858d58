"""A cache of open files and connections, few for any number of collections. The oldest idle ones close."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from vecstow_engine.model.errors import DiskFull


class Closable(Protocol):
    """A handle that the cache can close."""

    def close(self) -> None:
        """Release the descriptors; only the cache calls this, once."""


_Handle = TypeVar("_Handle", bound=Closable)


@dataclass(slots=True)
class _Entry(Generic[_Handle]):
    handle: _Handle | None = None
    """None until the first user opens the handle."""
    users: int = 0
    discarded: bool = False
    opening: threading.Lock = field(default_factory=threading.Lock)


class HandleCache:
    """Open handles, at most `limit` of them idle. Thread-safe; a handle in use is never closed.

    `make_room` is called once when the disk has no room to open a handle: SQLite needs some even to read.
    `make_room` returns whether a second attempt is useful. `unclosed` gets the error of a handle that could
    not be closed. A borrower does not get this error, because the handle belongs to another user.
    """

    def __init__(
        self, limit: int, make_room: Callable[[], bool] = lambda: False,
        unclosed: Callable[[Exception], None] = lambda error: None,
    ) -> None:  # fmt: skip
        self._limit = limit
        self._make_room = make_room
        self._unclosed = unclosed
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry[Closable]] = OrderedDict()

    @contextmanager
    def borrow(self, key: Hashable, opener: Callable[[], _Handle]) -> Iterator[_Handle]:
        """Use the handle of `key`, and open it if necessary; errors of `opener` are raised unchanged."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            entry.users += 1
        try:
            with self._lock:
                self._close_idle()
            with entry.opening:  # On a slow disk only users of this handle wait.
                if entry.handle is None:
                    entry.handle = self._opened(opener)
            yield entry.handle  # type: ignore[misc]
        finally:
            with self._lock:
                entry.users -= 1
                if entry.users == 0 and entry.handle is None and self._entries.get(key) is entry:
                    del self._entries[key]
                if entry.discarded and entry.users == 0:
                    self._close(entry)

    def discard(self, key: Hashable) -> None:
        """Close the handle of `key`, now or after its last user; the next borrow opens the handle again."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return
            entry.discarded = True
            if entry.users == 0:
                self._close(entry)

    def close(self) -> None:
        """Discard every handle."""
        for key in list(self._entries):
            self.discard(key)

    def __len__(self) -> int:
        """Return the number of cached handles."""
        return len(self._entries)

    def _close_idle(self) -> None:
        for key in list(self._entries)[: max(0, len(self._entries) - self._limit)]:
            if self._entries[key].users == 0:
                self._close(self._entries.pop(key))

    def _close(self, entry: _Entry[Closable]) -> None:
        try:
            if entry.handle is not None:
                entry.handle.close()
        except Exception as error:  # noqa: BLE001  # SQLite raises its own errors, too.
            self._unclosed(error)

    def _opened(self, opener: Callable[[], _Handle]) -> _Handle:
        try:
            return opener()
        except DiskFull:
            if not self._make_room():
                raise
        return opener()
