"""The filter language: each operator's matches, the refusals, and the answers of an independent oracle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecstow_engine.model.errors import InvalidInput, WrongShape
from vecstow_engine.model.filter_operands import IN_VALUES_MAX
from vecstow_engine.model.filter_parser import (
    CONDITIONS_MAX,
    DEPTH_MAX,
    FIELD_CHARACTERS_MAX,
    parse_filter,
)
from vecstow_engine.model.filters import And, Condition, Filter, Not, Or

POINT: dict[str, Any] = {
    "tenant": "acme",
    "year": 2024,
    "score": 1.0,
    "open": True,
    "gone": None,
    "empty": "",
    "tags": ["a", 1, None],
    "matrix": [[1]],
    "place": {"city": "Oslo", "at": {"lat": 59.9}},
    "place.city": "literal",
    "a": {"b.c": 1},
}


def matches(document: object, payload: dict[str, Any] | None = None) -> bool:
    return parse_filter(document).matches(POINT if payload is None else payload, "a")


MATCHING = [
    pytest.param({}, id="an empty filter"),
    pytest.param({"tenant": "acme"}, id="equal strings"),
    pytest.param({"tenant": "acme", "year": 2024}, id="two fields are both needed"),
    pytest.param({"year": 2024.0}, id="integer and float of one value"),
    pytest.param({"score": 1}, id="float and integer of one value"),
    pytest.param({"open": True}, id="a truth value"),
    pytest.param({"open": {"$ne": 1}}, id="true is not 1"),
    pytest.param({"score": {"$ne": True}}, id="1 is not true"),
    pytest.param({"score": {"$nin": [True]}}, id="1 is not in a list of true"),
    pytest.param({"open": {"$nin": [1, 1.0]}}, id="true is not in a list of 1"),
    pytest.param({"open": {"$in": [1, True]}}, id="true is in a list of 1 and true"),
    pytest.param({"gone": None}, id="null equals an explicit null"),
    pytest.param({"gone": {"$exists": True}}, id="an explicit null exists"),
    pytest.param({"nowhere": {"$exists": False}}, id="an absent field does not exist"),
    pytest.param({"nowhere": {"$ne": None}}, id="absence is not null"),
    pytest.param({"nowhere": {"$ne": "x"}}, id="$ne matches absence"),
    pytest.param({"nowhere": {"$nin": ["x", None]}}, id="$nin matches absence"),
    pytest.param({"$not": {"nowhere": "x"}}, id="$not matches absence"),
    pytest.param({"tenant": {"$nin": []}}, id="an empty $nin"),
    pytest.param({"tenant": {"$in": ["x", "acme"]}}, id="$in"),
    pytest.param({"gone": {"$in": [None]}}, id="null in a list"),
    pytest.param({"year": {"$in": [2024.0]}}, id="$in takes numbers as numbers"),
    pytest.param({"year": {"$gt": 2023.5, "$lte": 2024}}, id="a range"),
    pytest.param({"tenant": {"$gte": "acme", "$lt": "b"}}, id="a range of strings"),
    pytest.param({"tenant": {"$lt": "\U0001f600"}}, id="strings are ordered by code point"),
    pytest.param({"tags": {"$contains": "a"}}, id="an array holds a string"),
    pytest.param({"tags": {"$contains": 1.0}}, id="an array holds a number"),
    pytest.param({"tags": {"$contains": None}}, id="an array holds null"),
    pytest.param({"tags": {"$ne": "a"}}, id="an array equals none of its elements"),
    pytest.param({"place.at.lat": {"$gt": 59}}, id="dots reach into objects"),
    pytest.param({"place.city": "literal"}, id="a literal key wins over a path"),
    pytest.param({"place": {"$exists": True}}, id="an object exists"),
    pytest.param({"place": {"$nin": ["Oslo"]}}, id="an object is in no list"),
    pytest.param({"tenant.x": {"$exists": False}}, id="a string has no fields"),
    pytest.param({"tags.0": {"$exists": False}}, id="dots do not index arrays"),
    pytest.param({"a.b.c": {"$exists": False}}, id="only a top-level key may hold dots"),
    pytest.param({"$or": [{"tenant": "x"}, {"year": 2024}]}, id="$or"),
    pytest.param({"$and": [{"tenant": "acme"}, {"year": 2024}]}, id="$and"),
    pytest.param({"tenant": "acme", "$or": [{"year": 1}, {"open": True}]}, id="fields beside $or"),
    pytest.param({"$not": {"tenant": "acme", "year": 1}}, id="$not of two fields negates both together"),
]


@pytest.mark.parametrize("document", MATCHING)
def test_matches(document):
    assert matches(document)
    assert document == {} or not matches({"$not": document})


NOT_MATCHING = [
    pytest.param({"tenant": "Acme"}, id="another case"),
    pytest.param({"tenant": "acme", "year": 1}, id="one of two fields differs"),
    pytest.param({"open": 1}, id="1 does not equal true"),
    pytest.param({"score": True}, id="true does not equal 1"),
    pytest.param({"open": {"$in": [1]}}, id="true is not in a list of 1"),
    pytest.param({"score": {"$in": [True]}}, id="1 is not in a list of true"),
    pytest.param({"open": {"$gt": 0}}, id="a truth value has no order"),
    pytest.param({"gone": {"$lt": 1}}, id="null has no order"),
    pytest.param({"nowhere": None}, id="absence does not equal null"),
    pytest.param({"nowhere": {"$in": [None]}}, id="absence is not in a list of null"),
    pytest.param({"nowhere": {"$gt": ""}}, id="absence has no order"),
    pytest.param({"nowhere": {"$contains": None}}, id="absence holds nothing"),
    pytest.param({"nowhere": {"$exists": True}}, id="absence does not exist"),
    pytest.param({"gone": {"$exists": False}}, id="an explicit null is not absent"),
    pytest.param({"gone": {"$ne": None}}, id="an explicit null is null"),
    pytest.param({"year": {"$gt": "2000"}}, id="a number is not compared with a string"),
    pytest.param({"tenant": {"$gt": 1}}, id="a string is not compared with a number"),
    pytest.param({"year": {"$gt": 2024}}, id="$gt leaves out its bound"),
    pytest.param({"year": {"$lt": 2024}}, id="$lt leaves out its bound"),
    pytest.param({"tags": "a"}, id="equality never matches an array"),
    pytest.param({"tags": {"$in": ["a"]}}, id="$in never matches an array"),
    pytest.param({"tags": {"$contains": True}}, id="an array of 1 does not hold true"),
    pytest.param({"tenant": {"$contains": "acm"}}, id="$contains does not look into strings"),
    pytest.param({"place": {"$contains": "city"}}, id="$contains does not look into objects"),
    pytest.param({"matrix": {"$contains": 1}}, id="$contains looks one level deep"),
    pytest.param({"tenant": {"$in": []}}, id="an empty $in"),
    pytest.param({"year": {"$gte": 2024, "$lt": 2024}}, id="all operators of a field must hold"),
    pytest.param({"$or": [{"tenant": "x"}, {"year": 1}]}, id="no part of $or"),
    pytest.param({"$and": [{"tenant": "acme"}, {"year": 1}]}, id="one part of $and"),
]


@pytest.mark.parametrize("document", NOT_MATCHING)
def test_does_not_match(document):
    assert not matches(document)
    assert matches({"$not": document})


def test_a_point_without_payload_has_no_field():
    """None and an empty payload are the same to a filter."""
    absent = parse_filter({"tenant": {"$exists": False}})
    assert absent.matches(None, "a")
    assert absent.matches({}, "a")
    assert not parse_filter({"tenant": "acme"}).matches(None, "a")
    assert parse_filter({}).matches(None, "a")


def nested(levels: int) -> dict[str, Any]:
    """A filter that is `levels` deep, counting its innermost part."""
    document: dict[str, Any] = {"a": 1}
    for _ in range(levels - 1):
        document = {"$not": document}
    return document


def conditions(count: int) -> dict[str, Any]:
    return {"$or": [{"a": number} for number in range(count)]}


REFUSED = [
    pytest.param(None, "filter is null", "field", id="null"),
    pytest.param([{"a": 1}], "filter is a list of 1 values", "field", id="a list"),
    pytest.param("a = 1", "filter is 'a = 1'", "field", id="a string"),
    pytest.param({1: "x"}, "filter is 1: a field's name is a string", "quote", id="a number as a field"),
    pytest.param({"x" * (FIELD_CHARACTERS_MAX + 1): 1}, "at most 1024", "shorten", id="a long field"),
    pytest.param({"a": [1]}, "filter.a is a list of 1 values", "$in", id="a list as a value"),
    pytest.param({"a": {"b": 1}}, "filter.a is an object of 1 keys", '"a.key"', id="an object as a value"),
    pytest.param({"a": {}}, "filter.a is an object of 0 keys", "dots", id="an empty object as a value"),
    pytest.param({"a": {"$gt": 1, "b": 2}}, "filter.a is", "$and", id="operators and fields mixed"),
    pytest.param({"a": {1: 2}}, "filter.a is an object", "dots", id="an object with a number as a key"),
    pytest.param({"a": {"$regex": "x"}}, "filter.a.$regex: unknown", "$contains", id="an unknown operator"),
    pytest.param({"a": {"$GT": 1}}, "filter.a.$GT: unknown", "$gt", id="an operator in capitals"),
    pytest.param({"a": {"$not": {"$gt": 1}}}, "filter.a.$not: unknown", '{"$not"', id="$not under a field"),
    pytest.param({"a": {"$or": [1, 2]}}, "filter.a.$or: unknown", '{"$or"', id="$or under a field"),
    pytest.param({"$gt": 1}, "filter.$gt: unknown", "under a field", id="an operator without a field"),
    pytest.param({"$nor": []}, "filter.$nor: unknown", "$and, $or, $not", id="an unknown logical operator"),
    pytest.param({"$and": []}, "filter.$and is a list of 0 values", "write", id="an empty $and"),
    pytest.param({"$or": []}, "filter.$or is a list of 0 values", "write", id="an empty $or"),
    pytest.param({"$or": {"a": 1}}, "filter.$or is an object", '{"$or": [', id="$or of an object"),
    pytest.param({"$or": [{"a": 1}, 7]}, "filter.$or[1] is 7", "field", id="a number in $or"),
    pytest.param({"$and": [{}]}, "filter.$and[0] is an object of 0", "field", id="an empty part of $and"),
    pytest.param({"$not": {}}, "filter.$not is an object of 0", "field", id="an empty $not"),
    pytest.param({"$not": [{"a": 1}]}, "filter.$not is a list", "field", id="$not of a list"),
    pytest.param({"a": {"$eq": [1]}}, "filter.a.$eq is a list", "$contains", id="$eq of a list"),
    pytest.param({"a": {"$eq": {"b": 1}}}, "filter.a.$eq is an object", "dots", id="$eq of an object"),
    pytest.param({"a": {"$ne": [1]}}, "filter.a.$ne is a list", "$in", id="$ne of a list"),
    pytest.param({"a": {"$in": "x"}}, "filter.a.$in is 'x'", "[value", id="$in of a string"),
    pytest.param({"a": {"$in": [1, [2]]}}, "filter.a.$in[1] is a list", "$in", id="a list in $in"),
    pytest.param({"a": {"$nin": {}}}, "filter.a.$nin is an object", "[value", id="$nin of an object"),
    pytest.param({"a": {"$in": [0] * (IN_VALUES_MAX + 1)}}, "more than 1000", "split", id="a long $in"),
    pytest.param({"a": {"$nin": [0] * (IN_VALUES_MAX + 1)}}, "more than 1000", "split", id="a long $nin"),
    pytest.param({"a": {"$gt": True}}, "filter.a.$gt is true", "$eq", id="an order of truth values"),
    pytest.param({"a": {"$gte": None}}, "filter.a.$gte is null", "$eq", id="an order of null"),
    pytest.param({"a": {"$lt": [1]}}, "filter.a.$lt is a list", "$eq", id="an order of lists"),
    pytest.param({"a": {"$lte": {}}}, "filter.a.$lte is an object", "$eq", id="an order of objects"),
    pytest.param({"a": {"$lt": float("nan")}}, "filter.a.$lt is nan", "payload", id="an order of NaN"),
    pytest.param({"a": float("inf")}, "filter.a is inf", "payload", id="infinity"),
    pytest.param({"a": {"$exists": 1}}, "filter.a.$exists is 1", "true", id="$exists of a number"),
    pytest.param({"a": {"$exists": None}}, "filter.a.$exists is null", "true", id="$exists of null"),
    pytest.param({"a": {"$contains": [1]}}, "filter.a.$contains is a list", "$in", id="$contains of a list"),
    pytest.param({"a": b"x"}, "filter.a is bytes", "$in", id="bytes"),
    pytest.param({"a": {"$exists": 10**5000}}, "filter.a.$exists is int", "true", id="an endless number"),
    pytest.param(nested(DEPTH_MAX + 1), "deeper than 16", "flatten", id="too deep"),
    pytest.param(nested(5_000), "deeper than 16", "flatten", id="far too deep"),
    pytest.param(conditions(CONDITIONS_MAX + 1), "more than 256", "$in", id="too many conditions"),
    pytest.param({"a": "x" * 10_000 + "end", "b": []}, "filter.b is a list", "$in", id="after a good field"),
]


@pytest.mark.parametrize(("document", "message", "hint"), REFUSED)
def test_is_refused_with_its_path_and_a_hint(document, message, hint):
    with pytest.raises(InvalidInput) as refusal:
        parse_filter(document)
    assert message in refusal.value.message
    assert hint in (refusal.value.hint or "")
    assert len(refusal.value.message) < 600
    assert str(refusal.value.details["path"]).startswith("filter")
    assert not isinstance(refusal.value, WrongShape), "a bad filter is a 400, never a 422"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(nested(DEPTH_MAX), id="as deep as allowed"),
        pytest.param(conditions(CONDITIONS_MAX), id="as many conditions as allowed"),
        pytest.param({"a": {"$in": list(range(IN_VALUES_MAX))}}, id="as many values as allowed"),
        pytest.param({"x" * FIELD_CHARACTERS_MAX: 1}, id="a field as long as allowed"),
    ],
)
def test_limits_are_inclusive(document):
    assert isinstance(parse_filter(document), Filter)


def test_the_tree_can_be_looked_at():
    """An index reads the conditions from the tree, so its form is part of the interface."""
    document = {"a": {"$gt": 1, "$in": [2, 3]}, "$or": [{"b": "x"}, {"$not": {"c": None}}]}
    assert parse_filter(document).root == And(
        (
            Condition("a", "$gt", 1),
            Condition("a", "$in", (2, 3)),
            Or((Condition("b", "$eq", "x"), Not(Condition("c", "$eq", None)))),
        )
    )


# The oracle: one point, one filter, evaluated straight from the documentation with nothing decided ahead.

NOTHING = object()


def find(payload: dict[str, Any], field: str) -> Any:
    if field in payload:
        return payload[field]
    here: Any = payload
    for step in field.split("."):
        if not isinstance(here, dict) or step not in here:
            return NOTHING
        here = here[step]
    return here


def kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else type(value).__name__


def same(left: Any, right: Any) -> bool:
    return kind_of(left) == kind_of(right) and kind_of(left) not in ("list", "dict") and left == right


def in_order(value: Any, name: str, bound: Any) -> bool:
    if kind_of(value) != kind_of(bound):
        return False
    if kind_of(bound) == "str":
        value, bound = [ord(c) for c in value], [ord(c) for c in bound]
    return bool(
        {"$gt": value > bound, "$gte": value >= bound, "$lt": value < bound, "$lte": value <= bound}[name]
    )


def holds(payload: dict[str, Any], field: str, name: str, operand: Any) -> bool:
    value = find(payload, field)
    if name == "$exists":
        return (value is not NOTHING) == operand
    if name == "$contains":
        return isinstance(value, list) and any(same(item, operand) for item in value)
    if name in ("$eq", "$ne"):
        return same(value, operand) == (name == "$eq")
    if name in ("$in", "$nin"):
        return any(same(value, item) for item in operand) == (name == "$in")
    return in_order(value, name, operand)


def oracle(document: dict[str, Any], payload: dict[str, Any]) -> bool:
    results = []
    for key, value in document.items():
        if key == "$and":
            results.append(all(oracle(part, payload) for part in value))
        elif key == "$or":
            results.append(any(oracle(part, payload) for part in value))
        elif key == "$not":
            results.append(not oracle(value, payload))
        elif isinstance(value, dict):
            results.extend(holds(payload, key, name, operand) for name, operand in value.items())
        else:
            results.append(holds(payload, key, "$eq", value))
    return all(results)


# Few names and few values, so that fields are often there and often equal.
NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, 2**53, 2**53 + 1]),
    st.sampled_from([-0.0, 0.5, 1.0, 2.0, float(2**53)]),
    st.sampled_from(["", "a", "b", "ab", "\uffff", "\U0001f600"]),
)
ORDERABLE = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
PAYLOADS = st.dictionaries(
    st.one_of(NAMES, st.sampled_from(["a.b", "a.a"])),
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
        max_leaves=6,
    ),
    max_size=4,
)
OPERATORS = st.fixed_dictionaries(
    {},
    optional={
        "$eq": SCALARS,
        "$ne": SCALARS,
        "$in": st.lists(SCALARS, max_size=3),
        "$nin": st.lists(SCALARS, max_size=3),
        "$gt": ORDERABLE,
        "$gte": ORDERABLE,
        "$lt": ORDERABLE,
        "$lte": ORDERABLE,
        "$exists": st.booleans(),
        "$contains": SCALARS,
    },
)
ONE_OPERATOR = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne", "$contains"]), SCALARS),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=3)),
    st.tuples(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ORDERABLE),
    st.tuples(st.just("$exists"), st.booleans()),
).map(lambda pair: {pair[0]: pair[1]})
FIELDS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
LEAVES = st.dictionaries(
    FIELDS, st.one_of(SCALARS, ONE_OPERATOR, OPERATORS.filter(bool)), min_size=1, max_size=2
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
        st.tuples(LEAVES, inner).map(lambda pair: {**pair[0], "$not": pair[1]}),
    ),
    max_leaves=8,
)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(document=DOCUMENTS, payload=PAYLOADS)
def test_agrees_with_the_oracle(document, payload):
    """A compiled filter answers as the documentation's rules do, applied one by one."""
    assert parse_filter(document).matches(payload, "a") == oracle(document, payload)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(operators=ONE_OPERATOR, payload=PAYLOADS, field=FIELDS)
def test_each_operator_agrees_with_the_oracle(operators, payload, field):
    """One condition at a time, where no other condition can hide a wrong answer."""
    document = {field: operators}
    assert parse_filter(document).matches(payload, "a") == oracle(document, payload)


JSON = st.recursive(
    st.one_of(SCALARS, st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(NAMES, st.sampled_from(["$and", "$or", "$not", "$gt", "$in", "$exists", "$x", ""])),
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


def test_a_condition_with_an_unknown_operator_has_no_test():
    """Such a condition can only be made in code: the parser refuses the operator first."""
    with pytest.raises(ValueError, match=r"unknown operator '\$near'"):
        Filter(Condition("year", "$near", 1))
