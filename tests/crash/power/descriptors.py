"""The file of the volume, or the connection, behind each descriptor of each process."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from tests.crash.power.trace import Call, TraceError

CLONES = frozenset({"clone", "clone3", "fork", "vfork"})
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")


@dataclass(slots=True)
class OpenFile:
    """An open file description: what descriptors made by dup(2) and fork(2) share."""

    inode: int
    flags: str
    position: int = 0


@dataclass(slots=True)
class Connection:
    """An accepted connection."""

    port: int | None = None
    """The client's."""
    answers: int = 0


Opened: TypeAlias = OpenFile | Connection
Table: TypeAlias = dict[int, Opened]


class Descriptors:
    """Follows clone, dup, close and accept. What is not on the volume is not in the tables."""

    def __init__(self, calls: Iterable[Call]) -> None:
        self._parents = {c.result: c for c in calls if c.name in CLONES and c.succeeded}
        self._tables: dict[int, Table] = {}

    def table(self, thread: int) -> Table:
        """The descriptors of a thread's process."""
        found = self._tables.get(thread)
        if found is None:
            found = self._tables[thread] = self._inherited(thread)
        return found

    def add(self, call: Call, opened: Opened) -> None:
        """The call returned a descriptor of this."""
        assert call.result is not None
        self.table(call.thread)[call.result] = opened

    def file(self, call: Call, argument: int = 0) -> OpenFile | None:
        """The file of the volume that an argument stands for."""
        found = self.table(call.thread).get(_number(call.plain()[argument]))
        return found if isinstance(found, OpenFile) else None

    def connection(self, call: Call) -> Connection | None:
        """The connection that the first argument stands for."""
        first = call.plain()[0]
        found = self.table(call.thread).get(int(first)) if first.isdigit() else None
        return found if isinstance(found, Connection) else None

    def follow(self, call: Call) -> bool:
        """Follow a call that is about descriptors alone; False for any other."""
        table = self.table(call.thread)
        arguments = call.plain()
        if call.name in CLONES:
            self._fork(call)
        elif call.name == "close":
            table.pop(_number(arguments[0]), None)
        elif call.name == "close_range":
            self._close_range(table, arguments)
        elif call.name in ("dup", "dup2", "dup3") or (call.name == "fcntl" and "F_DUPFD" in arguments[1]):
            self._copy(call, _number(arguments[0]))
        elif call.name == "execve":
            self._tables[call.thread] = kept = dict(table)
            for number, opened in table.items():
                if isinstance(opened, Connection) or "O_CLOEXEC" in opened.flags:
                    del kept[number]
        elif call.name in ("accept", "accept4"):
            self.add(call, Connection())
        elif call.name == "getpeername":
            if (connection := self.connection(call)) is not None and (port := _PORT.search(call.arguments)):
                connection.port = int(port[1])
        else:
            return call.name == "fcntl"
        return True

    def _fork(self, call: Call) -> None:
        """Give the child the descriptors that the parent has as the call begins."""
        if call.result is not None and call.result not in self._tables:
            self._tables[call.result] = self._inherited(call.result)

    def _inherited(self, thread: int) -> Table:
        call = self._parents.get(thread)
        if call is None:
            return {}  # the first process
        parent = self.table(call.thread)
        return parent if "CLONE_FILES" in call.arguments else dict(parent)

    def _copy(self, call: Call, number: int) -> None:
        table = self.table(call.thread)
        assert call.result is not None
        if number in table:
            table[call.result] = table[number]
        else:
            table.pop(call.result, None)

    def _close_range(self, table: Table, arguments: list[str]) -> None:
        first, last, flags = _number(arguments[0]), _number(arguments[1]), arguments[2]
        if flags != "0":
            raise TraceError(f"close_range with flags {flags}")
        for number in [n for n in table if first <= n <= last]:
            del table[number]


def _number(text: str) -> int:
    return int(text, 0)
