"""An engine at work on a volume, which can be stopped and started, or killed and started on what it left."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from tests.crash.reading import HOLD_SECONDS
from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.errors import DiskFull
from vecstow_engine.service import loader
from vecstow_engine.storage import files, store
from vecstow_engine.storage.layout import SEGMENT_SUFFIX, Layout
from vecstow_engine.storage.points import writer
from vecstow_engine.storage.store import Store

_Answer = TypeVar("_Answer")

MOMENTS = {
    "idle": None,
    "rows are written": (store, "write_points"),
    "SQLite has committed": (writer, "make_durable"),
}
"""At which a kill comes; the two in a checkpoint come before the call of that name."""
CALLS_OF_A_START = ("new_file", "remove")
"""Functions of `storage.files` about a log segment, at which a kill comes in a start."""


class Site:
    """One volume after the other: what a killed engine left is copied, and the next starts on the copy."""

    engine: RunningEngine

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starts = 0
        self.did: Counter[str] = Counter()
        """How often what was done."""
        self._loop = asyncio.new_event_loop()
        self._start()

    def do(self, call: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Wait for it."""
        return self._loop.run_until_complete(call)

    def restart(self) -> None:
        """Stop in order, and start again."""
        self.did["clean restarts"] += 1
        self.engine.stop()
        self.engine = RunningEngine(self.engine.settings.data)
        self.engine.__enter__()

    def kill(self, change: Callable[[Layout], None] = lambda layout: None) -> None:
        """Go on from what lies there, after `change` to it."""
        self.did["kills"] += 1
        with self._at_rest():
            self._leave()
        self._go_on(change)

    def kill_in_checkpoint(self, name: str, moment: str, change: Callable[[Layout], None]) -> bool:
        """As `kill`, in the middle of a checkpoint; False when there was nothing to checkpoint."""
        before = MOMENTS[moment]
        assert before is not None
        real = getattr(*before)

        def left_before(*values: Any, **named: Any) -> Any:
            if not self._next.exists():
                with self._at_rest():
                    self._leave()
            return real(*values, **named)

        with mock.patch.object(*before, left_before):
            self.engine.checkpoint(name)
        if not self._next.exists():
            return False
        self.did["kills in a checkpoint"] += 1
        self._go_on(change)
        return True

    def kill_in_start(self, call: str) -> None:
        """As `kill`, and once more before the start's first call of that name about a log segment."""
        real = getattr(files, call)

        def left_before(path: Path, *values: Any) -> Any:
            if path.suffix == SEGMENT_SUFFIX and not self._next.exists():
                self._leave()
            return real(path, *values)

        one_at_a_time = mock.patch.object(loader, "THREADS", 1)
        with one_at_a_time, mock.patch.object(files, call, left_before):
            self.kill()
        if self._next.exists():
            self.did["kills in a start"] += 1
            self._go_on(lambda layout: None)

    @contextmanager
    def without_room(self) -> Iterator[None]:
        """No checkpoint gets further than to its new log segment."""
        full = DiskFull("there is no room", operation="checkpoint")
        with mock.patch.object(Store, "_write_frozen", side_effect=full):
            yield

    def close(self) -> None:
        """Kill, and start no more."""
        self._end()
        self._loop.close()

    @property
    def _next(self) -> Path:
        return self._folder / str(self._starts)

    def _leave(self) -> None:
        """Copy what lies there to where the next engine starts."""
        shutil.copytree(self.engine.settings.data, self._next)

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """Keep the upkeep thread off the files, which a copy would otherwise show at two moments.

        It tries a checkpoint again that had no room.
        """
        gate = self.engine.gate
        is_held = gate.remaining_seconds > 0
        if not is_held:
            gate.hold(HOLD_SECONDS)
        try:
            yield
        finally:
            if not is_held:
                gate.release()

    def _go_on(self, change: Callable[[Layout], None]) -> None:
        self._end()
        change(Layout(self._next))
        self._start()

    def _start(self) -> None:
        self.engine = RunningEngine(self._next)
        self._starts += 1
        self.engine.__enter__()

    def _end(self) -> None:
        """Nothing is written at its end; what it had is looked at no more."""
        self.engine.hold.begin(HOLD_SECONDS)
        self.engine.stop()
        shutil.rmtree(self.engine.settings.data)
