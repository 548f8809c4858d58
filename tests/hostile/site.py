"""An engine under a memory limit, and those who use it while it is attacked."""

from __future__ import annotations

import http.client
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.engine_process import VECSTOW, EngineProcess
from tests.hostile.bodies import Body
from tests.hostile.memory_limit import MemoryLimit

MIB = 1 << 20
PATIENCE_SECONDS = 60.0
"""Patience of a client that means no harm, on a machine with other work to do."""


class LimitedEngine(EngineProcess):
    """An engine with a memory limit, which the kernel enforces too."""

    def __init__(self, data: Path, limit: MemoryLimit, *flags: object) -> None:
        super().__init__(data, "--memory-limit", str(limit.limit_bytes), *flags)
        self._limit = limit

    def launch(self) -> None:
        """Start under the limit, and do not wait."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [VECSTOW, *self.command], stdout=log, stderr=log, preexec_fn=self._limit.apply
            )

    @property
    def is_alive(self) -> bool:
        """Whether the process that was started is still there."""
        return self.process is not None and self.process.poll() is None

    @property
    def peak_bytes(self) -> int:
        """The most memory that the process ever had."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def send(self, method: str, target: str, body: Body) -> int:
        """Send one body; returns the status, 0 when the connection was reset while it was sent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, target, body.content, {"Content-Type": body.media} | body.headers)
            response = connection.getresponse()
            while response.read(MIB):
                pass
            return response.status
        except (ConnectionError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


class Neighbours:
    """A probe of health, a searcher and a writer, each in a thread, from before the attack until it ends."""

    def __init__(self, engine: LimitedEngine) -> None:
        self._engine = engine
        self._done = threading.Event()
        self.answers: dict[str, Counter[int | str]] = {}
        self._calls: dict[str, Callable[[httpx.Client], httpx.Response]] = {
            "live": lambda client: client.get("/health/live"),
            "search": lambda client: client.post("/collections/ours/search", json={"vector": [1, 2]}),
            "write": lambda client: client.post(
                "/collections/ours/vectors", json={"id": "w", "data": [3, 4], "metadata": {"a": 1}}
            ),
        }
        self._answered = threading.Barrier(len(self._calls) + 1)
        self._threads = [
            threading.Thread(target=self._run, args=(name, call)) for name, call in self._calls.items()
        ]

    def __enter__(self) -> Neighbours:
        for thread in self._threads:
            thread.start()
        self._answered.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, call: Callable[[httpx.Client], httpx.Response]) -> None:
        counted = self.answers[name] = Counter()
        with httpx.Client(base_url=self._engine.url, timeout=PATIENCE_SECONDS, trust_env=False) as client:
            self._ask(client, call, counted)
            self._answered.wait()
            while not self._done.wait(0.02):
                self._ask(client, call, counted)

    def _ask(
        self,
        client: httpx.Client,
        call: Callable[[httpx.Client], httpx.Response],
        counted: Counter[int | str],
    ) -> None:
        try:
            counted[call(client).status_code] += 1
        except httpx.HTTPError as error:
            counted[repr(error)] += 1
