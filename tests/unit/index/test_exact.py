"""Exact search agrees with a loop in double precision, for every metric and awkward values."""

import math

import numpy as np
import pytest

from vecstow_engine.index import exact
from vecstow_engine.index.exact import NO_LABEL
from vecstow_engine.model.metrics import DistanceMetric

METRICS = [pytest.param(metric, id=metric.value) for metric in DistanceMetric]
FLOAT32_MAX = float(np.finfo(np.float32).max)


def one_distance(metric, a, b):
    """The definition, value by value, in double precision."""
    a, b = [float(x) for x in a], [float(x) for x in b]
    match metric:
        case DistanceMetric.COSINE:
            lengths = math.hypot(*a) * math.hypot(*b)
            return 1 - (math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0)
        case DistanceMetric.DOT_PRODUCT:
            raw = 1 - math.fsum(x * y for x, y in zip(a, b, strict=True))
        case DistanceMetric.EUCLIDEAN:
            raw = math.dist(a, b)
        case DistanceMetric.MANHATTAN:
            raw = math.fsum(abs(x - y) for x, y in zip(a, b, strict=True))
    return min(max(raw, -FLOAT32_MAX), FLOAT32_MAX)


def loop(metric, queries, rows):
    return np.array([[one_distance(metric, q, r) for r in rows] for q in queries])


def data(kind):
    generator = np.random.default_rng(7)
    rows = generator.standard_normal((60, 24)).astype(np.float32)
    if kind == "duplicates":
        rows[20:50] = rows[3]
    elif kind == "zeros":
        rows[10:20] = 0
    elif kind == "far_from_the_origin":
        rows = rows * np.float32(1e-3) + 1000
    elif kind == "huge":
        rows *= np.float32(1e25)
    elif kind == "huge_and_zero":
        rows *= np.float32(1e25)
        rows[1:20] = 0
    elif kind == "greatest":
        rows = np.sign(rows) * np.finfo(np.float32).max
    elif kind == "tiny":
        rows *= np.float32(1e-30)
    elif kind == "one_huge_row":
        rows[5] *= np.float32(1e15)
    return np.concatenate((rows[:4], generator.permutation(rows[30:])[:4])), rows


KINDS = [
    "plain",
    "duplicates",
    "zeros",
    "far_from_the_origin",
    "huge",
    "huge_and_zero",
    "greatest",
    "tiny",
    "one_huge_row",
]


def search(metric, queries, rows, k, labels=None):
    labels = np.arange(len(rows), dtype=np.uint64) if labels is None else labels
    return exact.nearest(metric, exact.prepare(metric, queries), exact.prepare(metric, rows), labels, k)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_distances_agree_with_the_loop(metric, kind):
    queries, rows = data(kind)
    got = exact.distances(metric, exact.prepare(metric, queries), exact.prepare(metric, rows))
    expected = loop(metric, queries, rows)
    assert got.dtype == np.float32
    # A dot product's error grows with the terms, which may cancel each other.
    terms = np.abs(queries.astype(np.float64)) @ np.abs(rows.astype(np.float64)).T
    absolute = {"Cosine": 1e-6, "DotProduct": 1e-6 * np.minimum(terms + 1, FLOAT32_MAX)}.get(metric.value, 0)
    assert (np.abs(got - expected) <= 1e-5 * np.abs(expected) + absolute).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_nearest_are_the_nearest_of_the_loop(metric, kind):
    queries, rows = data(kind)
    found = search(metric, queries, rows, 10)
    expected = loop(metric, queries, rows)
    scale = np.abs(expected).max()
    for i in range(len(queries)):
        chosen = expected[i, found.labels[i].astype(int)]
        assert len(set(found.labels[i].tolist())) == 10
        tolerance = 1e-6 if metric.value == "Cosine" else 1e-5 * scale if metric.value == "DotProduct" else 0
        assert np.allclose(np.sort(chosen), np.sort(expected[i])[:10], rtol=1e-5, atol=tolerance)
        assert np.allclose(found.distances[i], chosen, rtol=1e-5, atol=tolerance)
        assert (np.diff(found.distances[i]) >= 0).all()


@pytest.mark.parametrize("metric", [DistanceMetric.EUCLIDEAN, DistanceMetric.MANHATTAN])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_are_exactly_zero_apart(metric, kind):
    _, rows = data(kind)
    found = search(metric, rows, rows, 1)
    assert (found.distances == 0).all()
    assert (exact.distances(metric, rows, rows).diagonal() == 0).all()


def test_euclidean_tells_near_neighbours_apart_far_from_the_origin():
    rows = np.full((200, 16), 5000, dtype=np.float32)
    rows[:, 0] += np.random.default_rng(2).permutation(200).astype(np.float32) / 64
    found = search(DistanceMetric.EUCLIDEAN, rows[:5], rows, 6)
    expected = np.sort(np.abs(rows[:5, None, 0] - rows[None, :, 0]), axis=1)[:, :6]
    assert np.array_equal(found.distances, expected)


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_smallest_labels(metric):
    rows = np.ones((500, 8), dtype=np.float32)
    labels = np.random.default_rng(3).permutation(500).astype(np.uint64)
    assert search(metric, rows[:2], rows, 5, labels).labels.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("metric", METRICS)
def test_ties_across_blocks_go_to_the_smallest_labels(metric, monkeypatch):
    monkeypatch.setattr(exact, "_SCORE_BYTES", 4 * 3 * 10)
    rows = np.ones((100, 8), dtype=np.float32)
    labels = np.arange(100, dtype=np.uint64)[::-1]
    assert search(metric, rows[:3], rows, 4, labels).labels.tolist() == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("metric", METRICS)
def test_k_above_the_count_is_padded(metric):
    found = search(metric, np.ones((2, 3)), np.eye(3), 5)
    assert sorted(found.labels[0].tolist()) == [0, 1, 2, NO_LABEL, NO_LABEL]
    assert np.isinf(found.distances[:, 3:]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_no_rows_give_padding_and_no_queries_give_nothing(metric):
    nothing = np.empty((0, 4), dtype=np.float32)
    assert search(metric, np.ones((2, 4)), nothing, 3).labels.tolist() == [[NO_LABEL] * 3] * 2
    assert search(metric, nothing, np.ones((5, 4)), 3).labels.shape == (0, 3)


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_of_rows_change_nothing(metric, monkeypatch):
    queries, rows = data("duplicates")
    whole = search(metric, queries, rows, 12)
    monkeypatch.setattr(exact, "_SCORE_BYTES", 4 * len(queries) * 7)
    monkeypatch.setattr(exact, "_CACHE_BYTES", 4 * 24 * 5)
    parts = search(metric, queries, rows, 12)
    assert np.allclose(whole.distances, parts.distances, rtol=1e-5, atol=1e-6)
    if metric in (DistanceMetric.EUCLIDEAN, DistanceMetric.MANHATTAN):
        assert np.array_equal(whole.labels, parts.labels)


@pytest.mark.parametrize("metric", METRICS)
def test_hits_of_other_rows_are_merged_in(metric):
    queries, rows = data("duplicates")
    labels = np.arange(len(rows), dtype=np.uint64)
    queries, rows = exact.prepare(metric, queries), exact.prepare(metric, rows)
    whole = exact.nearest(metric, queries, rows, labels, 12)
    some = exact.nearest(metric, queries, rows[:40], labels[:40], 12)
    both = exact.nearest(metric, queries, rows[40:], labels[40:], 12, some)
    assert np.allclose(whole.distances, both.distances, rtol=1e-5, atol=1e-6)


def test_prepare_makes_unit_rows_for_cosine_alone():
    rows = np.array([[3e30, 4e30], [3e-30, 4e-30], [0, 0], [-1, 0]], dtype=np.float32)
    unit = exact.prepare(DistanceMetric.COSINE, rows)
    assert np.allclose(unit, [[0.6, 0.8], [0.6, 0.8], [0, 0], [-1, 0]])
    assert unit.dtype == np.float32
    for metric in set(DistanceMetric) - {DistanceMetric.COSINE}:
        assert np.array_equal(exact.prepare(metric, rows), rows)


def test_cosine_is_never_negative():
    rows = np.random.default_rng(5).standard_normal((300, 77)).astype(np.float32)
    assert search(DistanceMetric.COSINE, rows, rows, 1).distances.min() >= 0
