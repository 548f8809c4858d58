"""Payloads: what is stored can be answered in every format, and what cannot is refused with its path."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from vecstow_engine.api.answers import Media, encode
from vecstow_engine.model import payloads
from vecstow_engine.model.errors import InvalidInput, TooLarge, WrongShape
from vecstow_engine.model.payloads import (
    CHOSEN_FIELDS_MAX,
    FIELD_CHARACTERS_MAX,
    PAYLOAD_DEPTH_MAX,
    PayloadChoice,
    check_payload,
    check_unpacked,
    decode_payload,
    encode_payload,
    pack_payload,
)


def nested(levels: int, inner: object = 1) -> dict[str, object]:
    """A payload of so many levels: itself, then lists."""
    value = inner
    for _ in range(levels - 1):
        value = [value]
    return {"a": value}


def as_text(payload: object) -> bytes:
    """A payload as an earlier release stored it."""
    return json.dumps(payload, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "value",
    [
        2**64 - 1, -(2**63), 1e308, -0.0, 5e-324, "\0", "\U0001f600", "", True, None, [], {},
        {"": {"": [""]}}, [[1, "x"], {"y": None}],
    ],
    ids=repr,
)  # fmt: skip
def test_values_within_the_limits_come_back_from_both_formats(value):
    stored = encode_payload({"v": value})
    for found in (json.loads(stored), msgspec.msgpack.decode(pack_payload(stored)), decode_payload(stored)):
        assert repr(found) == repr({"v": value})


@pytest.mark.parametrize("payload", [{"n": 2**64}, {"n": -(2**63) - 1}, {"a": [{"b": 10**30}]}], ids=str)
def test_integers_beyond_64_bits_are_refused(payload):
    with pytest.raises(InvalidInput, match=r"is an integer beyond -2\^63 to 2\^64-1; write it as a string"):
        encode_payload(payload)


def test_a_refusal_names_the_path():
    with pytest.raises(InvalidInput) as refusal:
        encode_payload({"x": 1, "a": [1, {"b": 2**70}]}, "vectors[3].metadata")
    assert refusal.value.details == {
        "field": "vectors[3].metadata.a[1].b",
        "value": str(2**70),
        "limit": str(2**64 - 1),
    }


def test_payloads_nest_up_to_the_limit():
    encode_payload(nested(PAYLOAD_DEPTH_MAX))
    encode_payload({"many": [[] for _ in range(PAYLOAD_DEPTH_MAX * 2)]})
    for levels in (PAYLOAD_DEPTH_MAX + 1, 900):
        with pytest.raises(InvalidInput, match="nests too deep; at most 128 levels are allowed"):
            encode_payload(nested(levels, inner=[]))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param(b"x", "is of type bytes, which JSON does not have", id="bytes"),
        pytest.param(datetime(2026, 1, 1, tzinfo=UTC), "is of type datetime", id="timestamp"),
        pytest.param(msgspec.msgpack.Ext(5, b"x"), "is of type Ext", id="ext"),
        pytest.param(float("nan"), "is nan; JSON has no such number", id="nan"),
        pytest.param(float("-inf"), "is -inf", id="infinity"),
        pytest.param({1: 2}, "has a key of type int; keys are strings", id="integer key"),
        pytest.param({None: 2}, "has a key of type NoneType", id="null key"),
        pytest.param({b"k": 2}, "has a key of type bytes", id="bytes key"),
    ],
)
def test_values_that_json_lacks_are_refused(value, says):
    with pytest.raises(InvalidInput, match=says):
        check_payload({"a": [value]}, "metadata")


@pytest.mark.parametrize(
    "value",
    [
        b"x", datetime(2026, 1, 1, tzinfo=UTC), msgspec.msgpack.Ext(5, b"x"), float("nan"), float("inf"),
        {1: 2}, {True: 1}, {None: 2}, {b"k": 2}, {1.5: 2},
    ],
    ids=lambda value: f"{type(value).__name__} {value}"[:20],
)  # fmt: skip
def test_messagepack_that_json_would_not_give_back_is_refused(value):
    with pytest.raises(InvalidInput, match=r"metadata\.a\[0\]"):
        check_unpacked({"a": [value]}, "metadata")


@pytest.mark.parametrize("value", [2**64 - 1, 1.0, -0.0, 1e300, "\0\ud7ff", None, [[{}]]], ids=repr)
def test_messagepack_that_json_gives_back_is_taken(value):
    check_unpacked({"a": [value]}, "metadata")


@pytest.mark.parametrize("text", [b'{"a":[%s]}' % (b"[]," * 20_000 + b"[]"), b'{"a":"%s"}' % (b"[" * 60_000)])
def test_wide_payloads_are_taken_without_a_step_for_each_value(text, monkeypatch):
    monkeypatch.setattr(payloads, "check_payload", None)
    encode_payload(json.loads(text))


def test_objects_and_arrays_count_alike_as_levels():
    value: object = 1
    for _ in range(PAYLOAD_DEPTH_MAX // 2):
        value = {"[": [value]}
    encode_payload(value)
    with pytest.raises(InvalidInput, match="nests too deep"):
        encode_payload({"a": value})


def test_a_long_key_is_quoted_in_part():
    with pytest.raises(InvalidInput) as refusal:
        check_payload({"k" * 100_000: [b""]}, "metadata")
    assert len(refusal.value.message) < 200


def test_checking_takes_time_by_the_number_of_values_whatever_the_keys_are():
    """A path is put together for a refusal alone: for each value it would take the square of the size."""
    check_payload({"k" * 1_000_000: [None] * 1_000_000}, "metadata")


def test_payloads_above_64_kib_are_refused():
    encode_payload({"x": "y" * (64 * 1024 - 8)})
    with pytest.raises(TooLarge, match="has 65537 bytes as JSON; at most 65536"):
        encode_payload({"x": "y" * (64 * 1024 - 7)})


def test_stored_integers_beyond_64_bits_come_as_text_in_messagepack():
    stored = as_text({"wei": 2**64, "deep": [{"n": -(10**40)}], "ok": 2**64 - 1})
    expected = {"wei": str(2**64), "deep": [{"n": str(-(10**40))}], "ok": 2**64 - 1}
    assert msgspec.msgpack.decode(pack_payload(stored)) == expected
    assert decode_payload(stored)["wei"] == 2**64


def test_answers_in_messagepack_show_integers_beyond_64_bits_as_text():
    answer = encode({"findings": [{"n": 2**64}]}, Media.MSGPACK)
    assert msgspec.msgpack.decode(answer) == {"findings": [{"n": str(2**64)}]}


@pytest.mark.parametrize("levels", [150, 900, 990, 1000, 5000, 30_000])
def test_stored_payloads_of_any_depth_are_answered_and_searched(levels):
    text = b'{"tenant":"a","x":' + b"[" * levels + b'"]\\"["' + b"]" * levels + b"}"
    assert decode_payload(text)["tenant"] == "a"
    assert msgspec.msgpack.decode(pack_payload(text))["tenant"] == "a"


def test_levels_that_are_too_deep_come_as_json_text():
    text = b'{"x":' + b"[" * 30_000 + b'"]"' + b"]" * 30_000 + b',"y":[1]}'
    found = decode_payload(text)
    assert found["y"] == [1]
    inner, depth = found["x"], 1
    while isinstance(inner, list):
        [inner] = inner
        depth += 1
    assert depth == PAYLOAD_DEPTH_MAX
    assert inner == "[" * (30_001 - PAYLOAD_DEPTH_MAX) + '"]"' + "]" * (30_001 - PAYLOAD_DEPTH_MAX)


STORED = {
    "a": 1,
    "place": {"city": "Oslo", "at": {"lat": 1.0, "lon": -0.0}},
    "place.zip": "0150",
    "tags": [None],
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(["a"], {"a": 1}, id="a field"),
        pytest.param(["none", "a.b", "tags.0", "place.none.x"], {}, id="absent fields"),
        pytest.param(["place.at.lat"], {"place": {"at": {"lat": 1.0}}}, id="a nested field"),
        pytest.param(
            ["place.at.lat", "place.city"], {"place": {"at": {"lat": 1.0}, "city": "Oslo"}}, id="one object"
        ),
        pytest.param(["place.city", "place"], {"place": STORED["place"]}, id="a part, then the whole"),
        pytest.param(["place", "place.city"], {"place": STORED["place"]}, id="the whole, then a part"),
        pytest.param(["place.zip"], {"place.zip": "0150"}, id="a key spelled with dots"),
        pytest.param(["tags", "tags"], {"tags": [None]}, id="a field twice"),
    ],
)
def test_a_choice_of_fields_keeps_these_in_their_objects(fields, expected):
    choice = PayloadChoice.parse(fields)
    assert json.loads(choice.apply(encode_payload(STORED))) == expected
    assert choice.apply(None) is None
    assert not choice.is_empty


@pytest.mark.parametrize("everything", [True, None])
def test_the_whole_payload_is_chosen_with_true_and_null(everything):
    assert PayloadChoice.parse(everything).apply(b'{"a": 1}') == b'{"a": 1}'


def test_no_payload_is_chosen_with_false():
    assert PayloadChoice.parse(False).is_empty
    assert PayloadChoice.parse(False).apply(b"{}") is None


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        ("a", WrongShape, "with_metadata is str; it must be true, false or a list of fields"),
        (1, WrongShape, "with_metadata is int"),
        (["a", 1], WrongShape, r"with_metadata\[1\] is int; it must be a string"),
        ([], InvalidInput, "with_metadata is an empty list"),
        (["a"] * (CHOSEN_FIELDS_MAX + 1), TooLarge, "with_metadata has 65 fields; at most 64 are allowed"),
        (["x" * (FIELD_CHARACTERS_MAX + 1)], InvalidInput, r"with_metadata\[0\] has 1025 characters"),
    ],
)  # fmt: skip
def test_a_choice_that_is_none_is_refused(value, kind, says):
    with pytest.raises(kind, match=says):
        PayloadChoice.parse(value)


@pytest.mark.parametrize("levels", [PAYLOAD_DEPTH_MAX, 5000])
def test_a_choice_reads_payloads_of_any_depth(levels):
    text = b'{"tenant":"a","x":' + b"[" * levels + b"]" * levels + b"}"
    assert PayloadChoice.parse(["tenant"]).apply(text) == b'{"tenant":"a"}'
    assert PayloadChoice.parse(["x"]).apply(text).startswith(b'{"x":[[')
