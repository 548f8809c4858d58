"""Searches during adds, removes, slices and rebuilds lose nothing and see nothing twice."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.unit.watched_turns import WatchedTurns
from vecstow_engine.index.exact import NO_LABEL
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.points import make_labels, slots_of

DIMENSION = 8
COUNT = 1600
AT_ONCE = 16
ROWS = np.random.default_rng(31).standard_normal((COUNT, DIMENSION)).astype(np.float32)
LABELS = make_labels(np.arange(COUNT), np.ones(COUNT))
CONFIG = IndexConfig(max_connections=8, ef_construction=40)


class Workload:
    """Adds rows in order and removes the oldest, saying before and after each call how far it is."""

    def __init__(self, vectors, to_backlog):
        self.vectors = vectors
        self.to_backlog = to_backlog
        self.add_began = self.add_ended = self.remove_began = self.remove_ended = 0
        self.done = threading.Event()
        self.searched = threading.Semaphore(0)

    def write(self):
        try:
            for start in range(0, COUNT, AT_ONCE):
                self._add(start, start + AT_ONCE)
                self._remove(start // 2, start // 2 + AT_ONCE // 2)
                if start == COUNT // 2:
                    self.vectors.start_rebuild(IndexConfig(max_connections=12, ef_construction=40))
                # Paced, so that searches see every stage.
                assert self.searched.acquire(timeout=30)
        finally:
            self.done.set()

    def _add(self, start, end):
        self.add_began = end
        if self.to_backlog(start):
            self.vectors.add_backlog(LABELS[start:end])
        else:
            self.vectors.add(ROWS[start:end], LABELS[start:end])
        self.add_ended = end

    def _remove(self, start, end):
        self.remove_began = end
        self.vectors.remove(LABELS[start:end])
        self.remove_ended = end

    def advance(self):
        while not self.done.is_set() or self.vectors.pending or self.vectors.rebuilding:
            self.vectors.advance(24)

    def search(self):
        searches = 0
        while not self.done.is_set() or self.vectors.pending or self.vectors.rebuilding:
            removed_before, added_before = self.remove_ended, self.add_ended
            found = self.vectors.search(ROWS[:1], COUNT, 10).labels[0]
            slots = slots_of(found[found != NO_LABEL]).tolist()
            assert len(slots) == len(set(slots)), "a label was returned twice"
            assert not slots or min(slots) >= removed_before, "a removed label was returned"
            assert set(range(self.remove_began, added_before)) <= set(slots), "a label was lost"
            assert not slots or max(slots) < self.add_began
            searches += 1
            self.searched.release()
        return searches


@pytest.mark.parametrize(
    "to_backlog",
    [
        pytest.param(lambda start: False, id="from_the_tail"),
        pytest.param(lambda start: True, id="from_the_backlog"),
        pytest.param(lambda start: start % 64 == 0, id="from_both"),
    ],
)
def test_concurrent_searches_see_every_live_label_once(to_backlog):
    vectors = VectorIndex(
        DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG, lambda labels: ROWS[slots_of(labels)], flat_rows_max=100
    )
    work = Workload(vectors, to_backlog)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(job) for job in (work.search, work.search, work.advance, work.write)]
        searches = [job.result(timeout=60) for job in jobs][:2]
    assert sum(searches) >= COUNT / AT_ONCE
    assert vectors.indexed == vectors.count == COUNT // 2
    with vectors.fork_point() as graph:
        assert graph.live_labels().tolist() == LABELS[COUNT // 2 :].tolist()


def test_nothing_moves_while_the_fork_point_is_held():
    vectors = VectorIndex(
        DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG, lambda labels: ROWS[slots_of(labels)], flat_rows_max=0
    )
    vectors._state.turn = turns = WatchedTurns()
    vectors.add(ROWS[:300], LABELS[:300])
    vectors.advance(100)
    with ThreadPoolExecutor(1) as pool, vectors.fork_point() as graph:
        rows_before = graph.row_count
        slice_job = pool.submit(vectors.advance, 100)
        assert turns.queued.acquire(timeout=30)
        # Neither waits for the graph, so both end although it is held.
        vectors.add(ROWS[300:310], LABELS[300:310])
        vectors.remove(LABELS[:5])
        assert not slice_job.done()
        assert graph.row_count == rows_before
    assert vectors.count == 305
