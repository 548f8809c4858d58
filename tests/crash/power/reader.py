"""From the calls of one recorded program to the events of one volume."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.crash.power.cache import Cache
from tests.crash.power.descriptors import CLONES, Connection, Descriptors, OpenFile
from tests.crash.power.events import (
    Answered,
    Event,
    Length,
    Link,
    Mapping,
    Mark,
    Rename,
    Sync,
    Unlink,
    Write,
)
from tests.crash.power.trace import UNKNOWN_TO_THE_MODEL, Call, TraceError

MARK_PREFIX = "/vecstow-mark/"
"""A folder that does not exist: rmdir(2) below it says something to the reader of the record, and fails."""
PAGE_BYTES = 4096
_ANSWER = b"HTTP/1.1 "
_AT_ENTRY = CLONES | {"close", "close_range"}
"""Calls whose descriptor is resolved as they begin: another thread may use the number before they return."""
_PATHS_IN_UNKNOWN = frozenset({"truncate", "symlink", "symlinkat", "openat2", "mknod", "mknodat", "setxattr"})
_NEVER = frozenset({"sync", "syncfs", "chdir", "fchdir", "chroot", "io_submit", "io_uring_enter"})
_HARMLESS_IOCTLS = ("FIOCLEX", "FIONCLEX", "TCGETS")


WHOLE = 0


def cut_at_page(data: bytes, offset: int, pages: int) -> bytes:
    """Return the part of a write that a kill after so many pages leaves; WHOLE: all of it."""
    return data if pages == WHOLE else data[: pages * PAGE_BYTES - offset % PAGE_BYTES]


class Reader:
    """Reads the calls of one program, whose volume lies at `root`, into events; `cache` follows them.

    The cache may come from a program before, which was killed. Which of the calls that a kill cut short took
    place the record does not tell: `happened` has the entries of those that did, and how far a write came
    (see `cut_at_page`).
    """

    def __init__(self, root: Path, cache: Cache) -> None:
        self._root = str(root)
        self.cache = cache
        self._handlers: dict[str, Callable[[Call], Iterator[Event]]] = {
            "write": self._write, "writev": self._write, "pwrite64": self._write, "pwritev": self._write,
            "pwritev2": self._write, "sendto": self._write, "sendmsg": self._write,
            "ftruncate": self._truncate, "fallocate": self._allocate, "lseek": self._seek,
            "rename": self._rename, "renameat": self._rename, "renameat2": self._rename,
            "unlink": self._unlink, "unlinkat": self._unlink, "rmdir": self._unlink,
            "mkdir": self._mkdir, "mkdirat": self._mkdir, "link": self._link, "linkat": self._link,
            "fsync": self._sync, "fdatasync": self._sync, "mmap": self._map,
            "open": self._open, "openat": self._open, "creat": self._open,
        }  # fmt: skip

    def read(self, calls: list[Call], happened: dict[int, int] | None = None) -> list[Event]:
        """The events in the order in which they were over. Raises TraceError for what no model follows."""
        self._descriptors = Descriptors(calls)
        self._end = max((max(c.entry, c.exit or 0) for c in calls), default=0) + 1
        self._happened = happened or {}
        events = []
        for call in sorted(calls, key=self._moment):
            for event in self._events(call):
                self.cache.apply(event)
                events.append(event)
        return events

    def _moment(self, call: Call) -> int:
        if call.name in _AT_ENTRY or call.exit is None:
            return call.entry if call.name in _AT_ENTRY else self._end
        return call.exit

    def _events(self, call: Call) -> Iterator[Event]:
        if call.name == "rmdir" and call.error is not None:
            yield from self._marks(call)
        counts = call.succeeded or (call.exit is None and call.entry in self._happened)
        if call.name in ("fsync", "fdatasync") and call.exit is not None:
            yield from self._sync(call)
        elif counts or (call.exit is None and self._descriptors.connection(call) is not None):
            if call.name in UNKNOWN_TO_THE_MODEL:
                self._refuse(call)
            elif call.name in self._handlers:
                yield from self._handlers[call.name](call)
            elif not self._descriptors.follow(call):
                raise TraceError(f"nothing follows {call}")

    def _span(self, call: Call) -> dict[str, Any]:
        return {"entry": call.entry, "exit": self._end if call.exit is None else call.exit}

    def _refuse(self, call: Call) -> None:
        """Raise for a call that the model does not know, where it may be about the volume."""
        if call.name == "ioctl" and any(name in call.arguments for name in _HARMLESS_IOCTLS):
            return
        touched = call.name in _NEVER or (
            any(self._relative(path) is not None for path in call.strings())
            if call.name in _PATHS_IN_UNKNOWN
            else any(self._is_ours(call, part) for part in call.plain())
        )
        if touched:
            raise TraceError(f"the model does not know {call}")

    def _is_ours(self, call: Call, argument: str) -> bool:
        table = self._descriptors.table(call.thread)
        return argument.isdigit() and isinstance(table.get(int(argument)), OpenFile)

    # Paths ------------------------------------------------------------------------------------------------

    def _relative(self, raw: bytes, folder: OpenFile | None = None) -> str | None:
        """The path relative to the volume; None for one that lies elsewhere."""
        path = os.fsdecode(raw)
        if folder is not None and not path.startswith("/"):
            return f"{self.cache.paths[folder.inode]}/{path}".removeprefix("/")
        path = os.path.normpath(path)
        if path == self._root:
            return ""
        return path.removeprefix(self._root + "/") if path.startswith(self._root + "/") else None

    def _paths(self, call: Call) -> list[str | None]:
        """The paths among the arguments, each relative to its folder's descriptor where it has one."""
        arguments = call.plain()
        strings = iter(call.strings())
        found = []
        for place, argument in enumerate(arguments):
            if argument.startswith('"'):
                before = arguments[place - 1] if place else ""
                folder = self._descriptors.file(call, place - 1) if before.isdigit() else None
                found.append(self._relative(next(strings), folder))
        return found

    def _place(self, path: str) -> tuple[int, str]:
        """The folder's inode, and the name in it."""
        above, _, name = path.rpartition("/")
        folder = self.cache.find(above)
        if folder is None:
            raise TraceError(f"the folder of {path} is unknown")
        return folder, name

    def _inode(self, path: str) -> int:
        inode = self.cache.find(path)
        if inode is None:
            raise TraceError(f"{path} is unknown")
        return inode

    # Calls ------------------------------------------------------------------------------------------------

    def _open(self, call: Call) -> Iterator[Event]:
        [path] = self._paths(call)
        if path is None:
            if call.exit is not None:
                self._descriptors.table(call.thread).pop(call.result or 0, None)
            return
        flags = "O_CREAT|O_TRUNC|O_WRONLY" if call.name == "creat" else call.arguments
        if "O_TMPFILE" in flags:
            raise TraceError(f"the model does not know {call}")
        inode = self.cache.find(path)
        if inode is None:
            inode = self.cache.new_inode()
            folder, name = self._place(path)
            yield Link(**self._span(call), folder=folder, name=name, inode=inode)
        elif "O_TRUNC" in flags:
            yield Length(**self._span(call), inode=inode, length=0)
        if call.exit is not None:
            self._descriptors.add(call, OpenFile(inode, flags))

    def _write(self, call: Call) -> Iterator[Event]:
        if (connection := self._descriptors.connection(call)) is not None:
            yield from self._answer(call, connection)  # begun is as good as sent
        elif (file := self._descriptors.file(call)) is not None:
            data = b"".join(call.strings())
            if call.exit is not None:
                if len(data) < (call.result or 0):
                    raise TraceError(f"the data is not whole: {call}")
                data = data[: call.result]
            offset = self._offset(call, file)
            if call.exit is None:
                data = cut_at_page(data, offset, self._happened[call.entry])
            if not call.name.startswith("p"):
                file.position = offset + len(data)
            yield Write(**self._span(call), inode=file.inode, offset=offset, data=data)

    def _offset(self, call: Call, file: OpenFile) -> int:
        if "O_APPEND" in file.flags:
            return len(self.cache.files[file.inode])
        if call.name.startswith("p"):
            return int(call.plain()[-2 if call.name == "pwritev2" else -1], 0)
        if "O_RDWR" in file.flags:
            raise TraceError(f"reads, which are not recorded, may have moved the position of {call}")
        return file.position

    def _answer(self, call: Call, connection: Connection) -> Iterator[Event]:
        if not b"".join(call.strings()).startswith(_ANSWER):
            return
        if connection.port is None:
            raise TraceError(f"nobody asked for the peer of {call}")
        yield Answered(**self._span(call), port=connection.port, number=connection.answers)
        connection.answers += 1

    def _truncate(self, call: Call) -> Iterator[Event]:
        if (file := self._descriptors.file(call)) is not None:
            yield Length(**self._span(call), inode=file.inode, length=int(call.plain()[1], 0))

    def _allocate(self, call: Call) -> Iterator[Event]:
        if (file := self._descriptors.file(call)) is not None:
            _, mode, offset, length = call.plain()
            if mode != "0":
                raise TraceError(f"the model does not know {call}")
            if (end := int(offset) + int(length)) > len(self.cache.files[file.inode]):
                yield Length(**self._span(call), inode=file.inode, length=end)

    def _seek(self, call: Call) -> Iterator[Event]:
        if (file := self._descriptors.file(call)) is not None and call.result is not None:
            file.position = call.result
        yield from ()

    def _rename(self, call: Call) -> Iterator[Event]:
        old, new = self._paths(call)
        if old is None and new is None:
            return
        if old is None or new is None or "RENAME_EXCHANGE" in call.arguments:
            raise TraceError(f"the model does not know {call}")
        inode = self._inode(old)
        (source, old_name), (target, new_name) = self._place(old), self._place(new)
        yield Rename(
            **self._span(call), source=source, old=old_name, target=target, new=new_name, inode=inode
        )

    def _unlink(self, call: Call) -> Iterator[Event]:
        [path] = self._paths(call)
        if path is not None:
            inode = self._inode(path)
            folder, name = self._place(path)
            yield Unlink(**self._span(call), folder=folder, name=name, inode=inode)

    def _mkdir(self, call: Call) -> Iterator[Event]:
        [path] = self._paths(call)
        if path is not None:
            folder, name = self._place(path)
            inode = self.cache.new_inode()
            yield Link(**self._span(call), folder=folder, name=name, inode=inode, is_folder=True)

    def _link(self, call: Call) -> Iterator[Event]:
        old, new = self._paths(call)
        if new is not None and old is not None:
            folder, name = self._place(new)
            yield Link(**self._span(call), folder=folder, name=name, inode=self._inode(old))

    def _sync(self, call: Call) -> Iterator[Event]:
        if (file := self._descriptors.file(call)) is not None:
            yield Sync(**self._span(call), inode=file.inode, ok=call.error is None)

    def _map(self, call: Call) -> Iterator[Event]:
        """A shared mapping of a file that was opened for writing can be made writable at any time."""
        _, _, protection, flags, descriptor, _ = call.plain()
        if "MAP_SHARED" in flags and descriptor != "-1":
            file = self._descriptors.file(call, 4)
            if file is not None and ("PROT_WRITE" in protection or "O_RDWR" in file.flags):
                yield Mapping(**self._span(call), inode=file.inode, path=self.cache.paths[file.inode])

    def _marks(self, call: Call) -> Iterator[Event]:
        [path] = call.strings()
        if path.startswith(MARK_PREFIX.encode()):
            yield Mark(**self._span(call), text=path.decode().removeprefix(MARK_PREFIX))
