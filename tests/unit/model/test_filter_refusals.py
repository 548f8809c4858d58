"""The refusals of filters: each names its path, its value and what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from vecstow_engine.model.errors import InvalidInput, WrongShape
from vecstow_engine.model.filter_operands import IN_VALUES_MAX, SIZE_MAX
from vecstow_engine.model.filter_parser import CONDITIONS_MAX, DEPTH_MAX, parse_filter
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.geo import RADIUS_M_MAX
from vecstow_engine.model.payloads import FIELD_CHARACTERS_MAX

TEN = {"datetime": "2024-05-01T10:00:00Z"}
EARLIER = {"datetime": "2024-05-01T11:00:00+02:00"}


def circle(lat: object, lon: object, radius_m: object) -> dict[str, Any]:
    return {"a": {"$within": {"center": {"lat": lat, "lon": lon}, "radius_m": radius_m}}}


def box(south: object, west: object, north: object, east: object) -> dict[str, Any]:
    return {"a": {"$within": {"box": {"south": south, "west": west, "north": north, "east": east}}}}


def nested(levels: int) -> dict[str, Any]:
    """A filter that is `levels` deep, counting its innermost part."""
    document: dict[str, Any] = {"a": 1}
    for _ in range(levels - 1):
        document = {"$not": document}
    return document


def conditions(count: int) -> dict[str, Any]:
    return {"$or": [{"a": number} for number in range(count)]}


def ranges(count: int) -> dict[str, Any]:
    return {"$or": [{"a": {"$between": [0, 1]}}] * count}


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
    pytest.param(ranges(CONDITIONS_MAX // 2 + 1), "more than 256", "$in", id="$between is two conditions"),
    pytest.param({"a": "x" * 10_000 + "end", "b": []}, "filter.b is a list", "$in", id="after a good field"),
    pytest.param({"a": {"$empty": 1}}, "filter.a.$empty is 1", "without content", id="$empty of a number"),
    pytest.param({"a": {"$empty": None}}, "filter.a.$empty is null", "true", id="$empty of null"),
    pytest.param({"a": {"$size": -1}}, "filter.a.$size is -1", "elements", id="a size below zero"),
    pytest.param({"a": {"$size": SIZE_MAX + 1}}, "2^63-1", "elements", id="a size beyond 63 bits"),
    pytest.param({"a": {"$size": 1.0}}, "filter.a.$size is 1.0", "elements", id="a size with a point"),
    pytest.param({"a": {"$size": True}}, "filter.a.$size is true", "elements", id="a size of true"),
    pytest.param(
        {"a": {"$size": {"$gt": 1}}}, "filter.a.$size is an object", "elements", id="a range of sizes"
    ),
    pytest.param({"a": {"$startsWith": 1}}, "filter.a.$startsWith is 1", "quote", id="a number as a prefix"),
    pytest.param({"a": {"$startsWith": ["x"]}}, "filter.a.$startsWith is a list", "quote", id="prefixes"),
    pytest.param({"a": {"$startsWith": TEN}}, "is an object", "quote", id="a datetime as a prefix"),
    pytest.param({"a": {"$between": 1}}, "filter.a.$between is 1", "[low, high]", id="$between of a number"),
    pytest.param({"a": {"$between": [1]}}, "two bounds", "[low, high]", id="one bound"),
    pytest.param({"a": {"$between": [1, 2, 3]}}, "two bounds", "[low, high]", id="three bounds"),
    pytest.param(
        {"a": {"$between": [2, 1]}}, "low bound 2 is above the high bound 1", "swap", id="low above high"
    ),
    pytest.param(
        {"a": {"$between": ["b", "a"]}}, "'b' is above the high bound 'a'", "swap", id="strings swapped"
    ),
    pytest.param(
        {"a": {"$between": [TEN, EARLIER]}},
        "2024-05-01T10:00:00+00:00 is above the high bound 2024-05-01T09:00:00+00:00",
        "swap",
        id="datetimes swapped",
    ),
    pytest.param({"a": {"$between": [1, "b"]}}, "1 and 'b' are of two kinds", "two strings", id="two kinds"),
    pytest.param(
        {"a": {"$between": ["b", TEN]}}, "of two kinds", "two datetimes", id="a string and a datetime"
    ),
    pytest.param({"a": {"$between": [1, None]}}, "filter.a.$between[1] is null", "$eq", id="a bound of null"),
    pytest.param({"a": {"$between": [True, 2]}}, "filter.a.$between[0] is true", "$eq", id="a bound of true"),
    pytest.param(
        {"$between": [1, 2]}, "filter.$between: unknown", "under a field", id="$between without a field"
    ),
    pytest.param(
        {"a": {"datetime": "2024-05-01"}}, "filter.a.datetime is '2024-05-01'", "10:00:00Z", id="a date"
    ),
    pytest.param(
        {"a": {"$gt": {"datetime": 1}}}, "filter.a.$gt.datetime is 1", "offset", id="seconds since 1970"
    ),
    pytest.param(
        {"a": {"$in": [1, {"datetime": "2016-12-31T23:59:60Z"}]}},
        "filter.a.$in[1].datetime is '2016-12-31T23:59:60Z'",
        "offset",
        id="a leap second",
    ),
    pytest.param(
        {"a": {"$eq": {"datetime": "2024-05-01T10:00:00Z", "zone": "UTC"}}},
        "filter.a.$eq is an object of 2 keys",
        '{"datetime": "2024-05-01T10:00:00Z"}',
        id="a datetime with another key",
    ),
    pytest.param({"$id": 1}, "filter.$id is 1: an id is a string", '"$id"', id="a number as an id"),
    pytest.param({"$id": None}, "filter.$id is null", '"$id"', id="null as an id"),
    pytest.param({"$id": ["x"]}, "filter.$id is a list", '"$id"', id="a list of ids"),
    pytest.param({"$id": TEN}, "filter.$id is an object", '"$id"', id="a datetime as an id"),
    pytest.param({"$id": {"a": 1}}, "filter.$id is an object", '"$id"', id="an object as an id"),
    pytest.param({"$id": {"$in": ["x", 1]}}, "filter.$id.$in[1] is 1", '"$id"', id="a number among ids"),
    pytest.param({"$id": {"$gt": 1}}, "filter.$id.$gt is 1", '"$id"', id="an id above a number"),
    pytest.param(
        {"$id": {"$between": [1, 2]}}, "filter.$id.$between[0] is 1", '"$id"', id="ids between numbers"
    ),
    pytest.param({"$id": {"$between": ["b", "a"]}}, "above the high bound", "swap", id="ids swapped"),
    pytest.param({"$id": {"$in": ["x"] * (IN_VALUES_MAX + 1)}}, "more than 1000", "split", id="many ids"),
    *(
        pytest.param(
            {"$id": {name: True}}, f"filter.$id.{name}: unknown", "$startsWith", id=f"{name} of an id"
        )
        for name in ("$contains", "$exists", "$size", "$empty", "$within")
    ),
    pytest.param({"$id": {"$not": "x"}}, "filter.$id.$not: unknown", '{"$not"', id="$not under an id"),
    pytest.param(
        {"a": {"$within": 5}}, "filter.a.$within is 5", '"radius_m": 1000', id="a number as a region"
    ),
    pytest.param({"a": {"$within": {}}}, "center and radius_m, or box", '"box"', id="an empty region"),
    pytest.param({"a": {"$within": {"center": {}}}}, "center and radius_m", '"radius_m"', id="no radius"),
    pytest.param(
        {"a": {"$within": circle(1, 2, 3)["a"]["$within"] | {"box": {}}}},
        "filter.a.$within is an object of 3 keys",
        '"box"',
        id="a circle and a box",
    ),
    pytest.param(
        {"a": {"$within": {"center": {"lat": 1, "lng": 2}, "radius_m": 3}}},
        "filter.a.$within.center is an object of 2 keys",
        '"lon"',
        id="lng",
    ),
    pytest.param(
        circle(90.5, 2, 3), "filter.a.$within.center.lat is 90.5", "-90 to 90", id="a high latitude"
    ),
    pytest.param(
        circle(1, -181, 3), "filter.a.$within.center.lon is -181", "-180 to 180", id="a far longitude"
    ),
    pytest.param(
        circle(True, 2, 3), "filter.a.$within.center.lat is true", "degrees", id="a latitude of true"
    ),
    pytest.param(
        circle(1, "2", 3), "filter.a.$within.center.lon is '2'", "degrees", id="a longitude as text"
    ),
    pytest.param(circle(float("nan"), 2, 3), "center.lat is nan", "degrees", id="a latitude of NaN"),
    pytest.param(circle(1, 2, -1), "filter.a.$within.radius_m is -1", "metres", id="a radius below zero"),
    pytest.param(
        circle(1, 2, RADIUS_M_MAX + 1), "radius_m is 20015116", "metres", id="a radius beyond the Earth"
    ),
    pytest.param(circle(1, 2, 10**5000), "radius_m is int", "metres", id="an endless radius"),
    pytest.param(box(3, 170, 2, -170), "south 3.0 is above north 2.0", "swap", id="south above north"),
    pytest.param(box(0, 0, 91, 1), "filter.a.$within.box.north is 91", "degrees", id="north of the pole"),
    pytest.param(
        {"a": {"$within": {"box": [0, 0, 1, 1]}}}, "filter.a.$within.box is a list", "south", id="a list"
    ),
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
        pytest.param(ranges(CONDITIONS_MAX // 2), id="as many ranges as allowed"),
        pytest.param({"a": {"$size": SIZE_MAX}}, id="a size as large as allowed"),
        pytest.param(circle(-90, 180, RADIUS_M_MAX), id="the Earth as a circle"),
        pytest.param(circle(90.0, -180.0, 0), id="a circle of one place"),
        pytest.param(box(-90, -180, 90, 180), id="the Earth as a box"),
    ],
)
def test_limits_are_inclusive(document):
    assert isinstance(parse_filter(document), Filter)
