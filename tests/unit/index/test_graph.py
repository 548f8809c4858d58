"""The graph finds what the exact index finds, and never what was deleted."""

import numpy as np
import pytest

from vecstow_engine.index import exact
from vecstow_engine.index import hnsw as hnsw_module
from vecstow_engine.index.exact import NO_LABEL
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hnsw import Hnsw
from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.points import make_labels

METRICS = [pytest.param(metric, id=metric.value) for metric in DistanceMetric]
CONFIG = IndexConfig(max_connections=8, ef_construction=60)
DIMENSION = 24


def clustered(count, seed=1):
    centres = np.random.default_rng(0).standard_normal((30, DIMENSION))
    generator = np.random.default_rng(seed)
    rows = centres[generator.integers(0, 30, count)] + 0.4 * generator.standard_normal((count, DIMENSION))
    return rows.astype(np.float32)


def built(metric, rows, config=CONFIG, capacity=0, epoch=1):
    """A graph of these rows, made by one thread: two would make another one each time."""
    graph = HnswGraph(metric, DIMENSION, config, capacity)
    labels = make_labels(np.arange(len(rows)), np.full(len(rows), epoch))
    prepared = exact.prepare(metric, rows)
    for start in range(0, len(rows), 500):
        graph.add(prepared[start : start + 500], labels[start : start + 500], 1)
    return graph, prepared, labels


class AddsSome:
    """hnswlib's index, which raises when it has added three rows."""

    COUNT = 3

    def __init__(self, index):
        self._index = index

    def add_items(self, rows, labels, **options):
        self._index.add_items(rows[: self.COUNT], labels[: self.COUNT], **options)
        raise RuntimeError("Not enough memory: addPoint failed to allocate linklist")

    def __getattr__(self, name):
        return getattr(self._index, name)


def with_equal_rows_of_their_own(metric, folder):
    """A graph in which 400 equal rows have a node each, as earlier releases made them."""
    equal = np.repeat(clustered(1), 400, axis=0)
    rows = exact.prepare(metric, np.concatenate((clustered(400, seed=5), equal)))
    labels = make_labels(np.arange(800), np.ones(800))
    hnsw = Hnsw(metric, DIMENSION, CONFIG, 800)
    hnsw.add(rows, labels, 1)
    hnsw.save(str(folder / "index.bin"))
    return HnswGraph.load(str(folder / "index.bin"), metric, DIMENSION, CONFIG, 800), rows, labels


def recall(found, expected):
    """The share of the expected labels that were found."""
    pairs = zip(found.labels.tolist(), expected.labels.tolist(), strict=True)
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs])


@pytest.mark.parametrize("metric", METRICS)
def test_recall_on_clustered_rows_is_at_least_95_in_100(metric):
    graph, rows, labels = built(metric, clustered(3000), IndexConfig())
    queries = exact.prepare(metric, clustered(100, seed=2))
    found = graph.search(queries, 10, 50, 2)
    expected = exact.nearest(metric, queries, rows, labels, 10)
    assert recall(found, expected) >= 0.95
    same = found.labels == expected.labels
    assert np.allclose(found.distances[same], expected.distances[same], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_deleted_labels_are_never_returned(metric):
    graph, rows, labels = built(metric, clustered(1500))
    graph.mark_deleted(labels[::3])
    found = graph.search(rows[:60], 20, 50, 2)
    assert not np.isin(found.labels, labels[::3]).any()
    assert (found.labels != NO_LABEL).all()
    assert (graph.live_count, graph.deleted_count) == (1000, 500)
    assert graph.deleted_share == pytest.approx(1 / 3)
    assert graph.contains(labels[:4]).tolist() == [False, True, True, False]


def test_deleting_twice_or_the_unknown_changes_nothing():
    graph, _, labels = built(DistanceMetric.EUCLIDEAN, clustered(100))
    graph.mark_deleted(labels[:5])
    graph.mark_deleted(labels[:6])
    graph.mark_deleted(make_labels([7, 5000], [9, 1]))
    assert graph.live_count == 94


def test_ef_holds_for_one_call_alone():
    graph, rows, labels = built(DistanceMetric.EUCLIDEAN, clustered(3000))
    queries = clustered(100, seed=3)
    expected = exact.nearest(DistanceMetric.EUCLIDEAN, queries, rows, labels, 10)
    narrow, wide = (recall(graph.search(queries, 10, ef, 1), expected) for ef in (10, 400))
    assert recall(graph.search(queries, 10, 10, 1), expected) == narrow < wide


@pytest.mark.parametrize("metric", METRICS)
def test_k_above_the_live_count_is_padded(metric):
    graph, rows, labels = built(metric, clustered(40))
    graph.mark_deleted(labels[:10])
    found = graph.search(rows[:3], 50, 10, 2)
    for i in range(3):
        assert sorted(found.labels[i, :30].tolist()) == labels[10:].tolist()
    assert (found.labels[:, 30:] == NO_LABEL).all()
    assert len(graph.short(found)) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_an_empty_graph_gives_padding(metric):
    graph = HnswGraph(metric, DIMENSION, CONFIG)
    assert (graph.search(clustered(2), 3, 10, 2).labels == NO_LABEL).all()
    assert graph.deleted_share == 0
    full, rows, labels = built(metric, clustered(20))
    full.mark_deleted(labels)
    assert (full.search(rows[:2], 3, 10, 2).labels == NO_LABEL).all()
    assert full.search(rows[:0], 3, 10, 2).labels.shape == (0, 3)


def test_capacity_grows_as_rows_come():
    graph, rows, labels = built(DistanceMetric.EUCLIDEAN, clustered(2000), capacity=1)
    assert np.mean(graph.search(rows, 1, 50, 2).labels.ravel() == labels) > 0.99
    assert graph.memory_bytes > 2000 * (4 * DIMENSION + 64)


def test_rows_that_could_not_be_added_are_added_by_the_next_attempt(monkeypatch):
    """hnswlib raises when memory is short, before it took a row or in between."""
    graph, rows, _ = built(DistanceMetric.EUCLIDEAN, clustered(100))
    more = np.concatenate((rows[:1], np.repeat(clustered(1, seed=9), 2, axis=0), clustered(20, seed=8)))
    added = make_labels(np.arange(200, 223), np.ones(23))
    with monkeypatch.context() as patch:
        patch.setattr(graph.hnsw, "_index", AddsSome(graph.hnsw._index))
        for _ in range(2):
            with pytest.raises(RuntimeError, match="Not enough memory"):
                graph.add(more, added, 1)
            assert not np.isin(graph.search(more, 10, 50, 1).labels, added).any()
    assert graph.live_count == 100
    assert graph.deleted_count == AddsSome.COUNT
    graph.add(more, added, 1)
    assert (graph.live_count, graph.deleted_count) == (123, 0)
    for label, row in zip(added, more, strict=True):
        assert label in graph.search(row[None], 3, 50, 1).labels


def test_a_slot_holds_one_live_label():
    graph, rows, labels = built(DistanceMetric.EUCLIDEAN, clustered(50))
    newer = make_labels([4], [2])
    graph.add(rows[:1] + 100, newer, 1)
    assert graph.contains(np.concatenate((labels[4:5], newer))).tolist() == [False, True]
    assert not np.isin(graph.search(rows[4:5], 50, 50, 1).labels, labels[4]).any()
    assert graph.search(rows[:1] + 100, 1, 50, 1).labels[0, 0] == newer[0]


def test_a_deleted_label_that_is_added_again_has_its_new_row():
    graph, rows, labels = built(DistanceMetric.EUCLIDEAN, clustered(300))
    graph.mark_deleted(labels[:1])
    graph.add(rows[:1] + 50, labels[:1], 1)
    found = graph.search(rows[:1] + 50, 1, 50, 1)
    assert (found.labels[0, 0], found.distances[0, 0]) == (labels[0], 0)
    assert (graph.live_count, graph.deleted_count) == (300, 0)


def test_distances_are_never_negative():
    graph, rows, _ = built(DistanceMetric.COSINE, clustered(500))
    assert graph.search(rows, 1, 50, 1).distances.min() == 0


@pytest.mark.parametrize("metric", METRICS)
def test_rows_come_back_as_they_were_added(metric):
    graph, rows, labels = built(metric, clustered(100))
    assert np.array_equal(graph.rows(labels[[7, 3, 99]]), rows[[7, 3, 99]])
    assert graph.rows(labels[:0]).shape == (0, DIMENSION)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_the_graph_does_not_reach_are_reported_short_and_found_exactly(metric, tmp_path):
    """Equal rows in a file of an earlier release link to one another alone."""
    graph, rows, labels = with_equal_rows_of_their_own(metric, tmp_path)
    assert graph.is_outdated
    found = graph.search(np.concatenate((rows[-1:], rows[:1])), 750, 10, 2)
    short = graph.short(found)
    assert 0 in short
    expected = exact.nearest(metric, rows[-1:], rows, labels, 750)
    completed = graph.search_among(rows[-1:], labels, 750)
    assert np.allclose(completed.distances, expected.distances, rtol=1e-5, atol=1e-6)
    reached = found.labels[0, found.labels[0] != NO_LABEL]
    assert 0 < len(reached) < 750
    with pytest.raises(RuntimeError, match="contiguous 2D array"):
        graph.hnsw._index.knn_query(rows[-1:], len(reached) + 1)
    assert len(set(reached.tolist())) == len(reached)


@pytest.mark.parametrize("metric", METRICS)
def test_a_saved_graph_comes_back_with_labels_marks_and_answers(metric, tmp_path):
    graph, rows, labels = built(metric, clustered(900), epoch=2**32 - 2)
    graph.mark_deleted(labels[100:300])
    path = str(tmp_path / "index.bin")
    graph.save(path)
    assert (tmp_path / "index.bin").stat().st_size == graph.hnsw.file_size()
    loaded = HnswGraph.load(path, metric, DIMENSION, CONFIG, 2000)
    assert np.array_equal(loaded.live_labels(), graph.live_labels())
    assert (loaded.live_count, loaded.deleted_count) == (700, 200)
    before, after = (g.search(rows[:80], 10, 50, 2) for g in (graph, loaded))
    assert np.array_equal(before.labels, after.labels)
    assert np.array_equal(before.distances, after.distances)
    loaded.mark_deleted(labels[:300])
    more = make_labels(np.arange(5000, 7000), np.ones(2000))
    loaded.add(exact.prepare(metric, clustered(2000, seed=9)), more, 2)
    assert loaded.live_count == 2600


def test_an_empty_saved_graph_takes_rows_after_loading(tmp_path):
    path = str(tmp_path / "index.bin")
    HnswGraph(DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG).save(path)
    loaded = HnswGraph.load(path, DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG, 0)
    rows = clustered(200)
    labels = make_labels(np.arange(200), np.zeros(200))
    loaded.add(rows, labels, 2)
    assert loaded.search(rows, 1, 50, 2).labels.ravel().tolist() == labels.tolist()


def test_a_loaded_graph_knows_the_settings_it_was_built_with(tmp_path):
    graph, _, _ = built(DistanceMetric.EUCLIDEAN, clustered(100))
    path = str(tmp_path / "index.bin")
    graph.save(path)
    other = IndexConfig(max_connections=16, ef_construction=60)
    loaded = HnswGraph.load(path, DistanceMetric.EUCLIDEAN, DIMENSION, other, 0)
    assert loaded.hnsw.built_with(CONFIG)
    assert not loaded.hnsw.built_with(other)
    assert not loaded.hnsw.built_with(IndexConfig(max_connections=8, ef_construction=61))


def test_ef_construction_below_m_counts_as_m():
    config = IndexConfig(max_connections=64, ef_construction=16)
    assert HnswGraph(DistanceMetric.EUCLIDEAN, DIMENSION, config).hnsw.built_with(config)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda raw: raw[:50], id="shorter_than_its_header"),
        pytest.param(lambda raw: raw[:5000], id="shorter_than_its_elements"),
        pytest.param(lambda raw: b"\1" + raw[1:], id="offset_of_level_0"),
        pytest.param(lambda raw: raw[:24] + b"\7" + raw[25:], id="element_size"),
        pytest.param(lambda raw: raw[:72] + b"\7" + raw[73:], id="m"),
    ],
)
def test_a_file_whose_sizes_contradict_is_refused(damage, tmp_path):
    graph, _, _ = built(DistanceMetric.EUCLIDEAN, clustered(100))
    path = tmp_path / "index.bin"
    graph.save(str(path))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedFile):
        HnswGraph.load(str(path), DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG, 0)


def test_a_graph_of_another_dimension_is_refused(tmp_path):
    graph, _, _ = built(DistanceMetric.EUCLIDEAN, clustered(100))
    path = str(tmp_path / "index.bin")
    graph.save(path)
    with pytest.raises(DamagedFile, match="not a graph of 25 dimensions"):
        HnswGraph.load(path, DistanceMetric.EUCLIDEAN, DIMENSION + 1, CONFIG, 0)


def test_rows_are_read_in_parts_between_which_other_threads_run(monkeypatch):
    """hnswlib holds the interpreter while it gives rows back; 1,000 reranked hits need 3,000 of them."""
    graph, rows, labels = built(DistanceMetric.MANHATTAN, clustered(300))
    monkeypatch.setattr(hnsw_module, "_READ_VALUES_MAX", 7 * DIMENSION)
    real, calls = graph.hnsw._index, []

    class Counting:
        def get_items(self, part, return_type):
            calls.append(len(part))
            return real.get_items(part, return_type=return_type)

    graph.hnsw._index = Counting()
    assert np.array_equal(graph.rows(labels), rows)
    assert max(calls) == 7
    assert sum(calls) == 300
