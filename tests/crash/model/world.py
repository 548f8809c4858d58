"""The content that must be there, kept in dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.crash.ledger import Points
from tests.crash.rest import Stored
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric, VectorType

DIMENSION = 4
LEVELS = 255
GREATEST = 127
VALUES = LEVELS**2
FLAT_ROWS_MAX = 12
"""For these examples: more rows than that make a graph."""
NAMES = ("a", "b", "c")
IDS = [f"p{number}" for number in range(24)]
CONFIG = IndexConfig(max_connections=6, ef_construction=60)


@dataclass
class Kept:
    """One collection."""

    metric: DistanceMetric
    vector_type: VectorType
    points: Points = field(default_factory=dict)
    history: dict[int, Points] = field(default_factory=lambda: {0: {}})
    """The content after each sequence of the collection's log."""
    applied: int = 0
    """The highest sequence that a checkpoint is known to have."""

    def became(self, points: Points, sequence: int) -> None:
        """A write, or what moved points, went up to `sequence`."""
        for number in range(max(self.history) + 1, sequence + 1):
            self.history[number] = points
        self.points = points

    def fell_back(self, applied: int) -> None:
        """Its log is lost: what is newer than this checkpoint is gone."""
        assert applied >= self.applied, f"a checkpoint had {self.applied}, and {applied} is left"
        self.history = {number: points for number, points in self.history.items() if number <= applied}
        self.points = self.history[applied]


@dataclass
class Rested:
    """A dropped collection, or a backup of one."""

    path: str
    name: str
    kept: Kept


def vector_of(value: int) -> NDArray[np.float32]:
    """Whole numbers up to 127, which every vector type holds exactly."""
    low, high = value % LEVELS, value // LEVELS
    numbers = [GREATEST, low - GREATEST, high - GREATEST, (low * 7 + high) % LEVELS - GREATEST]
    return np.array(numbers, np.float32)


def stored(value: int) -> Stored:
    """The point that is written for a value."""
    payload = None if value % 5 == 0 else {"value": value, "even": value % 2 == 0}
    return vector_of(value).astype("<f4").tobytes(), payload


def with_even(points: Points, *, even: bool) -> Points:
    """Those whose payload says so."""
    return {i: point for i, point in points.items() if point[1] is not None and point[1].get("even") is even}
