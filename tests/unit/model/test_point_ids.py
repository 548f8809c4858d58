"""Ids of points are looked at together where that shows that they are legal, and one by one where not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecstow_engine.model.errors import InvalidInput, VecstowError, WrongShape
from vecstow_engine.model.names import (
    POINT_ID_CHARACTERS_MAX,
    are_plain_point_ids,
    check_point_id,
)
from vecstow_engine.model.points import check_ids

LONG = "a" * (POINT_ID_CHARACTERS_MAX + 1)
TWO_LINES = f"{LONG[1:]}\n{LONG[1:]}"
TEXTS = st.text(st.sampled_from("ab/.\n\x00é\ud800"), max_size=4) | st.sampled_from([LONG, TWO_LINES])


def is_legal(point_id):
    try:
        check_point_id(point_id)
    except VecstowError:
        return False
    return True


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_what_is_plain_is_legal(ids):
    plain = are_plain_point_ids(ids)
    assert not plain or all(map(is_legal, ids))
    assert plain or any(set(text) & set(".\n\ud800") or not is_legal(text) for text in ids)


@given(st.lists(TEXTS | st.none(), max_size=4))
def test_legal_and_distinct_ids_are_taken_and_no_others(ids):
    given_ids = [point_id for point_id in ids if point_id is not None]
    if all(map(is_legal, given_ids)) and len(set(given_ids)) == len(given_ids):
        checked = check_ids(ids, "vectors[{}].id")
        assert [old for old in ids if old is not None] == [
            new for old, new in zip(ids, checked, strict=True) if old is not None
        ]
        assert len(set(checked)) == len(ids)
    else:
        with pytest.raises(InvalidInput, match=r"vectors\[\d\]"):
            check_ids(ids, "vectors[{}].id")


def test_id_that_is_no_text_is_refused_by_its_place():
    with pytest.raises(WrongShape, match=r"ids\[1\] is int"):
        check_ids(["a", 1], "ids[{}]")
