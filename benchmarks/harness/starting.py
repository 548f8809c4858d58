"""How long a start takes, as a client sees it: to the first right answer, and until everything is ready."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.harness.figures import BenchmarkFailed
from benchmarks.harness.server import POLL_SECONDS, START_SECONDS_MAX, Server
from benchmarks.harness.wire import Answer, build_request

READY_POLL_SECONDS: Final = 0.01
"""Asking whether a thousand collections are ready costs the server something."""


@dataclass(slots=True)
class Started:
    """Seconds since `began`; of a process that still lives."""

    listening: float = 0.0
    """The first connection was accepted."""
    ready: float = 0.0
    """`/health/ready` answered 200."""
    answered: float = 0.0
    """A search found the right nearest point."""
    cpu: float = 0.0
    """Seconds of processor time that the new process had taken by then."""


def watch_start(server: Server, began: float, search: bytes | None = None, right_id: str = "") -> Started:
    """Ask a server that was just spawned, again and again, until it gave every right answer."""
    started = Started()
    ready = build_request("GET", "/health/ready")
    while not (started.ready and (started.answered or search is None)):
        time.sleep(READY_POLL_SECONDS if search is None else POLL_SECONDS)
        server.check_alive()
        if _elapsed(began) > START_SECONDS_MAX:
            raise BenchmarkFailed(f"the server was not ready after {START_SECONDS_MAX:g} s")
        # A search that is refused unread ends its connection, so each round has a new one.
        with contextlib.suppress(ConnectionError), server.connect() as connection:
            started.listening = started.listening or _elapsed(began)
            if not started.ready and connection.exchange(ready).status == 200:
                started.ready = _elapsed(began)
            if search is not None and not started.answered:
                answer = connection.exchange(search)
                started.answered = _elapsed(began) if _is_right(answer, right_id) else 0.0
    started.cpu = server.cpu_seconds()
    return started


def _elapsed(began: float) -> float:
    return time.perf_counter() - began


def _is_right(answer: Answer, right_id: str) -> bool:
    if answer.status != 200:
        return False
    hits = json.loads(answer.body)["data"]
    return bool(hits) and hits[0]["id"] == right_id
