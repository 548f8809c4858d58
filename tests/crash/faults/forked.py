"""Servers forked from a process that has imported the engine already: a start spends half its time on that.

Each is a process of its own that runs `vecstow serve` from its first statement on.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import subprocess
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

from tests.crash.faults.library import library

PRELOADED = (
    "tests.crash.faults.forked", "vecstow_engine.cli.main", "vecstow_engine.api.logs",
    "vecstow_engine.api.server", "vecstow_engine.api.fastapi_app",
    "vecstow_engine.service.engine", "uvloop",
)  # fmt: skip
BEFORE_IMPORTS = {"OPENBLAS_NUM_THREADS": "1"}
"""As `vecstow serve` has it."""


class Forked:
    """A server, as far as `EngineProcess` needs it."""

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """The exit code; raises TimeoutExpired."""
        self._process.join(timeout)
        if (code := self.poll()) is None:
            raise subprocess.TimeoutExpired("vecstow serve", timeout)
        return code

    def send_signal(self, number: int, /) -> None:
        """Nothing happens when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def serve(arguments: list[str], environment: dict[str, str], log: Path) -> Forked:
    """Run `vecstow` with these arguments and the library; returns at once."""
    process = _context().Process(target=_serve, args=(arguments, environment, log), daemon=True)
    process.start()
    return Forked(process)


@functools.cache
def _context() -> ForkServerContext:
    """Starts the process that has imported the engine; it ends with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with patch.dict(os.environ, BEFORE_IMPORTS, LD_PRELOAD=str(library())):
        forkserver.ensure_running()
    return context


def _serve(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    """In the forked process."""
    from vecstow_engine.cli.main import main

    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.close(written)
    os.environ.update(environment)
    ctypes.CDLL(None).vecstow_faults_attach()
    main(arguments)
