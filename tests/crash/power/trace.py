"""The calls of a program that strace(1) saw: all that write, name, sync, open or send, in order.

A call has two positions in the record: its entry, printed before the kernel acted on it, and its exit,
printed before the program went on. So a call whose exit stands before another's entry was over when that one
began.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# fmt: off
MODELLED = (
    "write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "fallocate", "lseek",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link", "linkat",
    "fsync", "fdatasync", "mmap", "open", "openat", "creat", "close", "close_range", "dup", "dup2", "dup3",
    "fcntl", "clone", "clone3", "fork", "vfork", "execve", "sendto", "sendmsg", "accept", "accept4",
    "getpeername",
)
UNKNOWN_TO_THE_MODEL = (
    "truncate", "symlink", "symlinkat", "sync_file_range", "msync", "sendfile", "copy_file_range", "splice",
    "vmsplice", "io_setup", "io_submit", "io_uring_setup", "io_uring_enter", "openat2", "mknod", "mknodat",
    "sync", "syncfs", "process_vm_writev", "chdir", "fchdir", "chroot", "remap_file_pages", "ioctl",
    "setxattr", "fsetxattr",
)
# fmt: on
"""Ways to write, or to hide a write, that nothing here follows: on the volume they end the reading."""

NO_RINGS = "io_uring_setup:error=ENOSYS"
"""Makes rings fail: their traffic cannot be seen. The event loop also works without one."""

STRING_BYTES_MAX = 8 << 20

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()?(.*)", re.DOTALL)
_KILLED_BEFORE = "???("
"""A thread that was killed before strace knew what it called: the kernel did not act on it."""
_RESULT = re.compile(r"\) += (\?|-?\d+|0x[0-9a-f]+)(?: (E\w+))?[^\"]*$")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_WRITES = frozenset({"write", "writev", "pwrite64", "pwritev", "pwritev2"})
_UNFINISHED = "<unfinished ...>"
_DETACHED = "<detached ...>"
"""The end of a call whose thread was killed while strace printed it."""


class TraceError(Exception):
    """The record cannot be followed, so nothing can be concluded from it."""


@dataclass(slots=True)
class Call:
    """One system call of one thread."""

    thread: int
    name: str
    arguments: str
    entry: int
    exit: int | None = None
    """None: it was never seen to end, because its process was killed in it."""
    result: int | None = None
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        """It ended, and well."""
        return self.exit is not None and self.error is None and self.result is not None and self.result >= 0

    def strings(self) -> list[bytes]:
        """The texts and buffers among the arguments."""
        found = []
        for text, cut in _STRING.findall(self.arguments):
            if cut:
                raise TraceError(f"{self.name} at {self.entry}: its data was not recorded as a whole")
            found.append(bytes.fromhex(text.replace("\\x", "")))
        return found

    def plain(self) -> list[str]:
        """The arguments between commas, strings and structures included as they are."""
        return [part.strip() for part in self.arguments.split(",")]

    def __str__(self) -> str:
        return f"{self.name}({self.arguments[:120]}) at {self.entry}"


def strace(output: Path, command: Sequence[object], *, inject: Sequence[str] = ()) -> list[str]:
    """The command line that runs `command` and all its children under strace.

    Goes through a pipe: into a file strace would write by blocks, and the last lines of a program late.
    """
    options = ["-f", "--seccomp-bpf", "-xx", "-s", str(STRING_BYTES_MAX), "-o", f"|cat >'{output}'"]
    options += ["-e", "signal=none", "-e", "trace=" + ",".join([*MODELLED, *UNKNOWN_TO_THE_MODEL])]
    for rule in [NO_RINGS, *inject]:
        options += ["-e", f"inject={rule}"]
    return ["strace", *options, *map(str, command)]


def missing() -> str | None:
    """Why nothing can be recorded here; None: it can."""
    return None if shutil.which("strace") else "strace is not installed"


def parse(lines: Iterable[str], first: int = 0) -> list[Call]:
    """The calls in the order of their entries; positions are line numbers, from `first` on."""
    return list(_Parser(first).calls(lines))


class _Parser:
    def __init__(self, first: int) -> None:
        self._position = first
        self._open: dict[int, Call] = {}
        """By thread: the call that has entered and not ended."""

    def calls(self, lines: Iterable[str]) -> Iterator[Call]:
        for line in lines:
            call = self._read(line.rstrip("\n"))
            self._position += 1
            if call is not None:
                yield call

    def _read(self, line: str) -> Call | None:
        """The call that this line begins."""
        match = _LINE.fullmatch(line)
        if match is None:
            raise TraceError(f"not a line of strace: {line[:200]!r}")
        thread, resumed, name, rest = int(match[1]), match[2], match[3], match[4]
        if resumed:
            call = self._open.pop(thread)
            if call.name != resumed:
                raise TraceError(f"{resumed} resumes {call}")
            self._end(call, call.arguments + rest)
            return None
        if not name:
            if not rest.startswith(("+++", "---", _KILLED_BEFORE)):
                raise TraceError(f"not a line of strace: {line[:200]!r}")
            return None
        call = Call(thread, name, rest, self._position)
        if rest.endswith(_UNFINISHED):
            call.arguments = rest.removesuffix(_UNFINISHED)
            self._open[thread] = call
        else:
            self._end(call, rest)
        return call

    def _end(self, call: Call, text: str) -> None:
        if text.endswith(_DETACHED):
            call.arguments = text.removesuffix(_DETACHED)
            return
        match = _RESULT.search(text)
        if match is None:
            raise TraceError(f"{call.name} at {self._position} has no result: {text[-200:]!r}")
        call.arguments = text[: match.start()].removesuffix(_UNFINISHED)
        if match[1] == "?" and match[2] is None:
            return  # killed in it
        if match[1] == "0" and call.name in _WRITES and any(call.strings()):
            return  # as well: no write of some bytes returns 0, whatever strace prints of a dead thread
        call.exit = self._position
        call.error = match[2]
        call.result = int(match[1], 0) if match[1] != "?" else -1
