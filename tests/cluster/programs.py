"""A program of the cluster as a process: started, waited for, killed by its own id, never by its name."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TAIL_BYTES = 4_000
POLL_SECONDS = 0.05


class StartFailed(Exception):
    """Raised when a program ended, or did not get ready in time; the message has the end of its log."""


class Program:
    """One program. It ends with the thread that started it: the kernel sees to that."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self.command = [str(part) for part in command]
        self.name = Path(self.command[0]).name
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and do not wait. A second start needs a kill before it; the log goes on."""
        assert self.process is None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                # Not by preexec_fn, for which a process with threads would be forked.
                ["setpriv", "--pdeathsig=KILL", "--", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                # Ctrl-C is for this process, which then ends its programs in its own order.
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool], seconds_max: float) -> None:
        """Return when `ready` says so; raises StartFailed."""
        deadline = time.monotonic() + seconds_max
        while not ready():
            if self.process is None or self.process.poll() is not None:
                raise StartFailed(f"{self.name} has ended: {self._tail()}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{self.name} was not ready after {seconds_max} s: {self._tail()}")
            time.sleep(POLL_SECONDS)

    @property
    def pid(self) -> int | None:
        """None when it was not started, or was killed."""
        return None if self.process is None else self.process.pid

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone; nothing happens when it is not there."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _tail(self) -> str:
        return self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
