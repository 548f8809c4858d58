"""The effects of a record's calls on one volume: writes, lengths, names and syncs of numbered inodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

ROOT = 0
"""The inode of the volume's folder, which was there and durable before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """It lay in the kernel from `entry` to `exit`; both are positions in the record."""

    entry: int
    exit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(Event):
    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Length(Event):
    """A file was cut or grew."""

    inode: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Event):
    """An inode got a name: a new file, a new folder, or a second name."""

    folder: int
    name: str
    inode: int
    is_folder: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlink(Event):
    folder: int
    name: str
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename(Event):
    source: int
    old: str
    target: int
    new: str
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync(Event):
    """fsync or fdatasync of a file or a folder."""

    inode: int
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping(Event):
    """A file of the volume was mapped such that memory writes it."""

    inode: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Event):
    """The server began to send an answer to the client at this port."""

    port: int
    number: int
    """0 for the connection's first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Event):
    """The recorded program said how far it is."""

    text: str


NameStep: TypeAlias = Link | Unlink | Rename
DataStep: TypeAlias = Write | Length
