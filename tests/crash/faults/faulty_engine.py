"""A real server with the library preloaded."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path

from tests.crash.faults import forked
from tests.crash.faults.control import Control, Fault
from tests.crash.faults.library import library
from tests.crash.rest import Refused, Rest
from tests.engine_process import EngineProcess
from tests.waiting import SECONDS_MAX


class Hangs(AssertionError):
    """Raised when what must come did not come in time."""


class FaultyEngine(EngineProcess):
    """A server whose calls on its volume are counted, and fail on demand; it ends together with this process.

    Its control file lies next to the volume.
    """

    def __init__(self, data: Path, *flags: object) -> None:
        super().__init__(data, *flags)
        self.control = Control(data.with_name(f"{data.name}.control"))
        self.environment = self.control.environment(library(), data)

    def launch(self) -> None:
        self.process = forked.serve(self.command, self.environment, self.log)

    def begin(self, fault: Fault | None = None, ready: str = "/health/ready") -> bool:
        """Start, with a fault that befalls the start; False when the process ended before it was ready."""
        self.control.disarm()
        self.control.forget()
        if fault is not None:
            self.control.arm(fault)
        self.launch()
        return self.comes_up(ready)

    def comes_up(self, ready: str = "/health/ready") -> bool:
        """Wait until it serves, or is gone."""
        poll(lambda: self.is_gone or self._answers(ready), "the server neither serves nor ends")
        return not self.is_gone

    @property
    def is_gone(self) -> bool:
        """The process has ended, of itself or not."""
        return self.process is None or self.process.poll() is not None

    def wait_gone(self) -> None:
        """Until a kill has had its effect."""
        poll(lambda: self.is_gone, "the process outlives its kill")
        self.process = None

    def _answers(self, path: str) -> bool:
        try:
            with Rest(self.port) as rest:
                rest.call("GET", path)
        except (OSError, http.client.HTTPException, Refused, KeyError, ValueError):
            return False
        return True


def poll(condition: Callable[[], bool], otherwise: str) -> None:
    """Until it holds; raises Hangs."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise Hangs(otherwise)
        time.sleep(0.005)
