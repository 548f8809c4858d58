"""The demo's judge: it must see every way in which an engine can break its word."""

import numpy as np
import pytest

from examples.demo_journal import Journal


def point(number, **payload):
    return np.full(4, number, np.float32), payload


@pytest.fixture
def journal():
    """Acknowledged: `b` was updated, `a` deleted, `c` inserted. In flight: `d` and `e`."""
    journal = Journal({"a": point(1), "b": point(2)})
    for client, kind, changes in (
        (0, "update", {"b": point(20, turn=1)}),
        (0, "insert", {"c": point(3)}),
        (1, "delete", {"a": None}),
    ):
        journal.begin(client, changes)
        journal.acknowledged(client, kind, changes)
    journal.begin(1, {"d": point(4), "e": point(5)})
    return journal


HELD = {"a": None, "b": point(20, turn=1), "c": point(3), "d": None, "e": None}


def test_it_counts_what_was_acknowledged_and_knows_every_id(journal):
    assert journal.count() == 3
    assert journal.ids() == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    "unanswered",
    [
        pytest.param({"d": None, "e": None}, id="absent"),
        pytest.param({"d": point(4), "e": point(5)}, id="whole"),
    ],
)
def test_an_engine_that_kept_its_word_is_right(journal, unanswered):
    result = journal.compare(HELD | unanswered)
    assert result.wrong == []
    assert (result.right, result.gone, result.undecided) == (2, 1, 1)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        pytest.param({"c": None}, ["c"], id="an acknowledged insert is missing"),
        pytest.param({"a": point(1)}, ["a"], id="a deleted point is back"),
        pytest.param({"b": point(2)}, ["b"], id="an acknowledged update is lost"),
        pytest.param({"b": point(20, turn=2)}, ["b"], id="another payload"),
        pytest.param({"c": (np.array([3, 3, 3, 3.0001], np.float32), {})}, ["c"], id="another vector"),
        pytest.param({"d": point(4)}, ["half of a batch: d, e"], id="half of a batch"),
        pytest.param({"d": point(9), "e": point(5)}, ["half of a batch: d, e"], id="a batch changed"),
    ],
)
def test_an_engine_that_broke_its_word_is_found_out(journal, change, wrong):
    assert journal.compare(HELD | change).wrong == wrong
