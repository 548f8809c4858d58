"""Changes of payloads: what is replaced, merged and removed, and what is refused."""

from __future__ import annotations

import json

import pytest

from vecstow_engine.model.errors import InvalidInput, TooLarge, WrongShape
from vecstow_engine.model.selections import UNSET_FIELDS_MAX, PayloadChange, parse_unset

STORED = {"a": 1, "place": {"city": "Oslo", "at": {"lat": 1.0}}, "place.zip": "0150", "tags": [{"x": 1}]}


def changed(change: PayloadChange, payload: object = STORED) -> object:
    raw = None if payload is None else json.dumps(payload).encode()
    found = change.apply(raw, "p")
    return None if found is None else json.loads(found)


@pytest.mark.parametrize("payload", [STORED, None, {}])
def test_set_replaces_the_payload(payload):
    assert changed(PayloadChange(replacement={"n": [1]}), payload) == {"n": [1]}
    assert changed(PayloadChange(replacement={}), payload) is None


@pytest.mark.parametrize(
    ("merged", "expected"),
    [
        ({"a": 2}, STORED | {"a": 2}),
        ({"a": None}, STORED | {"a": None}),
        ({"place": {"zip": 1}}, STORED | {"place": {"zip": 1}}),
        ({"place.city": "Bergen"}, STORED | {"place.city": "Bergen"}),
        ({}, STORED),
    ],
)
def test_merge_replaces_keys_of_the_payload_itself(merged, expected):
    assert changed(PayloadChange(merged=merged)) == expected
    assert changed(PayloadChange(merged={"a": 1}), None) == {"a": 1}


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        (["a"], {name: value for name, value in STORED.items() if name != "a"}),
        (["place.at.lat"], STORED | {"place": {"city": "Oslo", "at": {}}}),
        (["place.city", "place.at"], STORED | {"place": {}}),
        (["place.zip"], {name: value for name, value in STORED.items() if name != "place.zip"}),
        (["none", "a.b", "place.none.x", "tags.0", "tags.x"], STORED),
        (list(STORED), None),
        (["place", "place.city"], {name: value for name, value in STORED.items() if name != "place"}),
    ],
)
def test_unset_removes_fields_and_an_empty_payload_is_none(removed, expected):
    assert changed(PayloadChange(removed=tuple(removed))) == expected


def test_merge_comes_before_unset():
    change = PayloadChange(merged={"a": 2, "b": {"c": 1, "d": 2}}, removed=("a", "b.c"))
    assert changed(change, {"a": 1}) == {"b": {"d": 2}}


def test_values_that_no_payload_holds_are_refused_at_once():
    for field in ("replacement", "merged"):
        with pytest.raises(InvalidInput, match=r"(set|merge)\.a\[0\] is an integer beyond"):
            PayloadChange(**{field: {"a": [2**64]}})
        with pytest.raises(TooLarge, match=r"(set|merge) has 65"):
            PayloadChange(**{field: {"a": "x" * 65_536}})


def test_a_payload_that_grows_too_large_names_its_point():
    with pytest.raises(TooLarge, match="metadata of point 'p' has 80015 bytes") as refusal:
        changed(PayloadChange(merged={"b": "y" * 40_000}), {"a": "x" * 40_000})
    assert refusal.value.details["id"] == "p"


@pytest.mark.parametrize("levels", [129, 5000])
def test_a_payload_of_an_earlier_release_that_is_too_deep_is_not_changed(levels):
    """Decoded levels that come as text must not be stored as text."""
    stored = b'{"x":' + b"[" * levels + b"]" * levels + b"}"
    with pytest.raises(InvalidInput, match=r"metadata of point 'p'.* nests too deep") as refusal:
        PayloadChange(merged={"a": 1}).apply(stored, "p")
    assert refusal.value.details["id"] == "p"
    assert PayloadChange(replacement={"a": 1}).apply(stored, "p") == b'{"a":1}'


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        ("a", WrongShape, "unset is str; it must be a list of fields"),
        ({"a": 1}, WrongShape, "unset is dict"),
        ([1], WrongShape, r"unset\[0\] is int; it must be a string"),
        ([], InvalidInput, "unset is empty"),
        (["a"] * (UNSET_FIELDS_MAX + 1), TooLarge, "unset has 65 fields; at most 64"),
    ],
)
def test_fields_to_remove_are_a_list_of_names(value, kind, says):
    with pytest.raises(kind, match=says):
        parse_unset(value)
