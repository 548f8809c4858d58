"""The volume as its processes see it: names and contents in the page cache, whatever the disk has of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.crash.power.events import ROOT, Event, Length, Link, Rename, Unlink, Write


class Cache:
    """Follows events; inodes are numbered in the order of their making, and never used again."""

    def __init__(self) -> None:
        self.folders: dict[int, dict[str, int]] = {ROOT: {}}
        self.files: dict[int, bytearray] = {}
        self.paths: dict[int, str] = {ROOT: ""}
        """Where an inode was named last, for people and for choices by name."""

    @classmethod
    def resting(cls, tree: Mapping[str, bytes | None], inodes: Mapping[str, int]) -> Cache:
        """Return the cache of processes that find exactly this."""
        cache = cls()
        cache.folders |= {inodes[path]: {} for path, content in tree.items() if content is None}
        for path, content in tree.items():
            above, _, name = path.rpartition("/")
            cache._name(inodes[above] if above else ROOT, name, inodes[path])
            if content is not None:
                cache.files[inodes[path]] = bytearray(content)
        return cache

    def new_inode(self) -> int:
        """A number for what is being made."""
        return max(self.paths) + 1

    def find(self, path: str) -> int | None:
        """The inode at a path relative to the volume; "" is the volume."""
        inode = ROOT
        for name in path.split("/") if path else ():
            found = self.folders.get(inode, {}).get(name)
            if found is None:
                return None
            inode = found
        return inode

    def apply(self, event: Event) -> None:
        """Let the event have happened."""
        if isinstance(event, Write):
            write_into(self.files[event.inode], event.offset, event.data)
        elif isinstance(event, Length):
            set_length(self.files[event.inode], event.length)
        elif isinstance(event, Link):
            if event.is_folder:
                self.folders.setdefault(event.inode, {})
            else:
                self.files.setdefault(event.inode, bytearray())
            self._name(event.folder, event.name, event.inode)
        elif isinstance(event, Unlink):
            del self.folders[event.folder][event.name]
        elif isinstance(event, Rename):
            del self.folders[event.source][event.old]
            self._name(event.target, event.new, event.inode)

    def tree(self) -> dict[str, bytes | None]:
        """Contents by path; None for a folder."""
        return dict(self._walk(ROOT, ""))

    def _name(self, folder: int, name: str, inode: int) -> None:
        self.folders[folder][name] = inode
        self.paths[inode] = f"{self.paths[folder]}/{name}".removeprefix("/")

    def _walk(self, folder: int, prefix: str) -> Iterator[tuple[str, bytes | None]]:
        for name, inode in self.folders[folder].items():
            if inode in self.folders:
                yield prefix + name, None
                yield from self._walk(inode, f"{prefix}{name}/")
            else:
                yield prefix + name, bytes(self.files[inode])


def write_into(content: bytearray, offset: int, data: bytes) -> None:
    """Write as pwrite(2) does; a gap is zeros."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def set_length(content: bytearray, length: int) -> None:
    """Cut or grow as ftruncate(2) does."""
    del content[length:]
    content.extend(bytes(length - len(content)))


def real_tree(folder: Path) -> dict[str, bytes | None]:
    """Return the content of a real folder, in the form of `Cache.tree`."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }
