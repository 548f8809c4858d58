"""Filters answer as an independent oracle does, and parse or refuse any document."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filter_cases import (
    FILTERS,
    ID_OPERANDS,
    INSTANTS,
    NAMES,
    NO_INSTANTS,
    OPERANDS,
    PAYLOADS,
    PLACES,
    POINT_IDS,
    SCALARS,
    VALUES,
)
from tests.filter_oracle import instant_of, oracle
from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.model.filter_parser import parse_filter


@settings(max_examples=500, deadline=None, derandomize=True)
@given(document=FILTERS, payload=PAYLOADS, point_id=POINT_IDS)
def test_agrees_with_the_oracle(document, payload, point_id):
    """A compiled filter answers as the documentation's rules do, applied one by one."""
    assert parse_filter(document).matches(payload, point_id) == oracle(document, payload, point_id)


LIKELY = {
    "$contains": st.lists(SCALARS, max_size=3),
    "$size": st.lists(SCALARS, max_size=4),
    "$within": PLACES,
}
"""Values of the kind that an operator can match; scalars for the others."""


@pytest.mark.parametrize("name", OPERANDS)
@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_each_operator_agrees_with_the_oracle(name, data):
    """One condition at a time, on a field that is there, where no other condition hides a wrong answer."""
    document, payload = (
        {"a": {name: data.draw(OPERANDS[name])}},
        {"a": data.draw(LIKELY.get(name, SCALARS) | VALUES)},
    )
    assert parse_filter(document).matches(payload, "a") == oracle(document, payload, "a")


@pytest.mark.parametrize("name", ID_OPERANDS)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data(), point_id=POINT_IDS)
def test_each_operator_of_the_id_agrees_with_the_oracle(name, data, point_id):
    document = {"$id": {name: data.draw(ID_OPERANDS[name])}}
    assert parse_filter(document).matches({"$id": "a"}, point_id) == oracle(document, {"$id": "a"}, point_id)


def test_the_cases_have_datetimes_of_one_instant_and_strings_that_are_none():
    """Without them the datetimes of the cases would never be equal."""
    assert len({instant_of(text) for text in INSTANTS[:4]}) == 1
    assert len({instant_of(text) for text in INSTANTS}) == len(INSTANTS) - 3
    assert {instant_of(text) for text in NO_INSTANTS} == {None}


JSON = st.recursive(
    st.one_of(SCALARS, st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                NAMES, st.sampled_from(["$and", "$or", "$not", "$id", "$x", "datetime", *OPERANDS, ""])
            ),
            inner,
        ),
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(document=JSON, payload=PAYLOADS)
def test_any_document_is_parsed_or_refused(document, payload):
    """Whatever comes in, the answer is a filter that works or InvalidInput, never another exception."""
    try:
        parsed = parse_filter(document)
    except InvalidInput:
        return
    assert parsed.matches(payload, "a") in (True, False)
