"""Equal rows share a node of the graph, and isolated nodes are found all the same."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecstow_engine.index import exact, nodes
from vecstow_engine.index.exact import NO_LABEL
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.nodes import RowTable
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.points import make_labels

METRICS = [pytest.param(metric, id=metric.value) for metric in DistanceMetric]
DIMENSION = 16
CONFIG = IndexConfig(max_connections=8, ef_construction=60)
GENERATOR = np.random.default_rng(4)
DISTINCT = GENERATOR.standard_normal((600, DIMENSION)).astype(np.float32)


def labels_of(count, epoch=1):
    return make_labels(np.arange(count), np.full(count, epoch))


@pytest.fixture(autouse=True)
def repeatable_checks(monkeypatch):
    """The order of the checks decides whether a node in doubt is found: 7 of 150 orders miss two."""
    monkeypatch.setattr(nodes, "random_generator", lambda: np.random.default_rng(1))


def filled(metric, rows, labels=None, slice_rows=64):
    graph = HnswGraph(metric, DIMENSION, CONFIG)
    labels = labels_of(len(rows)) if labels is None else labels
    prepared = exact.prepare(metric, rows)
    for start in range(0, len(rows), slice_rows):
        graph.add(prepared[start : start + slice_rows], labels[start : start + slice_rows], 1)
    check_fully(graph)
    return graph, prepared, labels


def check_fully(graph):
    while graph.check(64, 1):
        pass


def mixed(equal=400):
    """600 distinct rows and many equal ones among them."""
    rows = np.concatenate((DISTINCT, np.repeat(DISTINCT[:1] + 1, equal, axis=0)))
    return rows[np.random.default_rng(5).permutation(len(rows))]


def test_nodes_without_room_apart_are_counted(monkeypatch):
    graph, _, labels = filled(DistanceMetric.COSINE, DISTINCT)
    monkeypatch.setattr(graph, "_lost", lambda nodes, threads: (nodes, 0.0))
    graph.checking.note(labels)
    graph._apart_max = 100
    check_fully(graph)
    assert graph.apart.count + graph.unreached_count == len(labels)
    assert graph.unreached_count == len(labels) - 100


@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_take_one_node(metric):
    graph, _, labels = filled(metric, mixed())
    assert (graph.row_count, graph.live_count, graph.deleted_count) == (601, 1000, 0)
    assert graph.live_labels().tolist() == labels.tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_answers_are_those_of_exact_search_by_label_among_equal_rows(metric):
    rows = mixed()
    graph, prepared, labels = filled(metric, rows)
    queries = exact.prepare(metric, np.concatenate((DISTINCT[:40], DISTINCT[:1] + 1)))
    for k in (1, 10):
        found = graph.search(queries, k, 400, 1)
        expected = exact.nearest(metric, queries, prepared, labels, k)
        assert np.mean(found.labels == expected.labels) > 0.99
        assert np.allclose(found.distances, expected.distances, rtol=1e-4, atol=1e-5)
    assert np.array_equal(graph.rows(labels), prepared)


def test_a_node_lives_until_its_last_label_is_removed():
    graph, prepared, labels = filled(DistanceMetric.EUCLIDEAN, np.repeat(DISTINCT[:2], 50, axis=0))
    for left in (49, 30, 1):
        graph.mark_deleted(labels[: 50 - left])
        found = graph.search(prepared[:1], 100, 50, 1).labels[0]
        assert found[: left + 1].tolist() == labels[50 - left : 51].tolist()
        assert (graph.live_count, graph.deleted_count) == (50 + left, 0)
    graph.mark_deleted(labels[:50])
    assert (graph.live_count, graph.deleted_count) == (50, 1)
    assert graph.deleted_share == pytest.approx(0.5)
    assert graph.search(prepared[:1], 1, 50, 1).labels[0].tolist() == labels[50:51].tolist()


def test_a_row_that_comes_back_finds_its_dead_node():
    graph, prepared, _ = filled(DistanceMetric.EUCLIDEAN, DISTINCT[:100])
    for epoch in range(2, 6):
        graph.mark_deleted(graph.live_labels()[:10])
        again = make_labels(np.arange(10), np.full(10, epoch))
        graph.add(prepared[:10], again, 1)
        check_fully(graph)
        assert graph.search(prepared[:10], 1, 50, 1).labels.ravel().tolist() == again.tolist()
    assert (graph.row_count, graph.live_count, graph.deleted_count) == (100, 100, 0)


def test_the_slot_of_a_node_whose_own_label_is_gone_takes_another_row():
    graph, prepared, labels = filled(DistanceMetric.EUCLIDEAN, np.repeat(DISTINCT[:1], 3, axis=0))
    newer = make_labels([0], [2])
    graph.add(DISTINCT[5:6], newer, 1)
    assert sorted(graph.search(prepared[:1], 5, 50, 1).labels[0, :3].tolist()) == sorted(
        [*labels[1:].tolist(), *newer.tolist()]
    )
    graph.mark_deleted(newer)
    assert graph.search(prepared[:1], 2, 50, 1).labels[0].tolist() == labels[1:].tolist()


def test_negative_zero_equals_zero():
    row = np.zeros((1, DIMENSION), np.float32)
    graph, _, _ = filled(DistanceMetric.EUCLIDEAN, np.concatenate((row, -row)))
    assert graph.row_count == 1


@pytest.mark.parametrize("metric", METRICS)
def test_after_loading_the_other_labels_find_their_node_again(metric, tmp_path):
    graph, prepared, labels = filled(metric, mixed())
    graph.mark_deleted(labels[:500])
    graph.save(str(tmp_path / "index.bin"))
    loaded = HnswGraph.load(str(tmp_path / "index.bin"), metric, DIMENSION, CONFIG, 1000)
    assert not loaded.is_outdated
    loaded.mark_deleted(labels[:500])
    missing = np.flatnonzero(~loaded.contains(labels))
    missing = missing[missing >= 500]
    loaded.add(prepared[missing], labels[missing], 1)
    check_fully(loaded)
    assert loaded.live_labels().tolist() == labels[500:].tolist()
    assert loaded.row_count == 601
    queries = prepared[500:540]
    found, before = (g.search(queries, 300, 400, 1).labels for g in (loaded, graph))
    assert np.array_equal(found, before)


def test_loaded_slot_of_a_removed_label_with_a_shared_node_has_one_label(tmp_path):
    """The node of the slot's removed label and that of its new one are both in the file."""
    graph, prepared, labels = filled(DistanceMetric.EUCLIDEAN, np.repeat(DISTINCT[:1], 2, axis=0))
    graph.mark_deleted(labels[:1])
    newer = make_labels([0], [2])
    graph.add(DISTINCT[5:6], newer, 1)
    graph.save(str(tmp_path / "index.bin"))
    loaded = HnswGraph.load(str(tmp_path / "index.bin"), DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG, 10)
    assert (loaded.live_count, loaded.live_labels().tolist()) == (1, newer.tolist())
    assert loaded.search(prepared[:1], 2, 50, 1).labels[0].tolist() == [*newer.tolist(), int(NO_LABEL)]
    loaded.add(prepared[1:], labels[1:], 1)
    found = loaded.search(prepared[:1], 3, 50, 1).labels[0].tolist()
    assert found == [*labels[1:].tolist(), *newer.tolist(), int(NO_LABEL)]
    assert (loaded.row_count, loaded.deleted_count) == (2, 0)


def test_loading_copies_no_more_than_a_block_of_the_rows(tmp_path):
    rows = np.random.default_rng(1).standard_normal((1000, 2048)).astype(np.float32)
    graph = HnswGraph(DistanceMetric.EUCLIDEAN, 2048, IndexConfig(max_connections=4, ef_construction=16))
    graph.add(rows, labels_of(1000), 1)
    graph.save(str(tmp_path / "index.bin"))
    tracemalloc.start()
    try:
        HnswGraph.load(str(tmp_path / "index.bin"), DistanceMetric.EUCLIDEAN, 2048, CONFIG, 1000)
        assert tracemalloc.get_traced_memory()[1] < rows.nbytes / 4
    finally:
        tracemalloc.stop()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_comes_and_goes_the_graph_holds_what_is_live(data):
    """Few distinct rows under many labels, some of them in slots that are used again."""
    graph = HnswGraph(DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG)
    live = {}
    for epoch in range(1, data.draw(st.integers(2, 12))):
        slots = data.draw(st.lists(st.integers(0, 20), unique=True, max_size=8))
        labels = make_labels(np.array(slots, np.uint64), np.full(len(slots), epoch))
        if data.draw(st.booleans()):
            chosen = [data.draw(st.integers(0, 3)) for _ in slots]
            graph.add(DISTINCT[chosen], labels, 1)
            live |= dict(zip(slots, zip(labels.tolist(), chosen, strict=True), strict=True))
        else:
            gone = np.array([live.pop(slot)[0] for slot in slots if slot in live], np.uint64)
            graph.mark_deleted(gone)
        check_fully(graph)
        nodes = len({row for _, row in live.values()})
        assert graph.row_count - graph.deleted_count == nodes
        for row in range(4):
            hits = graph.search(DISTINCT[row : row + 1], 25, 50, 1)
            same = sorted(label for label, held in live.values() if held == row)
            assert hits.labels[0][hits.distances[0] == 0].tolist() == same
            assert np.count_nonzero(hits.labels != NO_LABEL) == len(live)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=8), st.integers(0, 2**32))
def test_a_row_table_finds_what_was_put_there_however_hashes_collide(sizes, seed):
    generator = np.random.default_rng(seed)
    table, held = RowTable(2), {}
    for size in sizes:
        hashes = np.unique(generator.integers(0, 3000, size).astype(np.uint64) << np.uint64(50))
        hashes = hashes[~np.isin(hashes, list(held) or [2**64 - 1])]
        nodes = np.arange(len(held), len(held) + len(hashes), dtype=np.uint64)
        table.put(hashes, nodes)
        held |= dict(zip(hashes.tolist(), nodes.tolist(), strict=True))
        wanted = np.array([*held, 7], np.uint64)
        assert table.find(wanted).tolist() == [*held.values(), int(NO_LABEL)]


@pytest.mark.parametrize("metric", [m for m in METRICS if m.id != "DotProduct"])
def test_what_nearly_equal_rows_isolate_is_found(metric):
    generator = np.random.default_rng(11)
    near = generator.standard_normal(DIMENSION) + 1e-4 * generator.standard_normal((2000, DIMENSION))
    others = 5 * generator.standard_normal((40, DIMENSION))
    rows = np.concatenate((near, others)).astype(np.float32)
    graph, prepared, labels = filled(metric, rows)
    found = graph.search(prepared[2000:], 5, 50, 1)
    assert np.mean(found.labels[:, 0] == labels[2000:]) >= 0.97
    assert graph.apart.count > 0
    graph.mark_deleted(labels[1000:])
    assert not np.isin(graph.search(prepared[2000:], 5, 50, 1).labels, labels[1000:]).any()
    graph.mark_deleted(labels)
    assert (graph.apart.count, graph.deleted_count) == (0, graph.row_count)


@pytest.mark.parametrize("metric", METRICS)
def test_with_30_in_100_equal_rows_recall_at_the_default_ef_is_at_least_95_in_100(metric):
    generator = np.random.default_rng(0)
    rows = np.concatenate((generator.standard_normal((1400, 32)), np.full((600, 32), 0.5))).astype(np.float32)
    rows = exact.prepare(metric, rows[generator.permutation(2000)])
    queries = exact.prepare(metric, generator.standard_normal((60, 32)).astype(np.float32))
    labels = labels_of(2000)
    graph = HnswGraph(metric, 32, IndexConfig())
    graph.add(rows, labels, 1)
    check_fully(graph)
    found = graph.search(queries, 10, IndexConfig().ef_search, 1)
    expected = exact.nearest(metric, queries, rows, labels, 10)
    assert np.mean(found.distances <= expected.distances[:, -1:] + 1e-5) >= 0.95
