"""`vecstow serve` as a process of its own, for tests that kill it and start it again on the same volume."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

import httpx

from tests.ports import free_port

VECSTOW = Path(sys.executable).with_name("vecstow")
START_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 60.0
PR_SET_PDEATHSIG = 1
"""prctl(2), as <linux/prctl.h> has it."""


def end_with_parent() -> None:
    """Let this process be killed when its parent is gone: no process waits for it any more."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process(Protocol):
    """The part of `subprocess.Popen` that is needed of a process."""

    pid: int

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def send_signal(self, sig: int, /) -> None: ...


class EngineProcess:
    """One engine on `data`; started on entering, killed on leaving. `flags` are those of `vecstow serve`,
    `environment` is added to this process's.
    """

    def __init__(self, data: Path, *flags: object, environment: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.flags = [str(flag) for flag in flags]
        self.environment = dict(environment or {})
        self.log = data.parent / f"{data.name}.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self, path: str = "/health/ready") -> None:
        """Start, and return when `path` answers 200."""
        self.launch()
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        with httpx.Client(base_url=self.url, trust_env=False, timeout=5) as client:
            while not _answers(client, path):
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.01)

    @property
    def command(self) -> list[str]:
        """The arguments of `vecstow`."""
        return ["serve", "--data", str(self.data), "--port", str(self.port), *self.flags]

    def launch(self) -> None:
        """Start, and do not wait."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [VECSTOW, *self.command], stdout=log, stderr=log, env=os.environ | self.environment
            )

    def kill(self) -> None:
        """SIGKILL; nothing happens when it is gone already."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(timeout=STOP_SECONDS_MAX)
        self.process = None
        return code


def _answers(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False
