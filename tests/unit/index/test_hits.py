"""Answers merge deterministically, and labels hold a slot and an epoch."""

import numpy as np

from vecstow_engine.index.exact import NO_LABEL, Hits, merge
from vecstow_engine.model.points import epochs_of, make_labels, slots_of


def hits(labels, distances):
    return Hits(np.array(labels, dtype=np.uint64), np.array(distances, dtype=np.float32))


def test_merge_takes_the_nearest_of_both():
    merged = merge(hits([[1, 2], [5, 6]], [[0.1, 0.4], [3, 4]]), hits([[3], [7]], [[0.2], [3.5]]), 2)
    assert merged.labels.tolist() == [[1, 3], [5, 7]]
    assert np.array_equal(merged.distances, np.array([[0.1, 0.2], [3, 3.5]], dtype=np.float32))


def test_equal_distances_are_ordered_by_label():
    merged = merge(hits([[9, 4]], [[1, 1]]), hits([[7, 1]], [[1, 1]]), 3)
    assert merged.labels.tolist() == [[1, 4, 7]]


def test_padding_sorts_behind_every_label_and_fills_up_to_k():
    merged = merge(Hits.none(1, 2), hits([[8]], [[np.finfo(np.float32).max]]), 4)
    assert merged.labels.tolist() == [[8, NO_LABEL, NO_LABEL, NO_LABEL]]
    assert np.isinf(merged.distances[0, 1:]).all()
    assert (merged.labels.dtype, merged.distances.dtype) == (np.uint64, np.float32)


def test_merge_of_nothing_is_padding():
    assert merge(Hits.none(2, 0), Hits.none(2, 0), 3).labels.tolist() == [[NO_LABEL] * 3] * 2


def test_labels_give_back_their_slots_and_epochs():
    slots, epochs = [0, 7, 2**32 - 1], [0, 2**32 - 2, 3]
    labels = make_labels(slots, epochs)
    assert labels.dtype == np.uint64
    assert slots_of(labels).tolist() == slots
    assert epochs_of(labels).tolist() == epochs
    assert labels[1] == (2**32 - 2) * 2**32 + 7
