"""Changes of single resources that the API server refuses: told once, and tried ever more rarely."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

AGAIN_SECONDS: Final = 4.0
"""Before the second attempt; each further one waits twice as long."""
AGAIN_SECONDS_MAX: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    version: str
    """The resource's, which was to be changed."""
    reason: str
    seconds: float
    until: float


class Backoff:
    """By the resource's uid; times are monotonic seconds. Several threads may tell of different resources."""

    def __init__(self) -> None:
        self._last: dict[str, _Refusal] = {}

    def keeps(self, uid: str, version: str, now: float) -> bool:
        """Whether it is too early to try again. Another version may be taken at once."""
        last = self._last.get(uid)
        return last is not None and last.version == version and now < last.until

    def add(self, uid: str, version: str, reason: str, now: float) -> bool:
        """Whether that is news of this resource."""
        last = self._last.get(uid)
        seconds = AGAIN_SECONDS if last is None else min(AGAIN_SECONDS_MAX, 2 * last.seconds)
        self._last[uid] = _Refusal(version, reason, seconds, now + seconds)
        return last is None or last.reason != reason

    def forget(self, uid: str) -> None:
        """It was changed, or needs no change any more."""
        self._last.pop(uid, None)

    def forget_all_but(self, uids: Container[str]) -> None:
        """The others are gone."""
        self._last = {uid: refusal for uid, refusal in self._last.items() if uid in uids}
