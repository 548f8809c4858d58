"""Moments of a record at which the power may go, and the disk at each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.crash.power.cache import Cache
from tests.crash.power.disk import Disk
from tests.crash.power.events import Event


@dataclass(frozen=True)
class Moment:
    """One of them, until the next one is asked for."""

    position: int
    disk: Disk
    """What is durable, and what else may be there: what was under way is too."""
    cache: Cache
    """What the processes see."""
    last: Event | None
    """What was over last."""
    has_under_way: bool


def moments(events: Sequence[Event], positions: Sequence[int]) -> Iterator[Moment]:
    """The disk at each of the rising `positions`; `events` are in the order in which they were over.

    An event that began before a position and was not over is under way.
    """
    disk, cache, done = Disk(), Cache(), 0
    for position in positions:
        while done < len(events) and events[done].exit < position:
            disk.apply(events[done])
            cache.apply(events[done])
            done += 1
        under_way = [event for event in events[done:] if event.entry < position]
        last = events[done - 1] if done else None
        yield Moment(position, disk.with_under_way(under_way), cache, last, bool(under_way))
