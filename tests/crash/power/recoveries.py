"""Records of recoveries: what a start does to a volume that lost power, so that power may be lost in it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.crash.power.cache import Cache, real_tree
from tests.crash.power.disk import Disk
from tests.crash.power.events import Event, Mark
from tests.crash.power.reader import MARK_PREFIX, Reader
from tests.crash.power.recorded_server import REPOSITORY
from tests.crash.power.recoverer import END, OPEN
from tests.crash.power.states import MAPPED_SUFFIX, State
from tests.crash.power.trace import TraceError, parse, strace
from tests.engine_process import end_with_parent
from tests.waiting import SECONDS_MAX

_MARK = "".join(f"\\x{byte:02x}" for byte in MARK_PREFIX.encode())
_END = _MARK + "".join(f"\\x{byte:02x}" for byte in END.encode()) + '"'


@dataclass(frozen=True)
class RecordedRecovery:
    """The effects of one start on a state of a volume."""

    state: State
    events: list[Event]
    opened: int
    """From here on all collections are open, and what they show must stay."""

    def disk(self) -> Disk:
        """The disk before: all that a loss of power left is durable."""
        return Disk.resting(self.state.tree, self.state.inodes)

    def cache(self) -> Cache:
        """Return the cache as the start finds it."""
        return Cache.resting(self.state.tree, self.state.inodes)


class Recoverer:
    """A process under strace that recovers volumes."""

    def __init__(self, process: subprocess.Popen[str], trace: IO[str]) -> None:
        self._process = process
        self._trace = trace
        self._unread = ""

    def record(self, state: State, data: Path) -> RecordedRecovery:
        """Put the state into `data`, which must not exist, and have it recovered there."""
        state.write(data)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(data, file=self._process.stdin, flush=True)
        if not self._process.stdout.readline():
            raise TraceError(f"the recovery of {data} ended its process")
        cache = Cache.resting(state.tree, state.inodes)
        events = Reader(data, cache).read(parse(self._lines()))
        if _visible(cache.tree()) != _visible(real_tree(data)):
            raise TraceError(f"the record of a recovery does not lead to what lies in {data}")
        [opened] = [event.entry for event in events if isinstance(event, Mark) and event.text == OPEN]
        return RecordedRecovery(state, [e for e in events if not isinstance(e, Mark)], opened)

    def _lines(self) -> list[str]:
        """The lines from the mark of the beginning to that of the end; strace may be a little behind."""
        deadline = time.monotonic() + SECONDS_MAX
        lines: list[str] = []
        while not any(_END in line for line in lines[-3:]):
            assert time.monotonic() < deadline, "the record of a recovery does not end"
            self._unread += self._trace.readline()
            if self._unread.endswith("\n"):
                lines.append(self._unread)
                self._unread = ""
            elif not self._unread:
                time.sleep(0.0005)
        begin = next(place for place, line in enumerate(lines) if _MARK in line)
        return lines[begin:]


@contextmanager
def recoverer(folder: Path) -> Iterator[Recoverer]:
    """A process that lives until the block ends."""
    trace = folder / "recoveries"
    trace.touch()
    command = strace(trace, [sys.executable, "-m", "tests.crash.power.recoverer"])
    with (
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=end_with_parent,
        ) as process,
        trace.open() as stream,
    ):
        yield Recoverer(process, stream)


def _visible(tree: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {path: content for path, content in tree.items() if not path.endswith(MAPPED_SUFFIX)}
