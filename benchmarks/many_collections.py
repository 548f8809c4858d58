"""collections: starts with 10, 100 and 1,000 collections of 20 vectors each, 1,024 descriptors at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.harness.bodies import insert_requests, search_requests
from benchmarks.harness.collection import create
from benchmarks.harness.context import Context
from benchmarks.harness.figures import BenchmarkFailed, Figure, Series, Target
from benchmarks.harness.server import Server
from benchmarks.harness.starting import watch_start
from benchmarks.harness.wire import JSON, MSGPACK

NAME = "collections"
VECTORS = 20
DESCRIPTORS_MAX = 1024
READY_SECONDS_MAX = 1.2
FILLERS = 4
SEARCHES_MIN = 20
"""Pools make a thread when they find none idle: after so many calls they have what they may have."""
ENDS: dict[str, Callable[[Server], None]] = {"SIGKILL": Server.kill, "a clean stop": Server.stop}
"""In this order: the first clean stop makes the checkpoints that a SIGKILL leaves out."""


def measure(context: Context) -> Iterator[Figure]:
    """Process start to /health/ready; what the process takes after one search in each collection."""
    threads_of_one = 0
    for count in context.sizes.collections:
        context.say(f"{count} collections")
        starts, facts = _starts(context, count)
        threads_of_one = threads_of_one or max(map(int, facts["threads"]))
        yield from _figures(context, count, starts, facts, threads_of_one)


def _starts(context: Context, count: int) -> tuple[Series, Series]:
    starts, facts = Series(), Series()
    with Server(context.volume(), descriptors_max=DESCRIPTORS_MAX) as server:
        with ThreadPoolExecutor(FILLERS) as pool:
            for done in [
                pool.submit(_fill, context, server, range(n, count, FILLERS)) for n in range(FILLERS)
            ]:
                done.result()
        for how, end in ENDS.items():
            for _ in range(context.runs):
                end(server)
                began = time.perf_counter()
                server.spawn()
                started = watch_start(server, began)
                _search_each(context, server, count)
                found = server.facts()
                starts.add(**{how: started.ready, f"{how}, cpu": started.cpu})
                facts.add(threads=found.threads, descriptors=found.descriptors, resident=found.resident_mib)
    return starts, facts


def _fill(context: Context, server: Server, numbers: range) -> None:
    rows = context.mixture.queries(VECTORS)
    with server.connect() as connection:
        for number in numbers:
            create(connection, context.sizes.dimension, _name(number))
            for request in insert_requests(_name(number), rows, MSGPACK):
                if connection.exchange(request).status != 200:
                    raise BenchmarkFailed(f"collection {number} could not be filled")


def _search_each(context: Context, server: Server, count: int) -> None:
    query = context.mixture.queries(1)
    with server.connect() as connection:
        for number in range(max(count, SEARCHES_MIN)):
            [request] = search_requests(_name(number % count), query, JSON, 1)
            answer = connection.exchange(request)
            if answer.status != 200:
                raise BenchmarkFailed(f"a search was answered {answer.status}: {answer.body[:500]!r}")


def _name(number: int) -> str:
    return f"collection-{number:04}"


def _figures(
    context: Context, count: int, starts: Series, facts: Series, threads_of_one: int
) -> Iterator[Figure]:
    for how in ENDS:
        target = Target(at_most=READY_SECONDS_MAX) if count == 1000 else None
        yield Figure(NAME, f"{count:,}: ready after {how}", "s", starts[how], target=target)
        yield Figure(NAME, f"{count:,}: its processor time", "s", starts[f"{how}, cpu"])
    few = Target(at_most=threads_of_one) if count > 1 else None
    yield Figure(NAME, f"{count:,}: threads", "", facts["threads"], target=few)
    room = Target(at_most=DESCRIPTORS_MAX)
    yield Figure(NAME, f"{count:,}: descriptors", "", facts["descriptors"], target=room)
    yield Figure(NAME, f"{count:,}: resident memory", "MiB", facts["resident"])
