"""The filter language: each operator's matches, and the tree that an index reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.filters import And, Condition, Filter, Not, Or
from vecstow_engine.model.geo import Box, Circle

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
    "none": [],
    "bare": {},
    "zero": 0,
    "shut": False,
    "at": "2024-05-01T12:00:00+02:00",
    "days": ["2024-05-01T10:00:00Z", "2024-05-01"],
    "day": "2024-05-01",
    "site": {"lat": 59.9, "lon": 10.7, "name": "Oslo"},
    "sites": [{"lat": 59.9, "lon": 10.7}],
    "$id": "payload",
}
POINT_ID = "docs/a.md"
TEN = {"datetime": "2024-05-01T10:00:00Z"}
"""The instant of the field `at`, with another offset."""
LATER = {"datetime": "2024-05-01T10:00:00.000001Z"}
NEAR = {"$within": {"center": {"lat": 59.91, "lon": 10.75}, "radius_m": 3_100}}
"""A circle whose centre is 3,005 m from the field `site`."""


def matches(document: object) -> bool:
    return parse_filter(document).matches(POINT, POINT_ID)


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
    *(
        pytest.param({field: {"$empty": True}}, id=f"{field} is empty")
        for field in ("nowhere", "gone", "empty", "none", "bare", "site.street")
    ),
    *(
        pytest.param({field: {"$empty": False}}, id=f"{field} is not empty")
        for field in ("zero", "shut", "tenant", "tags", "site")
    ),
    pytest.param({"tags": {"$size": 3}}, id="an array of three"),
    pytest.param({"none": {"$size": 0}}, id="an array of none"),
    pytest.param({"year": {"$between": [2024, 2024.0]}}, id="$between has both its bounds"),
    pytest.param({"tenant": {"$between": ["acme", "b"]}}, id="$between of strings"),
    pytest.param({"at": {"$between": [TEN, TEN]}}, id="$between of datetimes"),
    pytest.param({"year": {"$between": [2000, 2030], "$ne": 2025}}, id="$between next to an operator"),
    pytest.param({"tenant": {"$startsWith": "ac"}}, id="a prefix"),
    pytest.param({"tenant": {"$startsWith": "acme"}}, id="the whole string is a prefix"),
    pytest.param({"empty": {"$startsWith": ""}}, id="each string has the empty prefix"),
    pytest.param({"$id": "docs/a.md"}, id="the id"),
    pytest.param({"$id": {"$in": ["x", "docs/a.md"], "$startsWith": "docs/"}}, id="operators of the id"),
    pytest.param({"$id": {"$nin": ["x"], "$ne": "y"}}, id="another id"),
    pytest.param({"$id": {"$gt": "docs/", "$lte": "docs/a.md"}}, id="a range of ids"),
    pytest.param({"$id": {"$between": ["docs/a.md", "e"]}}, id="$between of ids"),
    pytest.param({"$not": {"$id": "x"}, "tenant": "acme"}, id="the id under $not"),
    pytest.param({"at": TEN}, id="one instant with another offset"),
    pytest.param(
        {"at": {"$eq": TEN, "$in": [1, TEN], "$gte": TEN, "$lt": LATER}}, id="operators of datetimes"
    ),
    pytest.param({"at": {"$ne": LATER, "$nin": [LATER, "2024-05-01T10:00:00Z"]}}, id="another instant"),
    pytest.param({"at": {"$gt": "2024-05-01T11"}}, id="a string is compared with a datetime as text"),
    pytest.param({"days": {"$contains": TEN}}, id="an array holds a datetime"),
    pytest.param({"day": {"$ne": TEN, "$nin": [TEN]}}, id="a date alone is no datetime"),
    pytest.param({"nowhere": {"$ne": TEN, "$nin": [TEN]}}, id="absence is no datetime"),
    pytest.param({"site": NEAR}, id="a place in a circle"),
    pytest.param(
        {"site": {"$within": {"box": {"south": 59.9, "west": 10.7, "north": 60, "east": 11}}}},
        id="a place at the corner of a box",
    ),
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
    *(
        pytest.param({field: {"$empty": True}}, id=f"{field} is not empty")
        for field in ("zero", "shut", "tenant", "tags", "site")
    ),
    pytest.param({"gone": {"$empty": False}}, id="null is empty"),
    pytest.param({"tags": {"$size": 2}}, id="an array of another size"),
    pytest.param({"tenant": {"$size": 4}}, id="a string has no size"),
    pytest.param({"a": {"$size": 1}}, id="an object has no size"),
    pytest.param({"nowhere": {"$size": 0}}, id="absence has no size"),
    pytest.param({"year": {"$between": [2000, 2023]}}, id="above $between"),
    pytest.param({"year": {"$between": ["2000", "3000"]}}, id="a number between strings"),
    pytest.param({"tenant": {"$startsWith": "me"}}, id="a part that is no prefix"),
    pytest.param({"tenant": {"$startsWith": "AC"}}, id="a prefix in another case"),
    pytest.param({"tags": {"$startsWith": "a"}}, id="$startsWith does not look into arrays"),
    pytest.param({"year": {"$startsWith": ""}}, id="a number has no prefix"),
    pytest.param({"$id": "payload"}, id="a field of the payload with the name $id"),
    pytest.param({"$id": {"$startsWith": "a.md"}}, id="an id with another prefix"),
    pytest.param({"$id": {"$ne": "docs/a.md"}}, id="the same id"),
    pytest.param({"at": LATER}, id="a microsecond later"),
    pytest.param({"at": {"$lt": TEN}}, id="an instant is not before itself"),
    pytest.param({"at": {"$eq": "2024-05-01T10:00:00Z"}}, id="strings of one instant are two strings"),
    pytest.param({"at": {"$contains": TEN}}, id="a datetime holds nothing"),
    pytest.param({"day": {"$gt": {"datetime": "2000-01-01T00:00:00Z"}}}, id="a date alone has no instant"),
    pytest.param({"year": {"$gt": TEN}}, id="a number is not compared with a datetime"),
    pytest.param({"days": TEN}, id="equality of a datetime never matches an array"),
    pytest.param({"days": {"$in": [TEN]}}, id="$in of a datetime never matches an array"),
    pytest.param({"days": {"$gt": {"datetime": "2000-01-01T00:00:00Z"}}}, id="an array has no instant"),
    pytest.param({"sites": NEAR}, id="an array of places is no place"),
    pytest.param({"place": NEAR}, id="an object without lat and lon is no place"),
    pytest.param({"nowhere": NEAR}, id="absence is nowhere"),
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


def test_the_tree_has_values_that_an_index_can_compare():
    """Datetimes are instants in UTC, regions are values, and the id is a field of its own."""
    document = {
        "$id": {"$in": ["x", "y"]},
        "at": {"$between": [{"datetime": "2024-05-01T12:00:00+02:00"}, LATER]},
        "site": {"$within": {"center": {"lat": 1, "lon": 2}, "radius_m": 3}},
        "area": {"$within": {"box": {"south": -1, "west": 170, "north": 1.5, "east": -170}}},
    }
    root = parse_filter(document).root
    assert root == And(
        (
            Condition("$id", "$in", ("x", "y")),
            Condition("at", "$gte", datetime(2024, 5, 1, 10, tzinfo=UTC)),
            Condition("at", "$lte", datetime(2024, 5, 1, 10, 0, 0, 1, tzinfo=UTC)),
            Condition("site", "$within", Circle(1.0, 2.0, 3.0)),
            Condition("area", "$within", Box(-1.0, 170.0, 1.5, -170.0)),
        )
    )
    assert root.parts[1].operand.tzinfo is UTC


def test_a_condition_with_an_unknown_operator_has_no_test():
    """Such a condition can only be made in code: the parser refuses the operator first."""
    with pytest.raises(ValueError, match=r"unknown operator '\$near'"):
        Filter(Condition("year", "$near", 1))
