"""Attempts that were refused: each is reported once, and repeated after longer and longer pauses."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping
from dataclasses import dataclass

from vecstow_engine.model.backoff import Backoff

Attempt = Hashable | Mapping[str, str]
"""The identity of an attempt: a resource's version, or the headers with a key."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    attempt: Attempt
    reason: str
    pause_seconds: float
    until: float
    """Monotonic seconds."""


class Refusals:
    """The last refusal of each object, by its uid. Several threads may use it for different objects."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._last: dict[str, _Refusal] = {}

    def reason(self, uid: str, attempt: Attempt, now: float) -> str | None:
        """Return why the same attempt failed while its pause lasts; None: it may be made now."""
        last = self._last.get(uid)
        if last is None or last.attempt != attempt or now >= last.until:
            return None
        return last.reason

    def add(self, uid: str, attempt: Attempt, reason: str, now: float) -> bool:
        """Record a refusal and begin the next pause. Return whether the reason is new for this object."""
        last = self._last.get(uid)
        seconds = self._backoff.after(None if last is None else last.pause_seconds)
        self._last[uid] = _Refusal(attempt, reason, seconds, now + seconds)
        return last is None or last.reason != reason

    def forget(self, uid: str) -> None:
        """Forget the refusal of an object whose attempt succeeded."""
        self._last.pop(uid, None)

    def forget_all_but(self, uids: Container[str]) -> None:
        """Forget the objects that are gone."""
        self._last = {uid: refusal for uid, refusal in self._last.items() if uid in uids}
