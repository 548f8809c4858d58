"""Places on the Earth and the regions that contain them, for `$within`.

A place is a latitude and a longitude in degrees (WGS 84). The Earth is a sphere with the mean radius of
WGS 84. A region tests one place, or arrays of places; both give the same answer for the same place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

EARTH_RADIUS_M: Final = 6_371_008.8
RADIUS_M_MAX: Final = 20_015_115
"""The limit of a circle's radius: half of the Earth's circumference, rounded up."""
LAT_MAX: Final = 90
LON_MAX: Final = 180

_RADIAN: Final = math.pi / 180
_BEYOND: Final = 2.0
"""A value above every haversine, which is at most 1."""
_EDGE: Final = 1e-9
"""The relative distance from the limit within which `math` decides for arrays too. Haversines of `math` and
numpy may differ by about 1e-15."""
_NUMBERS: Final = frozenset({int, float})


@dataclass(frozen=True, slots=True)
class Circle:
    """The places at most `radius_m` metres from a centre, along the surface of the Earth."""

    lat: float
    lon: float
    radius_m: float
    _limit: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        half_angle = self.radius_m / (2 * EARTH_RADIUS_M)
        limit = math.sin(half_angle) ** 2 if half_angle < math.pi / 2 else _BEYOND
        object.__setattr__(self, "_limit", limit)

    def contains(self, lat: float, lon: float) -> bool:
        """Whether a place lies within; NaN is no place."""
        return bool(self._haversine(lat, lon, math.sin, math.cos) <= self._limit)

    def mask(self, lats: NDArray[np.float64], lons: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which places lie within, shape (n,), from degrees of shape (n,); NaN is no place."""
        haversines = self._haversine(lats, lons, np.sin, np.cos)
        inside: NDArray[np.bool_] = haversines <= self._limit
        for at in np.flatnonzero(np.abs(haversines - self._limit) <= _EDGE * self._limit).tolist():
            inside[at] = self.contains(float(lats[at]), float(lons[at]))
        return inside

    def _haversine(self, lat: Any, lon: Any, sin: Callable[[Any], Any], cos: Callable[[Any], Any]) -> Any:
        """Return the haversine of the angle between the centre and a place, 0 to 1."""
        north = sin((lat - self.lat) * (_RADIAN / 2))
        east = sin((lon - self.lon) * (_RADIAN / 2))
        return north * north + cos(lat * _RADIAN) * math.cos(self.lat * _RADIAN) * east * east


@dataclass(frozen=True, slots=True)
class Box:
    """The places between two parallels and two meridians, edges included.

    A box whose `west` is above its `east` crosses the antimeridian.
    """

    south: float
    west: float
    north: float
    east: float

    def contains(self, lat: float, lon: float) -> bool:
        """Whether a place lies within; NaN is no place."""
        return bool(self._test(lat, lon))

    def mask(self, lats: NDArray[np.float64], lons: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which places lie within, shape (n,), from degrees of shape (n,); NaN is no place."""
        inside: NDArray[np.bool_] = self._test(lats, lons)
        return inside

    def _test(self, lat: Any, lon: Any) -> Any:
        # 180 and -180 are one meridian.
        spanned = self._spans(lon) | ((abs(lon) == LON_MAX) & self._spans(-lon))
        return (self.south <= lat) & (lat <= self.north) & spanned

    def _spans(self, lon: Any) -> Any:
        if self.west > self.east:
            return (self.west <= lon) | (lon <= self.east)
        return (self.west <= lon) & (lon <= self.east)


Region: TypeAlias = Circle | Box


def coordinates(value: object) -> tuple[float, float] | None:
    """Return latitude and longitude of a payload's value, or None for a value that is no place.

    A place is an object with the numbers `lat` (-90 to 90) and `lon` (-180 to 180); other keys are ignored.
    """
    if not isinstance(value, dict):
        return None
    lat: Any = value.get("lat")
    lon: Any = value.get("lon")
    if type(lat) not in _NUMBERS or type(lon) not in _NUMBERS:
        return None
    if not (-LAT_MAX <= lat <= LAT_MAX and -LON_MAX <= lon <= LON_MAX):
        return None
    return float(lat), float(lon)
