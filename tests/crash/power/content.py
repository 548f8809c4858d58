"""One file's content on a disk that lost power: which sectors, and which length, of what was not durable."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.crash.power.cache import set_length
from tests.crash.power.disk import File, Pending, apply_step
from tests.crash.power.events import Write

SECTOR_BYTES = 512
PAGE_BYTES = 4096
SECTORS_PER_PAGE = PAGE_BYTES // SECTOR_BYTES
LAST = 1 << 60
"""As the place of a step: the last one."""

Depth = Callable[[int, Sequence[int]], int]
"""Function of a sector and of the steps that change it, which returns how many of them reached the disk. The
steps are places among those that are not durable, oldest first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The choice among a file's uncertain steps."""

    depth: Depth
    length: int | None = None
    """Place of the step after which the length was as it is on the disk; -1: the durable one; None: any after
    the last step that is there in part."""
    extra: float = 0.0
    """How far, as a share, the length is on its way to the longest that there was: files grow in pieces."""


def none_of(sector: int, touching: Sequence[int]) -> int:
    """Keep no step that was not synced."""
    return 0


def all_of(sector: int, touching: Sequence[int]) -> int:
    """Keep every step, though it was not synced."""
    return len(touching)


NOTHING = Choice(none_of, length=-1)
EVERYTHING = Choice(all_of, length=LAST)


def up_to(step: int, torn_at: int) -> Depth:
    """The steps before `step`, and of that one the sectors below `torn_at`."""

    def depth(sector: int, touching: Sequence[int]) -> int:
        return sum(place < step or (place == step and sector < torn_at) for place in touching)

    return depth


def only(step: int) -> Depth:
    """One step without those before it, where it has sectors of its own."""

    def depth(sector: int, touching: Sequence[int]) -> int:
        return touching.index(step) + 1 if step in touching else 0

    return depth


def all_but(step: int) -> Depth:
    """Every step but one and what lies over it: what is later is there, and it is not."""

    def depth(sector: int, touching: Sequence[int]) -> int:
        return touching.index(step) if step in touching else len(touching)

    return depth


def hole(step: int, begin: int, end: int) -> Depth:
    """Everything but the sectors from `begin` to `end`, which have what was there before `step`."""

    def depth(sector: int, touching: Sequence[int]) -> int:
        return sum(place < step or not begin <= sector < end for place in touching)

    return depth


def by_chance(seed: int, unit_sectors: int) -> Depth:
    """Each page, or each sector, for itself."""

    def depth(sector: int, touching: Sequence[int]) -> int:
        chance = random.Random(seed * 1_000_003 + sector // unit_sectors).random()
        return min(int(chance * (len(touching) + 1)), len(touching))

    return depth


def uncertain(file: File) -> list[Pending]:
    """The steps that are not durable."""
    return [step for step in file.steps if not step.durable]


def content_of(file: File, choice: Choice) -> bytes:
    """Return the content that the disk has of a file."""
    steps = uncertain(file)
    if not file.steps:
        return bytes(file.base)
    lengths = lengths_after(file)
    size = max(len(file.base), *lengths, *(_end(step) for step in file.steps))
    touching = _touching(steps, size)
    reached = {sector: places[: choice.depth(sector, places)] for sector, places in touching.items()}
    content = bytearray(file.base)
    set_length(content, size)
    place = 0
    for step in file.steps:
        if step.durable:
            _apply(content, step, [0], size)
        else:
            there = [sector for sector, places in reached.items() if place in places]
            _apply(content, step, (sector * SECTOR_BYTES for sector in there), SECTOR_BYTES)
            place += 1
    set_length(content, _length(choice, lengths, reached))
    return bytes(content)


def lengths_after(file: File) -> list[int]:
    """The durable length, then the length after each step that is not durable, as processes saw it."""
    durable, cached = bytearray(file.base), len(file.base)
    lengths = []
    for step in file.steps:
        cached = max(cached, _end(step)) if isinstance(step.event, Write) else step.event.length
        if step.durable:
            apply_step(durable, step.event)
        else:
            lengths.append(cached)
    return [len(durable), *lengths]


def _length(choice: Choice, lengths: list[int], reached: Mapping[int, Sequence[int]]) -> int:
    if choice.length is None:
        last = max((places[-1] for places in reached.values() if places), default=-1)
        length = lengths[last + 1]
    else:
        length = lengths[min(choice.length + 1, len(lengths) - 1)]
    return length + int(choice.extra * (max(lengths) - length))


def _touching(steps: list[Pending], size: int) -> dict[int, list[int]]:
    """By sector: the places of the steps that change it."""
    found: dict[int, list[int]] = {}
    for place, step in enumerate(steps):
        event = step.event
        begin, end = (event.offset, _end(step)) if isinstance(event, Write) else (event.length, size)
        for sector in range(begin // SECTOR_BYTES, -(-end // SECTOR_BYTES)):
            found.setdefault(sector, []).append(place)
    return found


def _end(step: Pending) -> int:
    event = step.event
    return event.offset + len(event.data) if isinstance(event, Write) else event.length


def _apply(content: bytearray, step: Pending, starts: Iterable[int], unit: int) -> None:
    """The step's bytes that lie in the units that begin at `starts`; the size stays."""
    event = step.event
    for start in starts:
        if isinstance(event, Write):
            begin, end = max(start, event.offset), min(start + unit, _end(step))
            if begin < end:
                content[begin:end] = event.data[begin - event.offset : end - event.offset]
        else:
            begin, end = max(start, event.length), min(start + unit, len(content))
            if begin < end:
                content[begin:end] = bytes(end - begin)
