"""Cursors name a position of one scroll, and orders have one meaning; anything else is refused."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vecstow_engine.model.errors import InvalidInput, WrongShape
from vecstow_engine.model.scrolls import (
    CURSOR_CHARACTERS_MAX,
    Order,
    Position,
    decode_cursor,
    encode_cursor,
    fingerprint,
    rank,
)

BY_YEAR = Order("year")
MARK = fingerprint({"a": 1}, BY_YEAR)


def made(parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@given(st.text(min_size=1, max_size=256), st.none() | st.integers() | st.text() | st.floats(allow_nan=False))
def test_a_cursor_brings_its_position_back(point_id, value):
    assume(point_id not in (".", "..") and value not in (float("inf"), float("-inf")))
    position = Position(point_id, value)
    order = None if value is None else BY_YEAR
    cursor = encode_cursor(position, MARK)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    found = decode_cursor(cursor, MARK, order)
    assert (found, type(found.value)) == (position, type(value))


@pytest.mark.parametrize(
    ("filter", "order"),
    [
        (None, None),
        ({"a": 2}, BY_YEAR),
        ({"a": 1}, None),
        ({"a": 1}, Order("month")),
        ({"a": 1}, Order("year", is_descending=True)),
    ],
)
def test_a_cursor_of_another_scroll_is_refused(filter, order):
    cursor = encode_cursor(Position("a", 1), MARK)
    with pytest.raises(
        InvalidInput, match="cursor belongs to a scroll with another filter or another order_by"
    ):
        decode_cursor(cursor, fingerprint(filter, order), order)


def test_the_order_of_keys_makes_no_other_scroll():
    assert fingerprint({"a": 1, "b": {"$gt": 1, "$lt": 2}}, None) == fingerprint(
        {"b": {"$lt": 2, "$gt": 1}, "a": 1}, None
    )


@pytest.mark.parametrize(
    "cursor",
    [
        "", "x", "é", "a" * 5, "!!!!", "AAAA\n", made({}), made([]), made([1, MARK]), made([1, MARK, 7, 1]),
        made([2, MARK, "a", 1]), made([1, MARK, "a"]), made([1, MARK, "a", None]), made([1, MARK, "a", True]),
        made([1, MARK, "a", [1]]), made([1, MARK, "a", 1, 2]), made([1, 5, "a", 1]), made([1, MARK, "", 1]),
        made([1, MARK, "..", 1]), made([1, MARK, "x" * 257, 1]), made("[" * 100), "W" * 5000,
        encode_cursor(Position("a", 1), MARK)[:-2],
    ],
    ids=range(23),
)  # fmt: skip
def test_anything_else_is_no_cursor(cursor):
    with pytest.raises(InvalidInput, match="cursor"):
        decode_cursor(cursor, MARK, BY_YEAR)


def test_a_cursor_has_a_limit():
    with pytest.raises(InvalidInput, match="at most 1048576 are read"):
        decode_cursor("A" * (CURSOR_CHARACTERS_MAX + 1), MARK, BY_YEAR)
    longest = encode_cursor(Position("\U0001f600" * 256, "\0" * 65_536), MARK)
    assert len(longest) <= CURSOR_CHARACTERS_MAX
    assert decode_cursor(longest, MARK, BY_YEAR).value == "\0" * 65_536


def test_numbers_come_before_strings_and_other_values_have_no_place():
    values = ["", 3, "Z", -1.5, "a", 2**64, 2, "\U0001f600", "\uffff"]
    assert sorted(values, key=rank) == [-1.5, 2, 3, 2**64, "", "Z", "a", "\uffff", "\U0001f600"]
    assert [rank(value) for value in (None, True, [], [1], {}, object())] == [None] * 6


@pytest.mark.parametrize(
    ("value", "order"),
    [
        ("year", BY_YEAR),
        ("a.b", Order("a.b")),
        ({"field": "year"}, BY_YEAR),
        ({"field": "year", "direction": "asc"}, BY_YEAR),
        ({"field": "year", "direction": "desc"}, Order("year", is_descending=True)),
    ],
)
def test_an_order_is_a_field_or_an_object(value, order):
    assert Order.parse(value) == order


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        (1, WrongShape, "order_by is int; it must be the name of a field, or an object"),
        ([], WrongShape, "order_by is list"),
        ({}, WrongShape, "order_by.field is missing"),
        ({"field": 1}, WrongShape, "order_by.field is int"),
        ({"field": "a", "up": True}, WrongShape, "unknown field 'up'; known: field, direction"),
        (
            {"field": "a", "direction": "up"},
            InvalidInput,
            "order_by.direction is 'up'; it must be asc or desc",
        ),
        ({"field": "a", "direction": None}, InvalidInput, "it must be asc or desc"),
        ("$id", InvalidInput, "order_by is '\\$id', which is no field"),
        ("x" * 1025, InvalidInput, "order_by has 1025 characters"),
    ],
)
def test_an_order_that_is_none_is_refused(value, kind, says):
    with pytest.raises(kind, match=says):
        Order.parse(value)
