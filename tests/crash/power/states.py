"""States of a volume after a loss of power: chosen by strategies, in folders, compared by digests."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.power.content import (
    EVERYTHING,
    LAST,
    NOTHING,
    SECTOR_BYTES,
    SECTORS_PER_PAGE,
    Choice,
    all_but,
    by_chance,
    content_of,
    hole,
    none_of,
    only,
    uncertain,
    up_to,
)
from tests.crash.power.disk import Disk, Names, chosen_names, reachable
from tests.crash.power.events import Write

MAPPED_SUFFIX = "-shm"
"""Suffix of SQLite's shared memory, the only file written through a mapping: the record lacks its content."""
GARBAGE_BYTES = 32_768


@dataclass
class State:
    """Contents by path, None for a folder; files of one inode are one file."""

    tree: dict[str, bytes | None] = field(default_factory=dict)
    inodes: dict[str, int] = field(default_factory=dict)
    strategy: str = ""

    def digest(self, *also: object) -> bytes:
        """Return a digest, equal for equal states with equal knowledge."""
        found = hashlib.blake2b(repr(also).encode(), digest_size=16)
        for path in sorted(self.tree):
            content = self.tree[path]
            found.update(f"{path}\0{-1 if content is None else len(content)}\0".encode())
            found.update(content or b"")
        return found.digest()

    def write(self, folder: Path) -> None:
        """Put the state into `folder`, which must not exist."""
        folder.mkdir()
        first: dict[int, Path] = {}
        for path, content in self.tree.items():  # a folder stands before what is in it
            target = folder / path
            if content is None:
                target.mkdir(mode=0o750)
            elif (linked := first.setdefault(self.inodes[path], target)) != target:
                os.link(linked, target)
            else:
                target.write_bytes(content)


@dataclass
class Chooser:
    """Chooses what of one disk is there; one chooser makes one state."""

    disk: Disk
    chance: random.Random

    def __post_init__(self) -> None:
        self.names = [step for step in self.disk.name_steps if not step.durable]
        self.open_files = [inode for inode, file in self.disk.files.items() if uncertain(file)]

    def state(self) -> State:
        """By a strategy that chance chooses."""
        strategy = self.chance.choice(STRATEGIES)
        names, choices = strategy(self)
        state = self.build(chosen_names(self.disk, names), choices)
        state.strategy = strategy.__name__.removeprefix("_")
        return state

    def build(self, names: Names, choices: Callable[[int], Choice]) -> State:
        """The state of these names and, by inode, of these choices."""
        state = State()
        for path, inode in reachable(names):
            if inode in names:
                state.tree[path] = None
            elif path.endswith(MAPPED_SUFFIX):
                if (content := self._shared_memory()) is None:
                    continue
                state.tree[path] = content
            else:
                state.tree[path] = content_of(self.disk.files[inode], choices(inode))
            state.inodes[path] = inode
        return state

    def _shared_memory(self) -> bytes | None:
        return self.chance.choice((None, b"", bytes(GARBAGE_BYTES), self.chance.randbytes(GARBAGE_BYTES)))

    # What a strategy is made of ---------------------------------------------------------------------------

    def all_names(self) -> list[bool]:
        return [True] * len(self.names)

    def no_names(self) -> list[bool]:
        return [False] * len(self.names)

    def some_names(self) -> list[bool]:
        share = self.chance.choice((0.2, 0.5, 0.8))
        return [self.chance.random() < share for _ in self.names]

    def any_names(self) -> list[bool]:
        return self.chance.choice((self.all_names, self.no_names, self.some_names))()

    def one_step(self, inode: int) -> int:
        """The place of a step of a file, or -1 for a file without."""
        return (
            self.chance.randrange(len(uncertain(self.disk.files[inode]))) if inode in self.open_files else -1
        )

    def torn(self, inode: int) -> Choice:
        """The oldest steps of a file, the last of these in part."""
        step = self.one_step(inode)
        if step < 0:
            return NOTHING
        begin, sectors = self._sectors_of(inode, step)
        return Choice(up_to(step, begin + self.chance.randint(0, sectors)), self._some_length(inode))

    def holed(self, inode: int) -> Choice:
        """All of a file but a piece of one step, though what comes later is there."""
        step = self.one_step(inode)
        if step < 0:
            return NOTHING
        begin, sectors = self._sectors_of(inode, step)
        first = begin + self.chance.randrange(max(sectors, 1))
        return Choice(hole(step, first, first + self.chance.choice((1, 1, 8))), length=LAST)

    def mixed(self, unit: int) -> Choice:
        """Each unit for itself."""
        return Choice(by_chance(self.chance.getrandbits(32), unit))

    def _sectors_of(self, inode: int, step: int) -> tuple[int, int]:
        """The first sector of a step, and how many there are."""
        event = uncertain(self.disk.files[inode])[step].event
        if not isinstance(event, Write):
            return event.length // SECTOR_BYTES, 0
        first = event.offset // SECTOR_BYTES
        return first, -(-(event.offset + len(event.data)) // SECTOR_BYTES) - first

    def _some_length(self, inode: int) -> int | None:
        return self.chance.choice((None, None, self.one_step(inode)))


Strategy = Callable[[Chooser], tuple[list[bool], Callable[[int], Choice]]]


def _nothing(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.no_names(), lambda inode: NOTHING


def _everything(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.all_names(), lambda inode: EVERYTHING


def _names_without_data(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.all_names(), lambda inode: NOTHING


def _data_without_names(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.no_names(), lambda inode: EVERYTHING


def _some_names_undone(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.some_names(), lambda inode: EVERYTHING


def _one_name_undone(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    names = chooser.all_names()
    if names:
        names[chooser.chance.randrange(len(names))] = False
    return names, lambda inode: EVERYTHING


def _one_name_done(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    names = chooser.no_names()
    if names:
        names[chooser.chance.randrange(len(names))] = True
    return names, lambda inode: EVERYTHING


def _lengths_without_data(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    extra = chooser.chance.choice((1.0, chooser.chance.random()))
    return chooser.any_names(), lambda inode: Choice(none_of, length=-1, extra=extra)


def _torn(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.any_names(), chooser.torn


def _only_one_step(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.any_names(), lambda inode: Choice(only(chooser.one_step(inode)))


def _with_a_hole(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.all_names(), chooser.holed


def _later_without_earlier(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.any_names(), lambda inode: Choice(all_but(chooser.one_step(inode)))


def _pages(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.any_names(), lambda inode: chooser.mixed(SECTORS_PER_PAGE)


def _sectors(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    return chooser.any_names(), lambda inode: chooser.mixed(1)


def _each_file_its_own(chooser: Chooser) -> tuple[list[bool], Callable[[int], Choice]]:
    others = [s for s in STRATEGIES if s is not _each_file_its_own]
    return chooser.some_names(), lambda inode: chooser.chance.choice(others)(chooser)[1](inode)


STRATEGIES: tuple[Strategy, ...] = (
    _nothing, _everything, _names_without_data, _data_without_names, _some_names_undone, _one_name_undone,
    _one_name_done, _lengths_without_data, _torn, _only_one_step, _with_a_hole, _later_without_earlier,
    _pages, _sectors, _each_file_its_own,
)  # fmt: skip


def tree_of(folder: Path, left_out: Iterable[str] = ()) -> dict[str, bytes | None]:
    """Contents by path below a folder, without the files whose names end so."""
    endings = tuple(left_out)
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
        if not (endings and path.name.endswith(endings))
    }
