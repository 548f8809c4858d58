"""The order of keywords follows a list that grows, however it was sorted."""

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecstow_engine.index.payload import word_order
from vecstow_engine.index.payload.word_order import WordOrder

TESTS = {
    "$gt": operator.gt, "$gte": operator.ge, "$lt": operator.lt, "$lte": operator.le,
    "$startsWith": str.startswith,
}  # fmt: skip
WORDS = st.text(alphabet="ab\uffff\U0001f600", max_size=3)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Let few words be many."""
    monkeypatch.setattr(word_order, "SORTED_AT_ONCE", 3)


@given(st.lists(st.lists(WORDS, unique=True), max_size=4), st.lists(WORDS, min_size=1, max_size=4))
def test_each_comparison_is_that_of_strings(batches, operands):
    words: list[str] = []
    order = WordOrder(words)
    for batch in batches:
        words += [word for word in batch if word not in words]
        for operand in operands:
            for name, holds in TESTS.items():
                assert order.compare(name, operand).tolist() == [holds(word, operand) for word in words]
        ranks = order.ranks().tolist()
        assert [words[place] for place in sorted(range(len(words)), key=ranks.__getitem__)] == sorted(words)


def test_words_that_come_after_a_comparison_are_compared():
    words = ["b"]
    order = WordOrder(words)
    assert order.bytes == 0
    assert order.compare("$gt", "a").tolist() == [True]
    words += ["a", "c"]
    assert order.compare("$gt", "b").tolist() == [False, False, True]
    assert order.bytes == 24
