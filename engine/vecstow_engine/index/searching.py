"""One search over graph, tail and backlog of an index."""

from __future__ import annotations

from typing import Final

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.hits import Hits, Labels, Rows, merge
from vecstow_engine.index.state import IndexState

_FETCH_BYTES: Final = 8 * 1024 * 1024
_COMPLETE_BYTES: Final = 1024 * 1024
"""Rows read back from hnswlib at a time: 6 ms with the GIL held."""


def search(state: IndexState, queries: Rows, k: int, ef: int, threads: int) -> Hits:
    """The k nearest of each prepared query, padded. No locks.

    The graph is searched with the turn held. Tail and backlog are searched after it, as they were at that
    moment, so that a row which moves meanwhile is neither lost nor seen twice.
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
    """For queries that the graph did not lead far enough: slow, but never wrong.

    The turn is given back between two parts, so that nobody waits for all of it.
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
    """`hits` and the rows of these labels, read in blocks.

    Some of them may be in the graph by now, but were not when it was searched.
    """
    block = max(1, _FETCH_BYTES // (4 * state.dimension))
    for start in range(0, len(labels), block):
        part = state.still_live(labels[start : start + block])
        if len(part):
            rows = exact.prepare(state.metric, state.fetch(part))
            # The slot of a label that was removed meanwhile may have been overwritten before it was read.
            live = np.isin(part, state.still_live(part))
            hits = exact.nearest(state.metric, queries, rows[live], part[live], k, hits)
    return hits
