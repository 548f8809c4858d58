"""filters: filtered searches and counts, and what payload indexes cost writes and starts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, Final

import hnswlib
import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import baseline
from benchmarks.harness.bodies import BATCH_ROWS, search_requests
from benchmarks.harness.collection import NAME as COLLECTION
from benchmarks.harness.collection import wait_indexed
from benchmarks.harness.context import Context, K
from benchmarks.harness.dataset import Rows
from benchmarks.harness.figures import BenchmarkFailed, Figure, Series, Target
from benchmarks.harness.load import drive
from benchmarks.harness.sending import send_all
from benchmarks.harness.server import Server
from benchmarks.harness.wire import JSON, MSGPACK, build_request, write_requests

NAME = "filters"
SELECTIVITIES: Final = (0.001, 0.01, 0.1, 0.5, 1.0)
INDEXES: Final = (
    {"field": "rank", "type": "integer"},
    {"field": "tenant", "type": "keyword"},
    {"field": "price", "type": "float"},
    {"field": "open", "type": "boolean"},
    {"field": "tags", "type": "keyword"},
)
RATIO_MAX: Final = 1.3
RATE_RATIO_MIN: Final = 0.5
COUNT_MS_MAX: Final = 5.0
INGEST_RATIO_MIN: Final = 0.7
OPENING_RATIO_MAX: Final = 1.3
SCROLL_RATE_MIN: Final = 50_000
DELETE_RATE_MIN: Final = 20_000
PAGE_POINTS: Final = 10_000
QUERIES: Final = 100
CONNECTIONS: Final = 16
SPARE: Final = (1.2, 16)
"""Candidates of a search of the graph by hand, beyond k / selectivity: a factor, and a number."""


def measure(context: Context) -> Iterator[Figure]:
    """One filled server with five indexed fields serves all runs; another one without indexes is compared."""
    rows = context.rows
    plain = _Filled(context, rows, [])
    indexed = _Filled(context, rows, list(INDEXES))
    try:
        yield Figure(
            NAME, "ingest with five indexed fields", "vectors/s", [indexed.rate], [plain.rate],
            beside_name="without", target=Target(at_least=INGEST_RATIO_MIN, of_ratio=True),
            note="filters: both collections have the same payloads; the last acknowledgement ends the clock.",
        )  # fmt: skip
        yield from _searches(context, indexed, rows)
        yield from _counts(context, indexed, len(rows))
        yield _scroll(indexed.server, len(rows))
        yield from _openings(context, plain, indexed)
        yield _delete(indexed.server, len(rows))
    finally:
        plain.server.kill()
        indexed.server.kill()


class _Filled:
    """A server whose collection has the rows, with payloads of five fields."""

    def __init__(self, context: Context, rows: Rows, indexes: list[dict[str, str]]) -> None:
        self.server = Server(context.volume())
        self.server.start()
        shape = {"dimension": rows.shape[1], "distance_metric": "Cosine", "payload_indexes": indexes}
        with self.server.connect() as connection:
            connection.call("POST", "/collections", {"name": COLLECTION, **shape})
        context.say(f"filling {len(rows):,} rows, {len(indexes)} fields indexed")
        self.rate = len(rows) / send_all(self.server, list(_inserts(rows))).seconds
        with self.server.connect() as connection:
            wait_indexed(connection)


def payloads(count: int) -> list[dict[str, Any]]:
    """Payloads of five fields; `rank` is a permutation, so `rank < s * count` matches the share s."""
    ranks = np.random.default_rng(7).permutation(count).tolist()
    return [
        {"rank": rank, "tenant": f"t{rank % 16}", "price": rank / 7, "open": rank % 2 == 0,
         "tags": [f"a{rank % 5}", f"b{rank % 9}"]}
        for rank in ranks
    ]  # fmt: skip


def _inserts(rows: Rows) -> Iterator[bytes]:
    found = payloads(len(rows))
    for start in range(0, len(rows), BATCH_ROWS):
        part = rows[start : start + BATCH_ROWS]
        body = {
            "ids": [str(start + line) for line in range(len(part))],
            "vectors": part.astype("<f4").tobytes(),
            "metadata": found[start : start + BATCH_ROWS],
        }
        path = f"/collections/{COLLECTION}/vectors/batch"
        yield build_request("POST", path, msgspec.msgpack.encode(body), MSGPACK)


def _searches(context: Context, filled: _Filled, rows: Rows) -> Iterator[Figure]:
    queries = context.queries[:QUERIES]
    ranks = np.array([payload["rank"] for payload in payloads(len(rows))])
    context.say("building hnswlib's own graph")
    graph, _ = baseline.build(rows)
    by_hand = _ByHand(rows, ranks, graph)
    series: dict[float, Series] = {share: Series() for share in SELECTIVITIES}
    for run in range(context.runs):
        unfiltered = _latency_ms(filled.server, queries, None, len(rows))
        rate = _rate(context, filled.server, None, len(rows))
        # What a request costs apart from its search: the same for each plan.
        beside_search = unfiltered - by_hand.unfiltered(queries)
        for share in SELECTIVITIES:
            best, name = by_hand.best(queries, share)
            context.say(f"run {run + 1}, {share:.1%}: by hand, {name} is the fastest plan, {best:.3f} ms")
            series[share].add(
                p50=_latency_ms(filled.server, queries, share, len(rows)), best=beside_search + best,
                rate=_rate(context, filled.server, share, len(rows)), unfiltered=rate,
            )  # fmt: skip
    for share, found in series.items():
        yield Figure(
            NAME, f"p50 on one connection, {share:.1%} match", "ms", found["p50"], found["best"],
            beside_name="by hand", target=Target(at_most=RATIO_MAX, of_ratio=True),
            note="filters: by hand is the fastest of exact numpy, a larger search of the graph, and the "
            "filter of hnswlib, plus the time of an unfiltered request beyond its search.",
        )  # fmt: skip
        target = Target(at_least=RATE_RATIO_MIN, of_ratio=True) if share == 0.5 else None
        yield Figure(
            NAME, f"JSON, 16 connections, {share:.1%} match", "req/s", found["rate"], found["unfiltered"],
            beside_name="unfiltered", target=target,
        )  # fmt: skip


def _filter(share: float, count: int) -> dict[str, Any]:
    return {"rank": {"$lt": round(share * count)}}


def _latency_ms(server: Server, queries: Rows, share: float | None, count: int) -> float:
    """Return the median milliseconds of a search on one connection."""
    requests = list(_requests(queries, share, count))
    spent = []
    with server.connect() as connection:
        for request in requests:
            began = time.perf_counter()
            if connection.exchange(request).status != 200:
                raise BenchmarkFailed("a search failed")
            spent.append(1000 * (time.perf_counter() - began))
    return median(spent)


def _rate(context: Context, server: Server, share: float | None, count: int) -> float:
    path = context.folder / f"filters-{share}.requests"
    write_requests(path, _requests(context.queries, share, count))
    return drive(server.port, path, CONNECTIONS, context.sizes.search_seconds).rate


def _requests(queries: Rows, share: float | None, count: int) -> Iterator[bytes]:
    if share is None:
        yield from search_requests(COLLECTION, queries, JSON, K)
        return
    for query in queries:
        body = {"vector": query.tolist(), "limit": K, "filter": _filter(share, count)}
        yield build_request("POST", f"/collections/{COLLECTION}/search", json.dumps(body).encode())


class _ByHand:
    """The plans that a person would write with numpy and hnswlib for one filter on `rank`."""

    def __init__(self, rows: Rows, ranks: NDArray[np.int64], graph: hnswlib.Index) -> None:
        self._rows, self._ranks, self._graph = rows, ranks, graph

    def unfiltered(self, queries: Rows) -> float:
        """Return the median milliseconds of a search of the graph without a filter."""
        self._graph.set_ef(baseline.EF_SEARCH)
        return _median_ms(lambda query: self._graph.knn_query(query, K, num_threads=1), queries)

    def best(self, queries: Rows, share: float) -> tuple[float, str]:
        """Return the median milliseconds of the fastest plan, and its name."""
        bound = round(share * len(self._rows))
        plans: dict[str, Callable[[Rows], object]] = {
            "exact": lambda query: self._exact(query, bound),
            "graph": lambda query: self._graph_searched(query, bound, share),
            "hnswlib's filter": lambda query: self._filtered(query, bound),
        }
        found = {name: _median_ms(plan, queries) for name, plan in plans.items()}
        name = min(found, key=lambda each: found[each])
        return found[name], name

    def _exact(self, query: Rows, bound: int) -> object:
        chosen = np.flatnonzero(self._ranks < bound)
        distances = 1 - self._rows[chosen] @ query
        first = np.argpartition(distances, min(K, len(chosen) - 1))[:K]
        return chosen[first[np.argsort(distances[first])]]

    def _graph_searched(self, query: Rows, bound: int, share: float) -> object:
        count = min(len(self._rows), int(SPARE[0] * K / share) + SPARE[1])
        self._graph.set_ef(max(baseline.EF_SEARCH, count))
        labels, distances = self._graph.knn_query(query, count, num_threads=1)
        return labels[0][self._ranks[labels[0]] < bound][:K], distances

    def _filtered(self, query: Rows, bound: int) -> object:
        self._graph.set_ef(baseline.EF_SEARCH)
        matches = self._ranks < bound
        return self._graph.knn_query(query, K, num_threads=1, filter=lambda label: matches[label])


def _median_ms(plan: Callable[[Rows], object], queries: Rows) -> float:
    spent = []
    for query in queries:
        began = time.perf_counter()
        plan(query)
        spent.append(1000 * (time.perf_counter() - began))
    return median(spent)


def _counts(context: Context, filled: _Filled, count: int) -> Iterator[Figure]:
    """A filter is new in each request, so that no count is remembered."""
    spent = []
    with filled.server.connect() as connection:
        for run in range(20 * context.runs):
            body = {"filter": {"rank": {"$lt": count // 2 + run}, "tenant": {"$in": ["t1", "t2"]}}}
            began = time.perf_counter()
            connection.call("POST", f"/collections/{COLLECTION}/points/count", body)
            spent.append(1000 * (time.perf_counter() - began))
    yield Figure(
        NAME, "count with two conditions", "ms", [median(spent)], target=Target(at_most=COUNT_MS_MAX)
    )


def _scroll(server: Server, count: int) -> Figure:
    """All points with payload, in the order of their ids."""
    read, cursor = 0, None
    began = time.perf_counter()
    with server.connect() as connection:
        while read == 0 or cursor is not None:
            body = {"limit": PAGE_POINTS, "cursor": cursor}
            page = connection.call("POST", f"/collections/{COLLECTION}/points/scroll", body)
            read, cursor = read + len(page["points"]), page["next_cursor"]
    rate = read / (time.perf_counter() - began)
    if read != count:
        raise BenchmarkFailed(f"the scroll has {read} of {count} points")
    return Figure(NAME, "scroll", "points/s", [rate], target=Target(at_least=SCROLL_RATE_MIN))


def _delete(server: Server, count: int) -> Figure:
    """A tenth of the points, by a filter."""
    body = {"filter": {"rank": {"$lt": count // 10}}}
    began = time.perf_counter()
    with server.connect() as connection:
        deleted = connection.call("POST", f"/collections/{COLLECTION}/points/delete", body)["deleted"]
    seconds = time.perf_counter() - began
    if deleted != count // 10:
        raise BenchmarkFailed(f"{deleted} points were deleted")
    target = Target(at_least=DELETE_RATE_MIN)
    return Figure(NAME, "delete of a tenth by a filter", "points/s", [deleted / seconds], target=target)


def _openings(context: Context, plain: _Filled, indexed: _Filled) -> Iterator[Figure]:
    found = Series()
    for _ in range(context.runs):
        found.add(plain=_opening(plain.server), indexed=_opening(indexed.server))
    yield Figure(
        NAME, "start after an orderly end", "s", found["indexed"], found["plain"], beside_name="without",
        target=Target(at_most=OPENING_RATIO_MAX, of_ratio=True),
    )  # fmt: skip


def _opening(server: Server) -> float:
    server.stop()
    began = time.perf_counter()
    server.start()
    return time.perf_counter() - began
