"""The manager's memory of each resource: when it was seen and written, and whether an engine followed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vecstow_operator.manager.assessment import is_followed
from vecstow_operator.manager.engines import EngineView
from vecstow_operator.manager.resource_cache import CachedResource
from vecstow_operator.manager.status import COUNT_SECONDS_MIN
from vecstow_operator.observed import Observed

LOOKS_PER_SECOND_MAX: Final = 5.0
"""Writes of a status in which only `observedAt` changes: with many resources each is refreshed less often."""


@dataclass(frozen=True, slots=True)
class Age:
    """The age of the manager's knowledge of one resource."""

    now_rfc3339: str
    seconds_of_generation: float
    """The time since this generation was first listed."""
    seconds_since_patch: float
    is_look_due: bool
    """Whether `observedAt` is to be refreshed."""
    was_followed: bool
    """Whether an engine has followed the resource."""


class History:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self._first_seen: dict[tuple[str, int], float] = {}
        """When each generation was first listed, by uid and generation."""
        self._patched_at: dict[str, float] = {}
        """When each status was last written, by uid."""
        self._followed: set[str] = set()
        """Uids of resources that an engine has followed."""

    def follow(self, listed: Mapping[str, CachedResource], now: float) -> None:
        """Take over a new list of resources, by uid: new generations are seen now, the gone forgotten."""
        versions = [(uid, cached.resource.generation) for uid, cached in listed.items()]
        self._first_seen = {version: self._first_seen.get(version, now) for version in versions}
        self._patched_at = {uid: at for uid, at in self._patched_at.items() if uid in listed}
        self._followed &= listed.keys()

    def note_patch(self, resource: Observed, now: float) -> None:
        """Record that a status was written."""
        self._patched_at[resource.uid] = now

    def note_engine(self, resource: Observed, engine: EngineView) -> None:
        """Record whether the engine follows the resource."""
        if is_followed(resource, engine):
            self._followed.add(resource.uid)

    def age(self, resource: Observed, now: float, now_rfc3339: str, *, is_look_due: bool) -> Age:
        """Return the age of the knowledge of one resource."""
        return Age(
            now_rfc3339=now_rfc3339,
            seconds_of_generation=now - self._first_seen[resource.uid, resource.generation],
            seconds_since_patch=now - self._patched_at.get(resource.uid, float("-inf")),
            is_look_due=is_look_due,
            was_followed=resource.uid in self._followed,
        )


def look_seconds(resources: int) -> float:
    """Return how old `observedAt` may become with so many resources."""
    return max(COUNT_SECONDS_MIN, resources / LOOKS_PER_SECOND_MAX)
