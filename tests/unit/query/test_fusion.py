"""Reciprocal rank fusion by its formula."""

import pytest

from vecstow_engine.query.fusion import fuse


def test_key_scores_the_sum_over_the_lists_that_have_it():
    scores = dict(fuse([["a", "b"], ["b", "c"]], (1, 1), 60))
    assert scores == pytest.approx({"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 62})


def test_best_come_first_and_equal_ones_in_the_order_of_the_first_list():
    fused = fuse([["a", "b", "c"], ["b", "d", "e"]], (1, 1), 2)
    assert [key for key, _ in fused] == ["b", "a", "d", "c", "e"]


def test_weights_decide_between_the_lists():
    assert [key for key, _ in fuse([["a"], ["b"]], (1, 2), 2)] == ["b", "a"]
    assert dict(fuse([["a"], ["a"]], (3, 0.5), 9)) == pytest.approx({"a": 0.35})


def test_large_constant_prefers_what_both_lists_have():
    lists = [["a", "b", "c", "d"], ["e", "f", "g", "d"]]
    assert fuse(lists, (1, 1), 0)[0][0] == "a"
    assert fuse(lists, (1, 1), 60)[0][0] == "d"


def test_list_without_weight_adds_nothing():
    assert fuse([["a"], ["b"]], (0, 1), 0) == [("b", 1)]


def test_empty_lists_fuse_to_nothing():
    assert fuse([[], []], (1, 1), 2) == []
