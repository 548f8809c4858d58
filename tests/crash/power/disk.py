"""A disk after a loss of power: the content that it must have, and the content that it may have.

The rules, which are weaker than those of any file system that one would use:

- An fsync or fdatasync that returned 0 makes durable what had ended before it began: a file's data and
  length, a folder's names. A file's sync does not make its name durable. A rename from one folder to another
  is durable when both were synced, and is done or not done as one.
- What a failed sync covered is lost to later syncs: the page cache goes on showing it, the disk need not have
  it.
- Of all else any part may be there. Each 512-byte sector has the content after some of its writes, oldest
  first; neighbours need not agree. A length may have grown without its data, which then is zeros, or data
  have come without the length, which cuts it. Each step of a name is done or not, whatever came before or
  after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.crash.power.cache import set_length, write_into
from tests.crash.power.events import (
    ROOT,
    DataStep,
    Event,
    Length,
    Link,
    NameStep,
    Rename,
    Sync,
    Unlink,
    Write,
)

Names = dict[int, dict[str, int]]
"""Folder, name, inode."""


@dataclass(slots=True, eq=False)
class Pending:
    """One change of a file's data or length that is not folded into what is durable."""

    event: DataStep
    durable: bool = False
    lost: bool = False
    """A sync that covered it failed."""


@dataclass(slots=True, eq=False)
class PendingName:
    """One change of names; it is durable when no folder of it is left to be synced."""

    event: NameStep
    unsynced: set[int]
    lost: bool = False

    @property
    def durable(self) -> bool:
        return not self.unsynced


@dataclass(slots=True)
class File:
    """Durable content, and all changes since the oldest one that is not durable."""

    base: bytearray = field(default_factory=bytearray)
    steps: list[Pending] = field(default_factory=list)


class Disk:
    """Follows events in the order in which they were over."""

    def __init__(self) -> None:
        self.names: Names = {ROOT: {}}
        """The durable names, before `name_steps`."""
        self.name_steps: list[PendingName] = []
        self.files: dict[int, File] = {}

    @classmethod
    def resting(cls, tree: Mapping[str, bytes | None], inodes: Mapping[str, int]) -> Disk:
        """A disk on which exactly this lies, all of it durable."""
        disk = cls()
        disk.names |= {inodes[path]: {} for path, content in tree.items() if content is None}
        for path, content in tree.items():
            above, _, name = path.rpartition("/")
            disk.names[inodes[above] if above else ROOT][name] = inodes[path]
            if content is not None:
                disk.files[inodes[path]] = File(bytearray(content))
        return disk

    def apply(self, event: Event) -> None:
        """Let the event be over."""
        if isinstance(event, Sync):
            if event.inode in self.names:
                self._sync_folder(event)
            else:
                self._sync_file(event)
        elif isinstance(event, Write | Length):
            self.files[event.inode].steps.append(Pending(event))
        elif isinstance(event, Link | Unlink | Rename):
            self._add_name(event)

    def with_under_way(self, events: Iterable[Event]) -> Disk:
        """This disk and what was just being done to it; shares what does not change."""
        disk = Disk()
        disk.names = dict(self.names)
        disk.name_steps = list(self.name_steps)
        disk.files = {inode: File(file.base, list(file.steps)) for inode, file in self.files.items()}
        for event in events:
            if not isinstance(event, Sync):
                disk.apply(event)
        return disk

    def _add_name(self, event: NameStep) -> None:
        folders = {event.source, event.target} if isinstance(event, Rename) else {event.folder}
        if isinstance(event, Link):
            if event.is_folder:
                self.names.setdefault(event.inode, {})
            else:
                self.files.setdefault(event.inode, File())
        self.name_steps.append(PendingName(event, folders))

    def _sync_file(self, sync: Sync) -> None:
        file = self.files[sync.inode]
        for step in file.steps:
            if step.event.exit < sync.entry and not step.lost and not step.durable:
                step.durable, step.lost = sync.ok, not sync.ok
        count = 0
        while count < len(file.steps) and file.steps[count].durable:
            apply_step(file.base, file.steps[count].event)
            count += 1
        del file.steps[:count]

    def _sync_folder(self, sync: Sync) -> None:
        for step in self.name_steps:
            if step.event.exit < sync.entry and not step.lost and sync.inode in step.unsynced:
                if sync.ok:
                    step.unsynced.discard(sync.inode)
                else:
                    step.lost = True
        self._fold_names()

    def _fold_names(self) -> None:
        """Fold what is durable and touches no name that an older step, which is not, touches too."""
        kept: list[PendingName] = []
        touched: set[tuple[int, str]] = set()
        for step in self.name_steps:
            places = places_of(step.event)
            if step.durable and not touched & places:
                apply_name(self.names, step.event)
            else:
                kept.append(step)
                touched |= places
        self.name_steps = kept


def apply_step(content: bytearray, event: DataStep) -> None:
    """Let a change of data have happened as a whole."""
    if isinstance(event, Write):
        write_into(content, event.offset, event.data)
    else:
        set_length(content, event.length)


def places_of(event: NameStep) -> set[tuple[int, str]]:
    """The names that a step makes or takes away."""
    if isinstance(event, Rename):
        return {(event.source, event.old), (event.target, event.new)}
    return {(event.folder, event.name)}


def apply_name(names: Names, event: NameStep) -> None:
    """Let a step have happened, whether or not those before it have."""
    if isinstance(event, Link):
        names[event.folder][event.name] = event.inode
    elif isinstance(event, Unlink):
        if names[event.folder].get(event.name) == event.inode:
            del names[event.folder][event.name]
    else:
        if names[event.source].get(event.old) == event.inode:
            del names[event.source][event.old]
        if event.inode in names:
            _take_away(names, event.inode)
        names[event.target][event.new] = event.inode


def _take_away(names: Names, folder: int) -> None:
    """A folder has one name, even when an older rename of it is undone."""
    for entries in names.values():
        for name in [name for name, inode in entries.items() if inode == folder]:
            del entries[name]


def chosen_names(disk: Disk, chosen: Sequence[bool]) -> Names:
    """The names when of the steps that are not durable those happened that are chosen, by their places."""
    names = {folder: dict(entries) for folder, entries in disk.names.items()}
    choices = iter(chosen)
    for step in disk.name_steps:
        if step.durable or next(choices):
            apply_name(names, step.event)
    return names


def reachable(names: Names) -> Iterator[tuple[str, int]]:
    """Every path from the volume's folder on, and its inode; a folder before what is in it."""
    waiting = [("", ROOT)]
    while waiting:
        prefix, folder = waiting.pop()
        for name, inode in names[folder].items():
            yield prefix + name, inode
            if inode in names:
                waiting.append((f"{prefix}{name}/", inode))
