"""The loop of passes: by the clock, sooner when woken, until a signal ends it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from vecstow_operator.health import Heartbeat

log = structlog.stdlib.get_logger(__name__)

GATHER_SECONDS: Final = 0.2
"""After a wake, so that what comes together is one pass."""
SHARE_MAX: Final = 0.5
"""Woken passes take at most this share of a core: many changes make fewer, larger passes. To wait for a disk
or an answer costs nobody anything."""


@dataclass(slots=True)
class Loop:
    """`run_pass(is_woken=…)` again and again. Any thread may call `wake` and `stop`."""

    run_pass: Callable[..., None]
    tick_seconds: float
    heartbeat: Heartbeat
    stopped: threading.Event = field(default_factory=threading.Event)
    """For a pass to see that it is the last, and end soon."""
    _woken: threading.Event = field(default_factory=threading.Event)

    def wake(self) -> None:
        """Look again soon."""
        self._woken.set()

    def stop(self) -> None:
        """No pass begins any more."""
        self.stopped.set()
        self._woken.set()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT end it in order."""

        def stop(*_: Any) -> None:
            self.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)

    def run(self) -> None:
        """Until `stop`. An error that nobody expected is logged, and the next pass comes all the same."""
        is_woken = True
        while not self.stopped.is_set():
            begun, worked = time.monotonic(), time.thread_time()
            try:
                self.run_pass(is_woken=is_woken)
            except Exception:
                log.exception("pass failed")
            self.heartbeat.beat()
            took, worked = time.monotonic() - begun, time.thread_time() - worked
            self.stopped.wait(max(GATHER_SECONDS, worked / SHARE_MAX - took))
            is_woken = self._woken.wait(max(0.0, self.tick_seconds - took))
            if is_woken:  # what wakes just after the time is up counts for the pass after the next one
                self._woken.clear()
