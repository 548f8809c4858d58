"""Open files and connections, few however many collections there are: idle ones are closed, oldest first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What the cache holds."""

    def close(self) -> None:
        """Give back the descriptors; called once, by nobody else."""


_Handle = TypeVar("_Handle", bound=Closable)


@dataclass(slots=True)
class _Entry(Generic[_Handle]):
    handle: _Handle
    users: int = 0
    discarded: bool = False


class HandleCache:
    """At most `limit` idle handles stay open. Thread-safe; a handle in use is never closed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry[Closable]] = OrderedDict()

    @contextmanager
    def borrow(self, key: Hashable, opener: Callable[[], _Handle]) -> Iterator[_Handle]:
        """Use the handle of `key`, opened when it is not; errors of `opener` come through."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry(opener())
            self._entries.move_to_end(key)
            entry.users += 1
            self._close_idle()
        try:
            yield entry.handle  # type: ignore[misc]
        finally:
            with self._lock:
                entry.users -= 1
                if entry.discarded and entry.users == 0:
                    entry.handle.close()

    def discard(self, key: Hashable) -> None:
        """Close the handle of `key`, at once or when its last user is done; the next borrow opens anew."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None:
                return
            entry.discarded = True
            if entry.users == 0:
                entry.handle.close()

    def close(self) -> None:
        """Discard every handle."""
        for key in list(self._entries):
            self.discard(key)

    def __len__(self) -> int:
        """How many are open."""
        return len(self._entries)

    def _close_idle(self) -> None:
        for key in list(self._entries)[: max(0, len(self._entries) - self._limit)]:
            if self._entries[key].users == 0:
                self._entries.pop(key).handle.close()
