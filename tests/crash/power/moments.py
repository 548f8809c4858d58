"""Moments of a record at which the power may go, and the disk at each."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.crash.power.cache import Cache
from tests.crash.power.disk import Disk
from tests.crash.power.events import Answered, Event, Rename, Sync, Unlink, Write

TURNING = (Sync, Rename, Unlink, Answered)
"""Events that decide what is durable, and what is known."""
AT_STAKE, NEAR = 8.0, 3.0
"""Weights of such places and of those near them; any other place has 1.0."""
TOLD_CHARACTERS = 150


@dataclass(frozen=True)
class Moment:
    """One of them, until the next one is asked for."""

    position: int
    disk: Disk
    """The durable state, and the steps that may be there too, those under way included."""
    cache: Cache
    """The volume as the processes see it."""
    last: Event | None
    """The last event that was over."""
    has_under_way: bool

    def __str__(self) -> str:
        return f"{str(self.last)[:TOLD_CHARACTERS]} at {self.position}"


def places_in(events: Sequence[Event]) -> list[int]:
    """Where the power may go: within each event, and after it."""
    return sorted({place for event in events for place in (event.entry + 1, event.exit + 1)})


def chosen(places: Sequence[int], events: Sequence[Event], count: int, chance: random.Random) -> list[int]:
    """So many of the places, rising; those where most is at stake come up more often."""
    near = {place for e in events if isinstance(e, TURNING) for place in (e.entry + 1, e.exit + 1)}
    at_stake = {
        place
        for begin, end in (*_doubtful(events), *_half_written(events))
        for place in range(begin + 1, end + 1)
    }
    weights = [AT_STAKE if place in at_stake else NEAR if place in near else 1.0 for place in places]
    return sorted(set(chance.choices(places, weights, k=count)))


def _doubtful(events: Sequence[Event]) -> Iterator[tuple[int, int]]:
    """Yield the spans in which the cache shows a named file's content that the disk may never have had."""
    gone = {event.inode: event.exit for event in events if isinstance(event, Unlink)}
    end = max((event.exit for event in events), default=0)
    for event in events:
        if isinstance(event, Sync) and not event.ok:
            yield event.exit, gone.get(event.inode, end)


def _half_written(events: Sequence[Event]) -> Iterator[tuple[int, int]]:
    """Where a file that is written in place, and not by appending, has been written and not been synced."""
    longest: Counter[int] = Counter()
    begun: dict[int, int] = {}
    for event in events:
        if isinstance(event, Write):
            if event.offset < longest[event.inode]:
                begun.setdefault(event.inode, event.entry)
            longest[event.inode] = max(longest[event.inode], event.offset + len(event.data))
        elif isinstance(event, Sync) and event.inode in begun:
            yield begun.pop(event.inode), event.exit


def moments(
    events: Sequence[Event], positions: Sequence[int], disk: Disk | None = None, cache: Cache | None = None
) -> Iterator[Moment]:
    """The disk at each of the rising `positions`; `events` are in the order in which they were over, and
    happen to `disk`, or to an empty one.

    An event that began before a position and was not over is under way.
    """
    disk, cache, done = disk or Disk(), cache or Cache(), 0
    for position in positions:
        while done < len(events) and events[done].exit < position:
            disk.apply(events[done])
            cache.apply(events[done])
            done += 1
        under_way = [event for event in events[done:] if event.entry < position]
        last = events[done - 1] if done else None
        yield Moment(position, disk.with_under_way(under_way), cache, last, bool(under_way))
