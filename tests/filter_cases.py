"""Strategies of payloads, ids and filters: few names and values, so that fields are often there and equal.

`PAYLOADS` has payloads as clients send them, `FILTERS` documents that the parser accepts, over all operators.
`tests/filter_oracle.py` says which points match.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st

from tests.filter_oracle import instant_of, is_datetime

Strategy: TypeAlias = st.SearchStrategy[Any]

NAMES: Final[Strategy] = st.sampled_from(["a", "b", "c"])
FIELDS: Final[Strategy] = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
"""Fields of filters, nested ones with dots among them."""
POINT_IDS: Final[Strategy] = st.sampled_from(
    ["a", "b", "ab", "aB", "A", "1", "true", "é", "\uffff", "\U0001f600", "2024-05-01T10:00:00Z"]
)

INSTANTS: Final = [
    "2024-05-01T10:00:00Z",
    "2024-05-01T12:00:00+02:00",
    "2024-05-01t09:30:00.000000-00:30",
    "2024-05-01 10:00:00.0000009z",
    "2024-05-01T10:00:00.000001Z",
    "2024-05-01T10:00:00.5Z",
    "1969-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.9999999Z",
]
"""Datetimes: the first four are one instant."""
NO_INSTANTS: Final = [
    "2024-05-01",
    "2024-05-01T10:00:00",
    "2016-12-31T23:59:60Z",
    "0001-01-01T00:00:00+01:00",
    "2024-05-01T10:00:00+0200",
    "2024-05-01T10:00:00.0000000000Z",
]
"""Strings that look like datetimes."""
NUMBERS: Final[Strategy] = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]),
    st.sampled_from([-0.0, 0.5, 1.0, 2.0, 2.0**53, 2.0**63, 2.0**64, -(2.0**63), 5e-324, 1e308]),
)
STRINGS: Final[Strategy] = st.one_of(
    st.sampled_from(["", "a", "b", "ab", "1", "é", "\uffff", "\U0001f600"]),
    st.sampled_from([*INSTANTS, *NO_INSTANTS]),
)
SCALARS: Final[Strategy] = st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS)
"""Scalars of payloads."""

LATS: Final[Strategy] = st.sampled_from([-90, -89.5, -0.0, 0, 1e-5, 10.7, 59.9, 90.0])
LONS: Final[Strategy] = st.sampled_from([-180, -179.5, -1e-5, 0, 10.7, 59.9, 179.5, 180.0])
PLACES: Final[Strategy] = st.one_of(
    st.fixed_dictionaries({"lat": LATS, "lon": LONS}),
    st.fixed_dictionaries({"lat": LATS, "lon": LONS}, optional={"a": SCALARS}),
    st.fixed_dictionaries({"lat": st.sampled_from([0, 90.5, True, "59.9", None, 2**64 - 1]), "lon": LONS}),
    st.fixed_dictionaries({"lat": LATS}, optional={"lon": st.sampled_from([0, -180.5, False, [10.7]])}),
)
"""Objects of `lat` and `lon`, most of them places."""
VALUES: Final[Strategy] = st.recursive(
    st.one_of(SCALARS, PLACES),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
"""Values of fields, arrays and objects among them."""
PAYLOADS: Final[Strategy] = st.one_of(
    st.none(), st.dictionaries(st.one_of(NAMES, st.sampled_from(["a.b", "a.a"])), VALUES, max_size=4)
)

DATETIMES: Final[Strategy] = st.sampled_from(INSTANTS).map(lambda text: {"datetime": text})
ORDERABLE: Final[Strategy] = st.one_of(NUMBERS, STRINGS, DATETIMES)
COMPARABLE: Final[Strategy] = st.one_of(SCALARS, DATETIMES)
RADII_M: Final[Strategy] = st.sampled_from([1, 2.5, 1_000.0, 60_000, 5_000_000, 20_015_115])
"""Radii that no two of the places have between them: at an edge, rounding decides."""
CIRCLES: Final[Strategy] = st.fixed_dictionaries(
    {"center": st.fixed_dictionaries({"lat": LATS, "lon": LONS}), "radius_m": RADII_M}
)
BOXES: Final[Strategy] = st.builds(
    lambda lats, west, east: {
        "box": {"south": min(lats), "west": west, "north": max(lats), "east": east},
    },
    st.tuples(LATS, LATS),
    LONS,
    LONS,
)


def key_of(bound: Any) -> Any:
    """Return a bound as a value that has the order of its kind."""
    return instant_of(bound["datetime"]) if is_datetime(bound) else bound


def bounds_of(*kinds: Strategy) -> Strategy:
    """Return the strategy of operands of `$between`: two values of one kind, the lower one first."""
    return st.one_of([st.tuples(kind, kind).map(lambda two: sorted(two, key=key_of)) for kind in kinds])


OPERANDS: Final[dict[str, Strategy]] = {
    "$eq": COMPARABLE,
    "$ne": COMPARABLE,
    "$in": st.lists(COMPARABLE, max_size=3),
    "$nin": st.lists(COMPARABLE, max_size=3),
    "$gt": ORDERABLE,
    "$gte": ORDERABLE,
    "$lt": ORDERABLE,
    "$lte": ORDERABLE,
    "$between": bounds_of(NUMBERS, STRINGS, DATETIMES),
    "$exists": st.booleans(),
    "$empty": st.booleans(),
    "$size": st.integers(0, 4),
    "$startsWith": st.one_of(STRINGS, st.just("2024-05-01")),
    "$contains": COMPARABLE,
    "$within": st.one_of(CIRCLES, BOXES),
}
"""The operands of each operator of a field."""
ID_OPERANDS: Final[dict[str, Strategy]] = {
    **dict.fromkeys(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"], POINT_IDS),
    **dict.fromkeys(["$in", "$nin"], st.lists(POINT_IDS, max_size=3)),
    "$between": bounds_of(POINT_IDS),
    "$startsWith": st.one_of(POINT_IDS, st.just("")),
}
"""The operands of each operator of `$id`."""


def one_of(operands: Mapping[str, Strategy]) -> Strategy:
    """Return the strategy of an object with one of the operators."""
    return st.one_of([st.fixed_dictionaries({name: operand}) for name, operand in operands.items()])


def some_of(operands: Mapping[str, Strategy]) -> Strategy:
    """Return the strategy of an object with one or more of the operators."""
    return st.lists(one_of(operands), min_size=2, max_size=3).map(
        lambda parts: {name: operand for part in parts for name, operand in part.items()}
    )


FIELD_CONDITIONS: Final[Strategy] = st.dictionaries(
    FIELDS, st.one_of(COMPARABLE, one_of(OPERANDS), some_of(OPERANDS)), min_size=1, max_size=2
)
ID_CONDITIONS: Final[Strategy] = st.fixed_dictionaries(
    {"$id": st.one_of(POINT_IDS, one_of(ID_OPERANDS), some_of(ID_OPERANDS))}
)


@st.composite
def conditions(draw: st.DrawFn) -> Any:
    """Draw a filter without `$and`, `$or` and `$not`, one in four on the id.

    A function of its own keeps the text of `FILTERS` short: hypothesis warns about long ones.
    """
    return draw(st.one_of(FIELD_CONDITIONS, FIELD_CONDITIONS, FIELD_CONDITIONS, ID_CONDITIONS))


FILTERS: Final[Strategy] = st.one_of(
    st.just({}),
    st.recursive(
        conditions(),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
            inner.map(lambda part: {"$not": part}),
            st.tuples(conditions(), inner).map(lambda pair: {**pair[0], "$not": pair[1]}),
        ),
        max_leaves=8,
    ),
)
"""Documents that the parser accepts, the empty one among them."""
