"""One search over graph, tail and backlog of an index."""

from __future__ import annotations

from typing import Final

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.hits import Hits, Labels, Rows, merge
from vecstow_engine.index.state import IndexState

_FETCH_BYTES: Final = 8 * 1024 * 1024
_COMPLETE_BYTES: Final = 1024 * 1024
"""The bytes of rows that are read from hnswlib at a time: 6 ms with the GIL held."""


def search(state: IndexState, queries: Rows, k: int, ef: int, threads: int) -> Hits:
    """Return the k nearest of each prepared query, padded. The caller holds no locks.

    The graph is searched with the turn held. Tail and backlog are searched afterwards, in their state at the
    search of the graph. A row that moves meanwhile is therefore neither missed nor found twice.
    """
    with state.turn:
        with state.lock:
            tail = state.tail.snapshot()
            backlog = state.backlog.snapshot()
            state.apply_removals()
        graph = state.graph
        hits = Hits.none(len(queries), k) if graph is None else graph.search(queries, k, ef, threads)
        short = graph.short(hits) if graph is not None else ()
        labels = graph.live_labels() if graph is not None and len(short) else None
    if labels is not None:
        completed = _search_graph_exactly(state, queries[short], k, labels)
        hits.labels[short], hits.distances[short] = completed.labels, completed.distances
    hits = tail.search(queries, k, hits)
    for labels in backlog:
        hits = _search_on_disk(state, queries, k, labels, hits)
    return hits


def _search_graph_exactly(state: IndexState, queries: Rows, k: int, labels: Labels) -> Hits:
    """Search the graph's rows exactly, for queries that the graph did not lead far enough: slow, but never
    wrong.

    The turn is released between two parts, so that other threads wait for one part only.
    """
    hits = Hits.none(len(queries), k)
    size = max(1, _COMPLETE_BYTES // (4 * state.dimension))
    for start in range(0, len(labels), size):
        with state.turn:
            with state.lock:
                state.apply_removals()
            assert state.graph is not None
            found = state.graph.search_among(queries, labels[start : start + size], k)
        hits = merge(hits, found, k)
    return hits


def _search_on_disk(state: IndexState, queries: Rows, k: int, labels: Labels, hits: Hits) -> Hits:
    """Merge `hits` with the rows of these labels, read from disk in blocks.

    Some of the rows may be in the graph by now, but were not when it was searched.
    """
    block = max(1, _FETCH_BYTES // (4 * state.dimension))
    for start in range(0, len(labels), block):
        part = state.still_live(labels[start : start + block])
        if len(part):
            rows = exact.prepare(state.metric, state.fetch(part))
            # A write may have reused the slot of a label that was removed before its row was read.
            live = np.isin(part, state.still_live(part))
            hits = exact.nearest(state.metric, queries, rows[live], part[live], k, hits)
    return hits
