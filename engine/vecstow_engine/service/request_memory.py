"""The account for the memory of all requests: bodies, decoded requests, answers that are not sent yet.

A request that does not fit is refused before the memory is taken. Every request has a `Lease`, which ends
when the answer is sent or dropped.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import Final

from vecstow_engine.model.errors import Busy, TooLarge, refused

REQUEST_SHARE: Final = 1 / 2
"""The share of the account that one request may take."""
ANSWERS_SHARE: Final = 1 / 2
"""The share of all answers together: clients that read slowly leave room for writes."""
ANSWERS_BYTES_MAX: Final = 128 << 20
ANSWER_SHARE: Final = 1 / 2
"""The share of one answer in the memory of all answers."""
FREE_BYTES: Final = 16 << 10
"""The size up to which growing memory is not accounted: most requests stay below it."""
SMALL_BYTES: Final = 128 << 10
SMALL_SHARE: Final = 1 / 8
"""The share kept for requests up to `SMALL_BYTES`: they are answered while large ones fill the account."""


class Part(IntEnum):
    """The parts of a request's memory."""

    BODIES = 0
    DECODED = 1
    ANSWERS = 2


_PARTS: Final = tuple(Part)
_NOTHING: Final = [0, 0, 0]


class RequestMemory:
    """The account. Thread-safe: the event loop and the threads that decode and search use it."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.request_bytes_max = int(bytes_max * REQUEST_SHARE)
        self.answers_bytes_max = min(int(bytes_max * ANSWERS_SHARE), ANSWERS_BYTES_MAX)
        self.answer_bytes_max = int(self.answers_bytes_max * ANSWER_SHARE)
        self.large_bytes_max = bytes_max - int(bytes_max * SMALL_SHARE)
        self.held_bytes = [0, 0, 0]
        """Bytes that requests hold, by part."""
        self.refused = [0, 0, 0]
        """Number of refused requests, by the part that did not fit."""
        self._lock = threading.Lock()

    def lease(self, *, is_urgent: bool = False) -> Lease:
        """Return an empty lease for one request; an urgent one may use the share for small requests."""
        return Lease(self, is_urgent)

    def change(self, lease: Lease, part: Part, more_bytes: int, *, is_due: bool) -> None:
        """Add bytes to a part of a lease, or give them back; with `is_due` without a check of the limits.

        Raises TooLarge beyond the limit of one request or answer, Busy beyond the limit of all.
        """
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
    """The memory that one request holds of the account."""

    __slots__ = ("_memory", "is_urgent", "parts")

    def __init__(self, memory: RequestMemory, is_urgent: bool = False) -> None:
        self._memory = memory
        self.is_urgent = is_urgent
        self.parts = [0, 0, 0]

    def take(self, part: Part, more_bytes: int) -> None:
        """Hold more bytes; raise TooLarge beyond the share of one request, Busy beyond that of all."""
        self._memory.change(self, part, more_bytes, is_due=False)

    def grow(self, part: Part, held_bytes: int) -> None:
        """Hold at least `held_bytes` for a part, if more than FREE_BYTES; raise the errors of `take`."""
        if held_bytes > FREE_BYTES and held_bytes > self.parts[part]:
            self.take(part, held_bytes - self.parts[part])

    def hold(self, part: Part, held_bytes: int) -> None:
        """Hold exactly `held_bytes` for a part, even beyond a limit: the memory is taken already."""
        if held_bytes != self.parts[part]:
            self._memory.change(self, part, held_bytes - self.parts[part], is_due=True)

    def release(self) -> None:
        """Give everything back."""
        if self.parts != _NOTHING:
            for part in _PARTS:
                self.hold(part, 0)
