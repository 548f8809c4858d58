"""The plan of a search and the choice of its hits, without a collection."""

from __future__ import annotations

import numpy as np
import pytest

from vecstow_engine.index import exact
from vecstow_engine.model.groups import group_values
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.payloads import ABSENT
from vecstow_engine.model.searches import NO_PAYLOAD, SearchOptions
from vecstow_engine.query.nearest import growing
from vecstow_engine.query.ranking import diverse, plan

EUCLIDEAN = DistanceMetric.EUCLIDEAN


def query(excluded=(), dimension=4, **options):
    manifest = Manifest("notes", dimension, EUCLIDEAN)
    vector = np.ones(dimension, np.float32)
    return SearchOptions.checked(manifest, **options).query(vector, excluded=frozenset(excluded))


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        pytest.param(query(limit=7), 7, id="plain"),
        pytest.param(query(limit=7, offset=9), 16, id="offset"),
        pytest.param(query(["a"], limit=7), 8, id="by id"),
        pytest.param(query(limit=7, diversity=0.5), 64, id="few diverse hits"),
        pytest.param(query(limit=20, offset=10, diversity=0.5), 120, id="many diverse hits"),
        pytest.param(query(["a"], limit=250, diversity=0.5), 1001, id="most diverse hits"),
        pytest.param(query(limit=5, diversity=0.5, dimension=65_536), 61, id="long vectors"),
        pytest.param(query(limit=100, diversity=0.5, dimension=65_536), 100, id="many long vectors"),
        pytest.param(query(["a"], limit=10_000), 10_001, id="all hits"),
    ],
)
def test_a_search_has_as_many_candidates_as_it_needs(asked, limit):
    assert plan(asked).limit == limit


def test_payloads_of_candidates_that_are_dropped_are_not_kept():
    assert plan(query(offset=1)).payload is NO_PAYLOAD
    assert plan(query(diversity=0.1)).payload is NO_PAYLOAD
    assert plan(query(["a"])).payload.fields is None


def test_a_plain_search_is_its_own_plan():
    plain = query(limit=9, max_distance=3.0, with_vectors=True)
    assert plan(plain) is plain


@pytest.mark.parametrize(
    ("first", "most", "sizes"),
    [(64, 10_000, [64, 256, 1024, 4096, 10_000]), (64, 64, [64]), (400, 100, [100]), (16, 64, [16, 64])],
)
def test_candidates_grow_fourfold_to_the_limit(first, most, sizes):
    assert list(growing(first, most)) == sizes


def chosen(rows, vector, count, diversity):
    rows = np.array(rows, np.float32)
    relevance = -exact.distances(EUCLIDEAN, np.array([vector], np.float32), rows)[0].astype(np.float64)
    return diverse(EUCLIDEAN, rows, relevance, count, diversity)


LINE = [[0, 0], [0, 1], [0, 2], [3, 0], [4, 0]]


@pytest.mark.parametrize(
    ("diversity", "positions"), [(0.0, [0, 1, 2]), (0.5, [0, 1, 3]), (0.9, [0, 4, 2]), (1.0, [0, 4, 2])]
)
def test_diversity_weighs_the_distance_between_hits(diversity, positions):
    assert chosen(LINE, [0, 0], 3, diversity) == positions


def test_equal_candidates_are_taken_in_their_order():
    assert chosen([[1, 0]] * 4, [0, 0], 3, 0.5) == [0, 1, 2]


def test_fewer_candidates_than_hits_are_all_taken():
    assert sorted(chosen(LINE, [0, 0], 9, 0.7)) == [0, 1, 2, 3, 4]
    assert diverse(EUCLIDEAN, np.empty((0, 2), np.float32), np.empty(0), 3, 0.5) == []


@pytest.mark.parametrize(
    ("value", "values"),
    [
        ("a", ["a"]),
        (7, [7]),
        (False, [False]),
        (None, []),
        (ABSENT, []),
        ({"a": 1}, []),
        ([], []),
        (["a", "b", "a"], ["a", "b"]),
        ([1, True, 1.0, "1"], [1, True, "1"]),
        ([None, ["a"], {"b": 1}, "c"], ["c"]),
    ],
)
def test_the_groups_of_a_value(value, values):
    found = list(group_values(value))
    assert [(type(each) is bool, each) for each in found] == [(type(each) is bool, each) for each in values]
