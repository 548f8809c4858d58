"""How long a start takes, as a client sees it: to the first right answer, and until everything is ready."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass

from benchmarks.harness.figures import BenchmarkFailed
from benchmarks.harness.server import POLL_SECONDS, START_SECONDS_MAX, Server
from benchmarks.harness.wire import Answer, build_request


@dataclass(slots=True)
class Started:
    """Seconds since `began`; of a process that still lives."""

    listening: float = 0.0
    """The first connection was accepted."""
    ready: float = 0.0
    """`/health/ready` answered 200."""
    answered: float = 0.0
    """A search found the right nearest point."""


def watch_start(server: Server, began: float, search: bytes | None = None, right_id: str = "") -> Started:
    """Ask a server that was just spawned, again and again, until it gave every right answer."""
    started = Started()
    ready = build_request("GET", "/health/ready")
    while not (started.ready and (started.answered or search is None)):
        time.sleep(POLL_SECONDS)
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
    return started


def _elapsed(began: float) -> float:
    return time.perf_counter() - began


def _is_right(answer: Answer, right_id: str) -> bool:
    if answer.status != 200:
        return False
    hits = json.loads(answer.body)["data"]
    return bool(hits) and hits[0]["id"] == right_id
