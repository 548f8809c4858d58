"""Regions on the Earth: one place and arrays of places, edges, poles and the antimeridian."""

import math

import numpy as np
import pytest

from tests.filter_oracle import metres_between
from vecstow_engine.model.geo import EARTH_RADIUS_M, RADIUS_M_MAX, Box, Circle, coordinates

DEGREE_M = math.pi * EARTH_RADIUS_M / 180
"""The length of one degree of a meridian: 111,195 m."""

INSIDE = [
    pytest.param(Circle(0, 0, DEGREE_M + 1e-6), 1, 0, id="a degree north"),
    pytest.param(Circle(0, 0, DEGREE_M + 1e-6), 0, -1, id="a degree west on the equator"),
    pytest.param(Circle(60, 10, 0), 60, 10, id="its own centre, with radius 0"),
    pytest.param(Circle(60, 0, DEGREE_M / 2 + 1), 60, 1, id="half as far on the parallel of 60 degrees"),
    pytest.param(Circle(0, 179.5, DEGREE_M + 1e-6), 0, -179.5, id="across the antimeridian"),
    pytest.param(Circle(89.5, 0, DEGREE_M + 1e-6), 89.5, 180, id="across the pole"),
    pytest.param(Circle(90, 0, 1), 90, 135, id="the pole with another longitude"),
    pytest.param(Circle(12, 34, RADIUS_M_MAX), -12, -146, id="the antipode"),
    pytest.param(Box(59, 10, 60, 11), 59, 11, id="a corner"),
    pytest.param(Box(59, 10, 59, 10), 59, 10, id="a box of one place"),
    pytest.param(Box(-1, 170, 1, -170), 0, 175, id="west of the antimeridian"),
    pytest.param(Box(-1, 170, 1, -170), 0, -175, id="east of the antimeridian"),
    pytest.param(Box(-1, 170, 1, 180), 0, -180, id="the antimeridian as -180"),
    pytest.param(Box(-1, -180, 1, -170), 0, 180, id="the antimeridian as 180"),
    pytest.param(Box(-90, -180, 90, 180), 90, 0, id="the Earth"),
]
OUTSIDE = [
    pytest.param(Circle(0, 0, DEGREE_M - 1e-6), 1, 0, id="a degree north of a smaller circle"),
    pytest.param(Circle(60, 10, 0), 60, 10.000001, id="next to a circle of radius 0"),
    pytest.param(Circle(60, 0, DEGREE_M / 2 - 1), 60, 1, id="on the parallel of 60 degrees"),
    pytest.param(Circle(12, 34, RADIUS_M_MAX - 1_000), -12, -146, id="the antipode of a smaller circle"),
    pytest.param(Circle(0, 0, RADIUS_M_MAX), math.nan, math.nan, id="nowhere, in the largest circle"),
    pytest.param(Box(59, 10, 60, 11), 60.000001, 10, id="north"),
    pytest.param(Box(59, 10, 60, 11), 59, 9.999999, id="west"),
    pytest.param(Box(-1, 170, 1, -170), 0, 0, id="the long way round"),
    pytest.param(Box(-1, 170, 1, 179), 0, 180, id="the antimeridian of a box before it"),
    pytest.param(Box(-90, -180, 90, 180), math.nan, math.nan, id="nowhere, in the largest box"),
]


def arrays(*values: float) -> list[np.ndarray]:
    return [np.array([value], np.float64) for value in values]


@pytest.mark.parametrize(("region", "lat", "lon"), INSIDE)
def test_contains(region, lat, lon):
    assert region.contains(lat, lon) is True
    assert region.mask(*arrays(lat, lon)).tolist() == [True]


@pytest.mark.parametrize(("region", "lat", "lon"), OUTSIDE)
def test_does_not_contain(region, lat, lon):
    assert region.contains(lat, lon) is False
    assert region.mask(*arrays(lat, lon)).tolist() == [False]


def exact_sine(angles: np.ndarray) -> np.ndarray:
    return np.array([math.sin(angle) for angle in angles.tolist()])


@pytest.mark.parametrize(
    "sine",
    [
        pytest.param(np.sin, id="of numpy"),
        pytest.param(lambda angles: np.nextafter(exact_sine(angles), 2), id="a rounding above that of math"),
        pytest.param(lambda angles: np.nextafter(exact_sine(angles), -2), id="a rounding below that of math"),
    ],
)
def test_a_place_on_the_edge_has_one_answer(monkeypatch, sine):
    """The sines of numpy depend on its version and the processor, so this test brings its own too."""
    monkeypatch.setattr(np, "sin", sine)
    rng = np.random.default_rng(1)
    answers = []
    for _ in range(500):
        lat, lon, other_lat, other_lon = rng.uniform(-80, 80, 4).tolist()
        radius_m = metres_between(lat, lon, other_lat, other_lon)
        circle = Circle(other_lat, other_lon, radius_m + rng.integers(-2, 3) * math.ulp(radius_m))
        answers.append(circle.contains(lat, lon))
        assert circle.mask(*arrays(lat, lon)).tolist() == answers[-1:]
    assert 100 < sum(answers) < 400, "the places lie on both sides of the edge"


def test_arrays_have_the_answers_of_their_places_in_order():
    rng = np.random.default_rng(1)
    lats = np.append(rng.uniform(-90, 90, 500), [math.nan, 59, 59])
    lons = np.append(rng.uniform(-180, 180, 500), [math.nan, 10, 10])
    circle = Circle(59, 10, metres_between(59, 10, 20, 10))
    mask = circle.mask(lats, lons)
    assert mask.dtype == np.bool_
    places = zip(lats.tolist(), lons.tolist(), strict=True)
    assert mask.tolist() == [circle.contains(*place) for place in places]
    assert circle.mask(lats[::-2], lons[::-2]).tolist() == mask[::-2].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_a_circle_agrees_with_distances_in_space(seed):
    """The oracle takes the angle between two vectors, which has other roundings."""
    rng = np.random.default_rng(seed)
    lats, lons = rng.uniform(-90, 90, 300), rng.uniform(-180, 180, 300)
    circle = Circle(rng.uniform(-90, 90), rng.uniform(-180, 180), rng.uniform(1e6, 1.5e7))
    places = zip(lats.tolist(), lons.tolist(), strict=True)
    distances = [metres_between(lat, lon, circle.lat, circle.lon) for lat, lon in places]
    assert circle.mask(lats, lons).tolist() == [distance <= circle.radius_m for distance in distances]


@pytest.mark.parametrize("seed", range(5))
def test_arrays_of_places_in_a_box_have_the_answers_of_one_place(seed):
    rng = np.random.default_rng(seed)
    south, north = sorted(rng.integers(-3, 4, 2).tolist())
    box = Box(south, float(rng.integers(-4, 5) * 45), north, float(rng.integers(-4, 5) * 45))
    lats, lons = rng.integers(-3, 4, 500).astype(np.float64), rng.integers(-4, 5, 500) * 45.0
    wanted = [box.contains(*place) for place in zip(lats.tolist(), lons.tolist(), strict=True)]
    assert box.mask(lats, lons).tolist() == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        pytest.param({"lat": 59.9, "lon": 10.7}, (59.9, 10.7), id="two numbers"),
        pytest.param({"lat": -90, "lon": 180, "name": "pole"}, (-90.0, 180.0), id="integers and another key"),
        pytest.param({"lat": 59.9}, None, id="no longitude"),
        pytest.param({"lat": 90.1, "lon": 0}, None, id="beyond the pole"),
        pytest.param({"lat": 0, "lon": -180.1}, None, id="beyond the antimeridian"),
        pytest.param({"lat": 10**400, "lon": 0}, None, id="beyond a float"),
        pytest.param({"lat": math.nan, "lon": 0}, None, id="NaN"),
        pytest.param({"lat": True, "lon": 0}, None, id="a truth value"),
        pytest.param({"lat": "59.9", "lon": 10.7}, None, id="a string"),
        pytest.param({"lat": None, "lon": 10.7}, None, id="null"),
        pytest.param([59.9, 10.7], None, id="a list"),
        pytest.param("59.9,10.7", None, id="a text"),
        pytest.param(None, None, id="nothing"),
    ],
)
def test_a_place_is_an_object_of_two_numbers_in_range(value, wanted):
    assert coordinates(value) == wanted
    assert wanted is None or all(type(number) is float for number in coordinates(value))
