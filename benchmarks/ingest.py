"""ingest: how fast vectors become durable, and how fast all of them are in the graph."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from benchmarks.harness import baseline
from benchmarks.harness.bodies import BATCH_ROWS, insert_requests
from benchmarks.harness.collection import NAME as COLLECTION
from benchmarks.harness.collection import create, wait_indexed
from benchmarks.harness.context import Context
from benchmarks.harness.figures import Figure, Series, Target
from benchmarks.harness.sending import CONNECTIONS, send_all
from benchmarks.harness.server import Server
from benchmarks.harness.wire import JSON, MSGPACK

NAME = "ingest"
ACKNOWLEDGED_MIN = {MSGPACK: 15_000, JSON: 8_000}
INDEXED_RATIO_MIN = 0.8
SPELT = {MSGPACK: "MessagePack", JSON: "JSON"}


def measure(context: Context) -> Iterator[Figure]:
    """Batches of 1,000; each run has a new process on an empty volume, hnswlib's build just before."""
    rows = context.rows
    context.say("building the requests")
    requests = {media: list(insert_requests(COLLECTION, rows, media)) for media in (MSGPACK, JSON)}
    series = {media: Series() for media in requests}
    for run in range(context.runs):
        for media, prebuilt in requests.items():
            context.say(f"run {run + 1}: {SPELT[media]}")
            cpu = time.process_time()
            build_rate = len(rows) / baseline.build(rows)[1]
            cpu = time.process_time() - cpu
            series[media].add(hnswlib=build_rate, hnswlib_cpu=cpu, **_ingest(context, prebuilt))
    for media, found in series.items():
        yield from _figures(media, found)


def _ingest(context: Context, requests: Sequence[bytes]) -> dict[str, float]:
    count = context.sizes.rows
    with Server(context.volume()) as server, server.connect() as connection:
        create(connection, context.sizes.dimension)
        started, cpu = time.perf_counter(), server.cpu_seconds()
        sent = send_all(server, requests)
        wait_indexed(connection)
        seconds = time.perf_counter() - started
        return {
            "acknowledged": count / sent.seconds,
            "indexed": count / seconds,
            "client": 100 * sent.client_cpu_seconds / sent.seconds,
            "server": server.cpu_seconds() - cpu,
        }


def _figures(media: str, found: Series) -> Iterator[Figure]:
    spelt = SPELT[media]
    raw = found["hnswlib"]
    yield Figure(
        NAME, f"acknowledged, {spelt}", "vectors/s", found["acknowledged"], raw,
        target=Target(at_least=ACKNOWLEDGED_MIN[media]),
        note=f"ingest: one client process, {CONNECTIONS} connections, batches of {BATCH_ROWS}, no payloads.",
    )  # fmt: skip
    yield Figure(
        NAME, f"fully indexed, {spelt}", "vectors/s", found["indexed"], raw,
        target=Target(at_least=INDEXED_RATIO_MIN, of_ratio=True),
    )  # fmt: skip
    yield Figure(NAME, f"client's use of one processor, {spelt}", "%", found["client"])
    yield Figure(NAME, f"server's processor time, {spelt}", "s", found["server"], found["hnswlib_cpu"])
