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
"""The wait after a wake, so that simultaneous changes share one pass."""
SHARE_MAX: Final = 0.5
"""The largest share of a core that woken passes take: many changes make fewer, larger passes. Waiting for a
disk or an answer does not count."""


@dataclass(slots=True)
class Loop:
    """Calls `run_pass(is_woken=…)` repeatedly. Any thread may call `wake` and `stop`."""

    run_pass: Callable[..., None]
    tick_seconds: float
    heartbeat: Heartbeat
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set by `stop`: the present pass is the last, and ends early."""
    _woken: threading.Event = field(default_factory=threading.Event)

    def wake(self) -> None:
        """Begin the next pass soon."""
        self._woken.set()

    def stop(self) -> None:
        """Begin no further pass."""
        self.stopped.set()
        self._woken.set()

    def stop_on_signals(self) -> None:
        """End the loop in order on SIGTERM and SIGINT."""

        def stop(*_: Any) -> None:
            self.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)

    def run(self) -> None:
        """Run passes until `stop`. An unexpected error is logged, and the next pass follows."""
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
            if is_woken:  # a wake after the wait has ended is left for the pass after the next one
                self._woken.clear()
