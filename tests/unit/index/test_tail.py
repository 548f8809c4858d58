"""The tail is searched exactly, hands out the oldest first, and frees its memory."""

import numpy as np
import pytest

from vecstow_engine.index import exact, places
from vecstow_engine.index.exact import NO_LABEL, Hits
from vecstow_engine.index.places import Tail
from vecstow_engine.model.metrics import DistanceMetric

ROWS = np.random.default_rng(11).standard_normal((50, 4)).astype(np.float32)
LABELS = np.arange(100, 150, dtype=np.uint64)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Seven rows a chunk, so that fifty rows make eight."""
    monkeypatch.setattr(places, "_CHUNK_BYTES_MAX", 7 * 4 * 4)


def filled(metric=DistanceMetric.EUCLIDEAN):
    queue = Tail(metric, 4)
    for start in range(0, 50, 9):
        part = slice(start, start + 9)
        queue.add(exact.prepare(metric, ROWS[part]), LABELS[part])
    return queue


def search(queue, queries, k):
    return queue.snapshot().search(queries, k, Hits.none(len(queries), k))


def pop(queue, count):
    """Take the oldest rows and remove them, as the feeder of the graph does."""
    rows, labels = queue.peek(count)
    queue.remove(labels)
    return rows, labels


@pytest.mark.parametrize("metric", [pytest.param(metric, id=metric.value) for metric in DistanceMetric])
def test_search_is_the_exact_search_over_all_chunks(metric):
    found = search(filled(metric), exact.prepare(metric, ROWS[:3]), 8)
    rows = exact.prepare(metric, ROWS)
    expected = exact.nearest(metric, rows[:3], rows, LABELS, 8)
    assert np.array_equal(found.labels, expected.labels)
    assert np.allclose(found.distances, expected.distances, atol=1e-6)


def test_removed_labels_are_not_found():
    queue = filled()
    queue.remove(np.array([100, 120, 999], dtype=np.uint64))
    assert queue.count == 48
    assert not np.isin(search(queue, ROWS, 48).labels, [100, 120]).any()
    assert search(queue, ROWS[:1], 50).labels[0, 48:].tolist() == [NO_LABEL] * 2


def test_pop_gives_the_oldest_first_and_every_row_once():
    queue = filled()
    queue.remove(LABELS[3:5])
    seen = [pop(queue, 6) for _ in range(9)]
    assert np.concatenate([labels for _, labels in seen]).tolist() == [*LABELS[:3], *LABELS[5:]]
    assert np.array_equal(np.concatenate([rows for rows, _ in seen]), np.delete(ROWS, [3, 4], axis=0))
    assert queue.count == 0


def test_peek_removes_nothing_and_gives_no_more_than_there_is():
    queue = filled()
    assert queue.peek(20)[1].tolist() == LABELS[:20].tolist()
    assert queue.peek(80)[1].tolist() == LABELS.tolist()
    assert queue.count == 50
    pop(queue, 50)
    queue.add(ROWS[:2], LABELS[:2])
    assert np.array_equal(queue.peek(5)[0], ROWS[:2])


def test_memory_is_freed_chunk_by_chunk():
    queue = filled()
    full = queue.bytes
    pop(queue, 28)
    assert 0 < queue.bytes < full / 2
    pop(queue, 50)
    assert queue.bytes == 0


def test_rows_can_be_added_after_the_tail_ran_empty():
    queue = filled()
    pop(queue, 50)
    queue.add(ROWS[:5], LABELS[:5])
    assert search(queue, ROWS[:5], 1).labels.ravel().tolist() == LABELS[:5].tolist()


def test_a_snapshot_does_not_see_later_changes():
    queue = filled()
    moment = queue.snapshot()
    queue.remove(LABELS[:40])
    queue.add(ROWS[:1], np.array([999], dtype=np.uint64))
    found = moment.search(ROWS, 50, Hits.none(len(ROWS), 50)).labels
    assert sorted(found[0].tolist()) == LABELS.tolist()


def test_chunks_grow_with_the_tail_up_to_their_limit(monkeypatch):
    monkeypatch.setattr(places, "_CHUNK_BYTES_MAX", 200 * 4 * 4)
    queue, capacities = Tail(DistanceMetric.EUCLIDEAN, 4), []
    for label in range(1000):
        queue.add(ROWS[:1], np.array([label], dtype=np.uint64))
    capacities = [len(chunk.rows) for chunk in queue._chunks.values()]
    assert capacities == [32, 32, 64, 128, 200, 200, 200, 200]
    assert pop(queue, 1000)[1].tolist() == list(range(1000))
