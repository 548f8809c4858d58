"""One account for the memory of all requests: their bodies, what these are decoded to, answers not yet sent.

A request that does not fit is refused before the memory is taken. Every request has a `Lease`, which it gives
back when its answer is sent or dropped.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import Final

from vecstow_engine.model.errors import Busy, TooLarge, refused

REQUEST_SHARE: Final = 1 / 2
"""What one request may take of the account."""
ANSWERS_SHARE: Final = 1 / 2
"""What all answers together may take: clients that read slowly leave room for writes."""
ANSWERS_BYTES_MAX: Final = 128 << 20
ANSWER_SHARE: Final = 1 / 2
"""What one answer may take of that."""
FREE_BYTES: Final = 16 << 10
"""What grows is accounted from this size on: most requests stay below it."""
SMALL_BYTES: Final = 128 << 10
SMALL_SHARE: Final = 1 / 8
"""What is kept for requests up to `SMALL_BYTES`: they are answered while large ones fill the account."""


class Part(IntEnum):
    """What a request takes memory for."""

    BODIES = 0
    DECODED = 1
    ANSWERS = 2


_PARTS: Final = tuple(Part)
_NOTHING: Final = [0, 0, 0]


class RequestMemory:
    """The account; used from the event loop and from the threads that decode and search."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.request_bytes_max = int(bytes_max * REQUEST_SHARE)
        self.answers_bytes_max = min(int(bytes_max * ANSWERS_SHARE), ANSWERS_BYTES_MAX)
        self.answer_bytes_max = int(self.answers_bytes_max * ANSWER_SHARE)
        self.large_bytes_max = bytes_max - int(bytes_max * SMALL_SHARE)
        self.held_bytes = [0, 0, 0]
        """By part."""
        self.refused = [0, 0, 0]
        """Requests that were refused, by the part that did not fit."""
        self._lock = threading.Lock()

    def lease(self, *, is_urgent: bool = False) -> Lease:
        """Return what one request holds, nothing yet; an urgent one may use what is kept for small ones."""
        return Lease(self, is_urgent)

    def change(self, lease: Lease, part: Part, more_bytes: int, *, is_due: bool) -> None:
        """Add to a part of a lease, or give back; raise TooLarge or Busy unless the change `is_due`."""
        with self._lock:
            if not is_due:
                self._check(lease, part, more_bytes)
            self.held_bytes[part] += more_bytes
            lease.parts[part] += more_bytes

    def _check(self, lease: Lease, part: Part, more_bytes: int) -> None:
        held = sum(self.held_bytes)
        wanted = sum(lease.parts) + more_bytes
        is_small = lease.is_urgent or wanted <= SMALL_BYTES
        if wanted > self.request_bytes_max:
            raise self._too_large(part, "the request", wanted, self.request_bytes_max)
        if held + more_bytes > (self.bytes_max if is_small else self.large_bytes_max):
            raise self._busy(part, "requests", held, self.bytes_max)
        if part is not Part.ANSWERS:
            return
        wanted = lease.parts[part] + more_bytes
        held = self.held_bytes[part]
        if wanted > self.answer_bytes_max:
            raise self._too_large(part, "the answer", wanted, self.answer_bytes_max)
        if not is_small and held + more_bytes > self.answers_bytes_max:
            raise self._busy(part, "answers", held, self.answers_bytes_max)

    def _too_large(self, part: Part, what: str, wanted: int, limit: int) -> TooLarge:
        self.refused[part] += 1
        hint = "ask for fewer at a time" if part is Part.ANSWERS else "send smaller batches"
        return TooLarge(
            f"{what} takes {wanted} bytes of memory or more; the limit is {limit}",
            hint=hint,
            details=refused("body" if part is not Part.ANSWERS else "answer", wanted, limit),
        )

    def _busy(self, part: Part, what: str, held: int, limit: int) -> Busy:
        self.refused[part] += 1
        return Busy(
            f"{what} take {held} bytes of memory; the limit is {limit}",
            retry_after_seconds=1,
            details={"limit": limit},
        )


class Lease:
    """What one request holds of the account."""

    __slots__ = ("_memory", "is_urgent", "parts")

    def __init__(self, memory: RequestMemory, is_urgent: bool = False) -> None:
        self._memory = memory
        self.is_urgent = is_urgent
        self.parts = [0, 0, 0]

    def take(self, part: Part, more_bytes: int) -> None:
        """Hold more; raises TooLarge beyond one request's share, Busy beyond that of all."""
        self._memory.change(self, part, more_bytes, is_due=False)

    def grow(self, part: Part, held_bytes: int) -> None:
        """Hold at least so much for a part, unless that is next to nothing; raises as `take`."""
        if held_bytes > FREE_BYTES and held_bytes > self.parts[part]:
            self.take(part, held_bytes - self.parts[part])

    def hold(self, part: Part, held_bytes: int) -> None:
        """Hold exactly so much for a part, even when that is too much: the memory is taken already."""
        if held_bytes != self.parts[part]:
            self._memory.change(self, part, held_bytes - self.parts[part], is_due=True)

    def release(self) -> None:
        """Give everything back."""
        if self.parts != _NOTHING:
            for part in _PARTS:
                self.hold(part, 0)
