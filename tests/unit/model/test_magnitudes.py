"""Finite input stays finite: at the ends of float32's range the graph is as good as exact search."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecstow_engine.index import exact
from vecstow_engine.index.exact import NO_LABEL
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.model.manifest import IndexConfig, Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.points import check_vectors, decode_rows, encode_rows, make_labels
from vecstow_engine.model.searches import SearchQuery

METRICS = [pytest.param(metric, id=metric.value) for metric in DistanceMetric]
UNBOUNDED = [m for m in METRICS if m.id != "Cosine"]
TYPES = [pytest.param(kind, id=kind.value) for kind in VectorType]
DIMENSION = 8
CONFIG = IndexConfig(max_connections=16, ef_construction=100)
FLOAT32_MAX = np.finfo(np.float32).max
SMALL = [0.0, 1e-45, 1e-40, 1.2e-38, 1e-25, 2e-15, 1e-7]
MAGNITUDES = [*SMALL, 1.0, 65504.0, 1e9, 9e15, 1e19, 1e30, 1e38, FLOAT32_MAX]
LIMITS = re.compile(r"1e\+16|1e-15|65504|all zeros")


def manifest(metric, kind=VectorType.FLOAT32):
    return Manifest(name="ends", dimension=DIMENSION, distance_metric=metric, vector_type=kind)


def accepted(shape, rows):
    """The rows that are not refused, as stored; a refusal names its limit."""
    stored = []
    for row in rows:
        try:
            stored.append(decode_rows(check_vectors(shape, row[None], "vectors[{}]"), shape.vector_type)[0])
        except InvalidInput as error:
            if not LIMITS.search(error.message):
                raise
    return np.array(stored, np.float32).reshape(-1, DIMENSION)


def scaled_rows(data, count):
    """Rows of one magnitude each, or with another one in every place."""
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    per_row = data.draw(st.booleans())
    chosen = data.draw(st.lists(st.sampled_from(MAGNITUDES), min_size=1, max_size=4))
    factors = generator.choice(chosen, (count, 1 if per_row else DIMENSION))
    return (generator.uniform(-1, 1, (count, DIMENSION)) * factors).astype(np.float32)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_graph_and_exact_search_agree_and_are_finite(metric, kind, data):
    shape = manifest(metric, kind)
    stored = accepted(shape, scaled_rows(data, 60))
    assert np.isfinite(stored).all()
    if len(stored) == 0:
        return
    queries = np.concatenate((stored[:5], accepted(manifest(metric), scaled_rows(data, 5))))
    labels = make_labels(np.arange(len(stored)), 1)
    index = VectorIndex(metric, DIMENSION, CONFIG, lambda _: None, threads=1, flat_rows_max=0)
    index.add(stored, labels)
    while index.advance():
        pass
    found = index.search(queries, 5, 100)
    prepared, asked = exact.prepare(metric, stored), exact.prepare(metric, queries)
    expected = exact.nearest(metric, asked, prepared, labels, 5)
    real = expected.labels != NO_LABEL
    assert np.isfinite(found.distances[real]).all()
    sizes = np.linalg.norm(asked.astype(np.float64), axis=1, keepdims=True)
    sizes = sizes + np.linalg.norm(prepared.astype(np.float64), axis=1).max()
    scale = sizes**2 + 1 if metric is DistanceMetric.DOT_PRODUCT else sizes
    error = np.abs(found.distances[real].astype(np.float64) - expected.distances[real])
    assert (error <= 2e-6 * np.broadcast_to(scale, real.shape)[real]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_query_beyond_the_limit_is_refused_as_a_vector_is(metric):
    shape = manifest(metric)
    for value in (3e38, 1e-40):
        query = np.full(DIMENSION, value, np.float32)
        if metric is DistanceMetric.COSINE:
            assert SearchQuery.build(shape, query).vector is query
        else:
            with pytest.raises(InvalidInput, match=r"vector.* (1e\+16|1e-15)"):
                SearchQuery.build(shape, query)


@pytest.mark.parametrize("metric", UNBOUNDED)
def test_rows_beyond_the_limits_that_an_earlier_release_took_are_searched_exactly(metric):
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((400, DIMENSION)).astype(np.float32)
    rows[::10] *= generator.choice([1e38, 1e25, 1e-30, 1e-42], (40, 1)).astype(np.float32)
    labels = make_labels(np.arange(400), 1)
    graph = HnswGraph(metric, DIMENSION, CONFIG)
    graph.add(rows, labels, 1)
    while graph.check(64, 1):
        pass
    queries = rows[1:9]
    expected = exact.nearest(metric, queries, rows, labels, 400)
    found = graph.search(queries, 400, 400, 1)
    assert np.isfinite(found.distances).all()
    assert np.allclose(found.distances, expected.distances, rtol=1e-4, atol=1e-4)
    assert (graph.live_count, graph.deleted_count) == (400, 0)
    assert np.array_equal(graph.rows(labels), rows)
    graph.mark_deleted(labels[::10])
    assert (graph.live_count, graph.deleted_count, graph.apart.count) == (360, 0, 0)


def test_a_graph_of_an_earlier_release_with_such_rows_gives_them_up(tmp_path):
    from vecstow_engine.index.hnsw import Hnsw

    rows = np.random.default_rng(3).standard_normal((50, DIMENSION)).astype(np.float32)
    rows[3] *= np.float32(1e30)
    labels = make_labels(np.arange(50), 1)
    hnsw = Hnsw(DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG, 50)
    hnsw.add(rows, labels, 1)
    hnsw.save(str(tmp_path / "index.bin"))
    graph = HnswGraph.load(str(tmp_path / "index.bin"), DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG, 60)
    assert graph.is_outdated
    assert graph.contains(labels).sum() == 49
    graph.add(rows[3:4], labels[3:4], 1)
    assert graph.search(rows[3:4], 1, 10, 1).labels[0, 0] == labels[3]
    assert graph.live_count == 50


@pytest.mark.parametrize("peak", [FLOAT32_MAX, 1e38, 1.0, 1e-37, 3e-43, 1e-45], ids=str)
def test_int8_keeps_a_row_within_half_a_level_at_every_magnitude(peak):
    row = (np.linspace(-1, 1, 17) * np.float64(peak)).astype(np.float32)[None]
    decoded = decode_rows(encode_rows(row, VectorType.INT8), VectorType.INT8)
    assert np.isfinite(decoded).all()
    step = max(float(np.abs(row).max()) / 127, 2.0**-149)
    assert np.abs(decoded.astype(np.float64) - row).max() <= 1.01 * step


def test_an_int8_row_of_an_earlier_release_decodes_to_finite_values():
    scale = np.array([FLOAT32_MAX / np.float32(127)], np.float32)
    row = np.concatenate((scale.view(np.uint8), np.array([127, 129], np.uint8)))
    assert decode_rows(row[None], VectorType.INT8).tolist() == [[FLOAT32_MAX, -FLOAT32_MAX]]


@pytest.mark.parametrize("metric", METRICS)
def test_ef_search_widens_the_search_under_every_metric(metric):
    generator = np.random.default_rng(9)
    rows = exact.prepare(metric, generator.standard_normal((4000, 48)).astype(np.float32))
    queries = exact.prepare(metric, generator.standard_normal((60, 48)).astype(np.float32))
    labels = make_labels(np.arange(4000), 1)
    graph = HnswGraph(metric, 48, IndexConfig(max_connections=8, ef_construction=60))
    graph.add(rows, labels, 2)
    expected = exact.nearest(metric, queries, rows, labels, 5).labels

    def recall(ef):
        found = graph.search(queries, 5, ef, 2).labels
        return np.mean([np.isin(*line) for line in zip(found, expected, strict=True)])

    narrow, middle, wide = recall(5), recall(60), recall(600)
    assert narrow < middle < wide
    assert wide > 0.9


def test_rows_of_an_unknown_vector_type_are_not_coded():
    """A new member of the enum needs its own codec."""
    with pytest.raises(AssertionError):
        decode_rows(np.zeros((1, 8), np.uint8), "Float64")
    with pytest.raises(AssertionError):
        encode_rows(np.zeros((1, 4), np.float32), "Float64")
