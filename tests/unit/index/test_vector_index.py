"""Graph, tail and backlog answer as one index, whatever has moved where."""

import numpy as np
import pytest

from vecstow_engine.index import exact, vector_index
from vecstow_engine.index.exact import NO_LABEL
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.points import make_labels, slots_of

METRICS = [pytest.param(metric, id=metric.value) for metric in DistanceMetric]
CONFIG = IndexConfig(max_connections=8, ef_construction=60)
DIMENSION = 16
ROWS = np.random.default_rng(21).standard_normal((1200, DIMENSION)).astype(np.float32)
LABELS = make_labels(np.arange(1200), np.ones(1200))


def fetch(labels):
    return ROWS[slots_of(labels)]


def index(metric=DistanceMetric.EUCLIDEAN, *, fetch=fetch, flat_rows_max=0):
    # With two threads hnswlib makes another graph each time.
    return VectorIndex(
        metric, DIMENSION, CONFIG, fetch, threads=1, slice_seconds=60, flat_rows_max=flat_rows_max
    )


def advance_fully(vectors):
    while vectors.advance():
        pass


def found_by_own_row(vectors, slots):
    """The label that each slot's row finds first."""
    return vectors.search(ROWS[slots], 1, 50).labels.ravel().tolist()


def everything(vectors, k=1300):
    """All labels that a search can return, the padding dropped."""
    labels = vectors.search(ROWS[:1], k, 50).labels[0]
    return labels[labels != NO_LABEL].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_tail_backlog_and_graph_together_are_as_good_as_exact(metric):
    vectors = index(metric)
    vectors.add(ROWS[:500], LABELS[:500])
    advance_fully(vectors)
    vectors.add(ROWS[500:800], LABELS[500:800])
    vectors.add_backlog(LABELS[800:])
    assert (vectors.count, vectors.indexed, vectors.pending) == (1200, 500, 700)
    queries = np.random.default_rng(22).standard_normal((50, DIMENSION)).astype(np.float32)
    found = vectors.search(queries, 10, 200)
    rows = exact.prepare(metric, ROWS)
    expected = exact.nearest(metric, exact.prepare(metric, queries), rows, LABELS, 10)
    assert np.mean(found.labels == expected.labels) > 0.97
    assert sorted(everything(vectors)) == LABELS.tolist()


def test_advancing_moves_every_row_into_the_graph_once():
    vectors = index()
    vectors.add(ROWS[:700], LABELS[:700])
    vectors.add_backlog(LABELS[700:])
    while step := vectors.advance(100):
        assert step <= 100
        assert sorted(everything(vectors)) == LABELS.tolist()
    assert (vectors.indexed, vectors.pending, vectors.tail_bytes) == (1200, 0, 0)
    assert vectors.progress == (1200, 1200)


def test_an_updated_point_is_found_by_its_new_row_only():
    vectors = index()
    vectors.add(ROWS[:600], LABELS[:600])
    advance_fully(vectors)
    vectors.remove(LABELS[:1])
    newer = make_labels([700], [2])
    vectors.add(ROWS[700:701], newer)
    for _ in range(2):
        assert LABELS[0] not in everything(vectors)
        assert found_by_own_row(vectors, [700]) == newer.tolist()
        assert found_by_own_row(vectors, [0]) != LABELS[:1].tolist()
        advance_fully(vectors)


def test_removed_labels_are_gone_at_once_wherever_they_are():
    vectors = index()
    vectors.add(ROWS[:400], LABELS[:400])
    advance_fully(vectors)
    vectors.add(ROWS[400:800], LABELS[400:800])
    vectors.add_backlog(LABELS[800:])
    vectors.remove(np.concatenate((LABELS[::2], make_labels([5000], [1]))))
    assert (vectors.count, vectors.pending) == (600, 400)
    assert sorted(everything(vectors)) == LABELS[1::2].tolist()
    advance_fully(vectors)
    assert sorted(everything(vectors)) == LABELS[1::2].tolist()
    assert vectors.deleted_share == pytest.approx(0.25)


def test_a_slot_that_is_used_again_has_its_new_row():
    vectors = index()
    vectors.add(ROWS[:300], LABELS[:300])
    advance_fully(vectors)
    vectors.remove(LABELS[:1])
    again = make_labels([0], [2])
    vectors.add(ROWS[900:901], again)
    advance_fully(vectors)
    assert found_by_own_row(vectors, [900]) == again.tolist()
    assert LABELS[0] not in everything(vectors)


def test_adding_what_is_known_changes_nothing():
    vectors = index()
    vectors.add(ROWS[:300], LABELS[:300])
    advance_fully(vectors)
    vectors.add(ROWS[200:400], LABELS[200:400])
    vectors.add_backlog(LABELS[300:500])
    vectors.add(ROWS[450:500], LABELS[450:500])
    assert vectors.count == 500
    assert sorted(everything(vectors)) == LABELS[:500].tolist()


def test_an_empty_index_gives_padding_and_has_nothing_to_do():
    vectors = index()
    assert vectors.search(ROWS[:2], 3, 10).labels.tolist() == [[NO_LABEL] * 3] * 2
    assert (vectors.advance(), vectors.count, vectors.pending, vectors.deleted_share) == (0, 0, 0, 0)


def test_an_index_emptied_after_growing_gives_padding():
    vectors = index()
    vectors.add(ROWS[:100], LABELS[:100])
    advance_fully(vectors)
    vectors.remove(LABELS[:100])
    assert everything(vectors) == []


def test_few_rows_stay_in_memory_without_a_graph():
    vectors = index(flat_rows_max=300)
    vectors.add(ROWS[:200], LABELS[:200])
    vectors.add_backlog(LABELS[200:300])
    assert vectors.pending == 100
    advance_fully(vectors)
    assert (vectors.indexed, vectors.pending) == (300, 0)
    assert vectors.memory_bytes < 100_000
    with vectors.fork_point() as graph:
        assert graph is None
    assert sorted(everything(vectors)) == LABELS[:300].tolist()


def test_one_row_too_many_starts_the_graph():
    vectors = index(flat_rows_max=300)
    vectors.add(ROWS[:301], LABELS[:301])
    assert vectors.pending == 301
    advance_fully(vectors)
    with vectors.fork_point() as graph:
        assert graph.live_count == 301


def test_wide_rows_count_by_their_bytes():
    wide = VectorIndex(DistanceMetric.EUCLIDEAN, 65_536, CONFIG, fetch)
    wide.add(np.zeros((17, 65_536), dtype=np.float32), LABELS[:17])
    assert wide.pending == 17


@pytest.mark.parametrize("metric", METRICS)
def test_a_graph_that_leads_to_too_few_rows_is_completed_exactly(metric, monkeypatch):
    vectors = index(metric)
    vectors.add(ROWS[:800], LABELS[:800])
    advance_fully(vectors)
    vectors.remove(LABELS[:20])
    vectors.add(ROWS[800:900], LABELS[800:900])
    whole_search = HnswGraph.search

    def reaching_four_for_the_second_query(graph, queries, k, ef, threads):
        hits = whole_search(graph, queries, k, ef, threads)
        hits.labels[1, 4:], hits.distances[1, 4:] = NO_LABEL, np.inf
        return hits

    monkeypatch.setattr(HnswGraph, "search", reaching_four_for_the_second_query)
    monkeypatch.setattr(vector_index, "_COMPLETE_BYTES", 4 * DIMENSION * 100)
    found = vectors.search(ROWS[:2], 30, 200)
    rows = exact.prepare(metric, ROWS[20:900])
    expected = exact.nearest(metric, exact.prepare(metric, ROWS[:2]), rows, LABELS[20:900], 30)
    assert np.array_equal(found.labels[1], expected.labels[1])
    assert len(set(found.labels[0].tolist()) & set(expected.labels[0].tolist())) >= 27


def test_what_fetch_raises_comes_out_and_changes_nothing():
    broken = [True]

    def failing(labels):
        if broken[0]:
            raise OSError("unreadable")
        return fetch(labels)

    vectors = index(fetch=failing)
    vectors.add(ROWS[:100], LABELS[:100])
    vectors.add_backlog(LABELS[100:300])
    advanced = vectors.advance(100)
    assert advanced <= 100
    with pytest.raises(OSError, match="unreadable"):
        advance_fully(vectors)
    with pytest.raises(OSError, match="unreadable"):
        vectors.search(ROWS[:1], 5, 10)
    assert vectors.count == 300
    assert vectors.pending >= 200
    broken[0] = False
    advance_fully(vectors)
    assert sorted(everything(vectors)) == LABELS[:300].tolist()


def test_a_row_that_is_removed_while_it_is_fetched_is_not_returned():
    def removing(labels):
        vectors.remove(LABELS[:50])
        return fetch(labels)

    vectors = index(fetch=removing)
    vectors.add_backlog(LABELS[:100])
    assert sorted(everything(vectors)) == LABELS[50:100].tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_a_rebuild_under_adds_and_removes_ends_up_right(metric):
    vectors = index(metric)
    vectors.add(ROWS[:600], LABELS[:600])
    advance_fully(vectors)
    vectors.remove(LABELS[:200])
    assert vectors.deleted_share == pytest.approx(1 / 3)
    other = IndexConfig(max_connections=12, ef_construction=80)
    vectors.start_rebuild(other)
    expected, step = set(LABELS[200:600].tolist()), 0
    while vectors.rebuilding:
        vectors.advance(16)
        assert set(everything(vectors)) == expected
        if step < 20:
            fresh = slice(600 + step * 10, 610 + step * 10)
            vectors.add(ROWS[fresh], LABELS[fresh])
            gone = [LABELS[200 + step], LABELS[400 + step], LABELS[601 + step * 10]]
            vectors.remove(np.array(gone))
            expected = (expected | set(LABELS[fresh].tolist())) - set(gone)
        assert set(everything(vectors)) == expected
        step += 1
    advance_fully(vectors)
    assert set(everything(vectors)) == expected
    assert vectors.indexed == vectors.count == len(expected)
    assert vectors.deleted_share < 0.1
    with vectors.fork_point() as graph:
        assert graph.hnsw.built_with(other)
        assert set(graph.live_labels().tolist()) == expected


def test_progress_of_a_rebuild_counts_the_new_graph():
    vectors = index()
    vectors.add(ROWS[:500], LABELS[:500])
    advance_fully(vectors)
    vectors.start_rebuild(CONFIG)
    assert vectors.progress == (0, 500)
    vectors.advance(64)
    assert vectors.progress == (64, 500)
    vectors.start_rebuild(CONFIG)
    assert vectors.progress == (0, 500)
    advance_fully(vectors)
    assert (vectors.rebuilding, vectors.progress) == (False, (500, 500))


def test_a_rebuild_takes_turns_with_the_tail():
    vectors = index()
    vectors.add(ROWS[:300], LABELS[:300])
    advance_fully(vectors)
    vectors.start_rebuild(CONFIG)
    vectors.add(ROWS[300:], LABELS[300:])
    for _ in range(4):
        vectors.advance(32)
    assert vectors.progress == (64, 1200)
    assert vectors.indexed == 364


def test_a_rebuild_before_there_is_a_graph_sets_its_settings():
    vectors = index()
    other = IndexConfig(max_connections=12)
    vectors.start_rebuild(other)
    vectors.add(ROWS[:50], LABELS[:50])
    advance_fully(vectors)
    with vectors.fork_point() as graph:
        assert graph.hnsw.built_with(other)


def test_a_loaded_graph_is_reconciled_with_what_is_live(tmp_path):
    first = index()
    first.add(ROWS[:600], LABELS[:600])
    advance_fully(first)
    first.remove(LABELS[:50])
    path = str(tmp_path / "index.bin")
    with first.fork_point() as graph:
        graph.save(path)

    second = index()
    second.add(ROWS[1000:1010], LABELS[1000:1010])
    second.adopt(HnswGraph.load(path, DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG, 1200))
    reused = make_labels([100], [2])
    live = np.concatenate((LABELS[101:800], reused, LABELS[1000:1010]))
    second.reconcile(live)
    assert sorted(everything(second)) == sorted(live.tolist())
    assert second.indexed == 499
    assert second.pending == 200 + 1 + 10
    advance_fully(second)
    assert sorted(everything(second)) == sorted(live.tolist())
    assert second.indexed == len(live)


@pytest.mark.parametrize("source", ["tail", "backlog", "rebuild"])
def test_a_label_that_is_removed_while_its_slice_is_inserted_is_not_found(source, monkeypatch):
    vectors = index()
    vectors.add(ROWS[:100], LABELS[:100])
    advance_fully(vectors)
    if source == "rebuild":
        vectors.start_rebuild(CONFIG)
    elif source == "tail":
        vectors.add(ROWS[100:200], LABELS[100:200])
    else:
        vectors.add_backlog(LABELS[100:200])
    gone = LABELS[20:30] if source == "rebuild" else LABELS[120:130]
    whole_add = HnswGraph.add

    def removing_meanwhile(graph, rows, labels, threads):
        whole_add(graph, rows, labels, threads)
        vectors.remove(gone)

    monkeypatch.setattr(HnswGraph, "add", removing_meanwhile)
    advance_fully(vectors)
    kept = LABELS[:100] if source == "rebuild" else LABELS[:200]
    assert sorted(everything(vectors)) == np.setdiff1d(kept, gone).tolist()
    with vectors.fork_point() as graph:
        assert not graph.contains(gone).any()
        assert graph.live_count == vectors.indexed == len(kept) - 10


def test_a_loaded_graph_leaves_what_is_known_already_where_it_is():
    graph = HnswGraph(DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG)
    graph.add(ROWS[:100], LABELS[:100], 1)
    graph.check(100, 1)
    vectors = index()
    vectors.add(ROWS[90:110], LABELS[90:110])
    vectors.adopt(graph)
    assert (vectors.count, vectors.pending) == (110, 20)
    assert sorted(everything(vectors)) == LABELS[:110].tolist()
    advance_fully(vectors)
    assert sorted(everything(vectors)) == LABELS[:110].tolist()


def test_a_loaded_graph_does_not_take_back_slots_that_the_replay_has_used_again():
    """Else their labels would be forgotten in the tail, fetched once more, and found twice."""
    graph = HnswGraph(DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG)
    graph.add(ROWS[1000:1100], LABELS[:100], 1)
    graph.check(100, 1)
    vectors = index()
    reused = make_labels(np.arange(90, 100), np.full(10, 2))
    vectors.add(ROWS[90:100], reused)
    vectors.adopt(graph)
    live = np.concatenate((LABELS[:90], reused))
    vectors.reconcile(live)
    assert (vectors.count, vectors.pending) == (100, 10)
    assert sorted(everything(vectors)) == sorted(live.tolist())
    assert found_by_own_row(vectors, np.arange(90, 100)) == reused.tolist()
    advance_fully(vectors)
    assert sorted(everything(vectors)) == sorted(live.tolist())


def test_only_an_index_without_a_graph_adopts_one():
    vectors = index()
    vectors.adopt(HnswGraph(DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG))
    with pytest.raises(RuntimeError, match="has a graph already"):
        vectors.adopt(HnswGraph(DistanceMetric.EUCLIDEAN, DIMENSION, CONFIG))


def test_memory_follows_the_rows():
    vectors = index()
    empty = vectors.memory_bytes
    vectors.add(ROWS, LABELS)
    assert vectors.tail_bytes >= ROWS.nbytes
    in_tail = vectors.memory_bytes
    assert in_tail >= empty + ROWS.nbytes
    advance_fully(vectors)
    assert vectors.memory_bytes > in_tail
