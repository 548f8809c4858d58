"""`vecstow serve` as a process of its own on a volume, and what /proc says of it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from benchmarks.harness.figures import BenchmarkFailed
from benchmarks.harness.wire import Connection, build_request

VECSTOW: Final = Path(sys.executable).with_name("vecstow")
POLL_SECONDS: Final = 0.002
START_SECONDS_MAX: Final = 300.0
STOP_SECONDS_MAX: Final = 300.0


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """Threads and memory of a running process."""

    threads: int
    descriptors: int
    resident_mib: float


class Server:
    """One volume, served; started and ended any number of times."""

    def __init__(
        self,
        data: Path,
        options: Sequence[str] = (),
        descriptors_max: int | None = None,
        engine: Path | None = None,
    ) -> None:
        """`engine`: the folder of another checkout's package; None: ours."""
        self.data = data
        self.log_path = data.with_name(data.name + ".log")
        self.options = list(options)
        self.descriptors_max = descriptors_max
        self.engine = engine
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def spawn(self) -> None:
        """Start the process and return at once."""
        command = [VECSTOW, "serve", "--data", self.data, "--port", str(self.port), "--log-format", "json"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self.options],
                stdout=log,
                stderr=log,
                env=_environment(self.engine),
                preexec_fn=self._limit_descriptors,
            )

    def start(self) -> None:
        """Start, and return once every collection is ready."""
        self.spawn()
        self.wait_ready()

    def wait_ready(self, path: str = "/health/ready") -> None:
        """Return when this route answers 200."""
        request = build_request("GET", path)
        while True:
            try:
                with self.connect() as connection:
                    while connection.exchange(request).status != 200:
                        self.check_alive()
                        time.sleep(POLL_SECONDS)
                return
            except (ConnectionError, TimeoutError):
                self.check_alive()
                time.sleep(POLL_SECONDS)

    def check_alive(self) -> None:
        """Raise BenchmarkFailed when the process has ended, with the end of its log."""
        if self._process is None or self._process.poll() is not None:
            tail = self.log_path.read_text().splitlines()[-3:]
            raise BenchmarkFailed("the server ended by itself: " + " | ".join(tail))

    def connect(self) -> Connection:
        """A new connection; raises ConnectionRefusedError while the server does not listen."""
        return Connection(self.port, START_SECONDS_MAX)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait for the orderly end; raises BenchmarkFailed when it is none."""
        if self._end(signal.SIGTERM) != 0:
            raise BenchmarkFailed(f"the server did not end in order; its log is {self.log_path}")

    def facts(self) -> ProcessFacts:
        """Threads, descriptors and resident memory of this moment."""
        assert self._process is not None
        proc = Path("/proc") / str(self._process.pid)
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return ProcessFacts(
            threads=int(status["Threads"]),
            descriptors=len(os.listdir(proc / "fd")),
            resident_mib=int(status["VmRSS"].split()[0]) / 1024,
        )

    def cpu_seconds(self) -> float:
        """Processor time that the process took so far."""
        assert self._process is not None
        fields = (Path("/proc") / str(self._process.pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_events(self, event: str) -> list[dict[str, Any]]:
        """The log lines with this message, oldest first, `at` being seconds since 1970."""
        lines = (json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{"))
        return [line | {"at": _seconds(line["timestamp"])} for line in lines if line["event"] == event]

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(STOP_SECONDS_MAX)
        self._process = None
        return code

    def _limit_descriptors(self) -> None:
        if self.descriptors_max is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors_max, self.descriptors_max))


def _environment(engine: Path | None) -> dict[str, str]:
    """Ours, but for what would make each start compile the source again; `engine` is imported first."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if engine is not None:
        environment["PYTHONPATH"] = str(engine.absolute())
    return environment


def _free_port() -> int:
    """Below the range for outgoing connections, where a client that waits could meet itself."""
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise BenchmarkFailed("no free port")


def _seconds(timestamp: str) -> float:
    return datetime.datetime.fromisoformat(timestamp).timestamp()
