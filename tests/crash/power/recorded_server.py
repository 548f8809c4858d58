"""The real server under strace, on one volume over several processes, and the events of all of them."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from tests.crash.power.cache import Cache, real_tree
from tests.crash.power.events import Event
from tests.crash.power.reader import PAGE_BYTES, WHOLE, Reader
from tests.crash.power.states import MAPPED_SUFFIX
from tests.crash.power.trace import Call, TraceError, parse, strace
from tests.engine_process import STOP_SECONDS_MAX, EngineProcess, end_with_parent

REPOSITORY = Path(__file__).parents[3]
UNDECIDED_MAX = 6
"""Limit on the calls that a kill cut short and whose effect is not known yet."""


class RecordedServer(EngineProcess):
    """Processes that serve one new volume one after another; `events` has what they did, in order."""

    def __init__(self, folder: Path, *flags: object) -> None:
        super().__init__(folder / "data", *flags)
        self.data.mkdir()
        self.cache = Cache()
        self.events: list[Event] = []
        self.ends: list[int] = []
        """Positions at which the processes were gone."""
        self.inject: Sequence[str] = ()
        """Faults of the next process, as strace has them."""

    def launch(self) -> None:
        """Start a process under strace, and do not wait."""
        serve = [sys.executable, "-m", "tests.crash.power.server", "serve"]
        command = strace(
            self._trace,
            [*serve, "--data", self.data, "--port", self.port, *self.flags],
            inject=self.inject,
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, stdout=log, stderr=log, preexec_fn=end_with_parent
            )

    def _end(self, number: signal.Signals) -> int:
        """Signal the server, wait until strace is done too, and read what was recorded."""
        if self.process is None:
            return 0
        os.kill(int((self.data / "LOCK").read_text()), number)
        code = self.process.wait(STOP_SECONDS_MAX)
        self.process = None
        with self._trace.open() as lines:
            calls = parse(lines, self.ends[-1] if self.ends else 0)
        self.events += self._read(calls)
        self.ends.append(max(max(call.entry, call.exit or 0) for call in calls) + 2)
        return code

    @property
    def _trace(self) -> Path:
        return self.data.with_name(f"trace-{len(self.ends)}")

    def _read(self, calls: list[Call]) -> list[Event]:
        """The events that lead to what really lies there, whichever calls the kill cut short took place."""
        real = _without_shared_memory(real_tree(self.data))
        undecided = [call for call in calls if call.exit is None and _changes_files(call)]
        assert len(undecided) <= UNDECIDED_MAX, undecided
        refused: list[str] = []
        for happened in _possible(undecided):
            cache = copy.deepcopy(self.cache)
            try:
                events = Reader(self.data, cache).read(calls, happened)
            except (TraceError, KeyError) as error:
                refused.append(str(error))
                continue
            found = _without_shared_memory(cache.tree())
            if found == real:
                self.cache = cache
                return events
            wrong = sorted(
                path for path in found.keys() | real.keys() if found.get(path, 0) != real.get(path, 0)
            )
            refused.append(f"differs in {wrong[:5]}")
        raise TraceError(f"the record does not lead to what lies in {self.data}: {refused}")


def _possible(undecided: Sequence[Call]) -> Iterator[dict[int, int]]:
    """Which of these calls took place, and how far, most likely first: a kill cuts a write between pages."""
    ways = [[None, WHOLE, *range(1, sum(map(len, call.strings())) // PAGE_BYTES + 2)] for call in undecided]
    for chosen in product(*ways):
        yield {call.entry: way for call, way in zip(undecided, chosen, strict=True) if way is not None}


def _changes_files(call: Call) -> bool:
    names = ("write", "trunc", "alloc", "rename", "link", "mkdir", "rmdir", "open", "creat")
    return any(name in call.name for name in names)


def _without_shared_memory(tree: dict[str, bytes | None]) -> dict[str, bytes | None]:
    return {path: content for path, content in tree.items() if not path.endswith(MAPPED_SUFFIX)}
