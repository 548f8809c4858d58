"""One collection over REST: made, filled, awaited, asked."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Final

from benchmarks.harness.bodies import insert_requests, search_requests
from benchmarks.harness.dataset import Rows
from benchmarks.harness.figures import BenchmarkFailed
from benchmarks.harness.sending import Sent, send_all
from benchmarks.harness.server import Server
from benchmarks.harness.wire import JSON, MSGPACK, Connection

NAME: Final = "bench"
INDEX_POLL_SECONDS: Final = 0.02
LOG_POLL_SECONDS: Final = 0.05
WAIT_SECONDS_MAX: Final = 1800.0
SNAPSHOT_EVENT: Final = "index snapshot written"


def create(
    connection: Connection,
    dimension: int,
    name: str = NAME,
    metric: str = "Cosine",
    vector_type: str = "Float32",
) -> None:
    """Make an empty collection."""
    shape = {"dimension": dimension, "distance_metric": metric, "vector_type": vector_type}
    connection.call("POST", "/collections", {"name": name, **shape})


def fill(server: Server, rows: Rows, name: str = NAME, first_id: int = 0) -> Sent:
    """Insert rows by MessagePack, ids being their numbers."""
    return send_all(server, insert_requests(name, rows, MSGPACK, first_id))


def wait_indexed(connection: Connection, name: str = NAME) -> None:
    """Return when the graph holds every vector."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < deadline:
        found = connection.call("GET", f"/collections/{name}")
        if found["indexed"] == found["vector_count"] and found["progress"] is None:
            return
        time.sleep(INDEX_POLL_SECONDS)
    raise BenchmarkFailed(f"collection {name} was not indexed in {WAIT_SECONDS_MAX:g} s")


def wait_snapshot(server: Server, count: int = 1) -> None:
    """Return when the engine's log says that index.bin was written so many times."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while len(server.log_events(SNAPSHOT_EVENT)) < count:
        server.check_alive()
        if time.monotonic() > deadline:
            raise BenchmarkFailed("no snapshot of the index was written")
        time.sleep(LOG_POLL_SECONDS)


def ask(connection: Connection, queries: Rows, k: int, name: str = NAME) -> list[list[int]]:
    """The ids, as numbers, found for each query at the default ef."""
    return [_ids(connection, request) for request in search_requests(name, queries, JSON, k)]


def _ids(connection: Connection, request: bytes) -> list[int]:
    answer = connection.exchange(request)
    if answer.status != 200:
        raise BenchmarkFailed(f"a search was answered {answer.status}: {answer.body[:500]!r}")
    hits: Sequence[dict[str, str]] = json.loads(answer.body)["data"]
    return [int(hit["id"]) for hit in hits]
