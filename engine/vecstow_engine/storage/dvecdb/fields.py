"""What the records of a file say about its metadata fields together, and how a reading becomes values.

A field that was one kind in other records is read as that kind again. Counts are weights: a record that can be
read in two ways speaks for each by half, and since a wrong reading takes values for keys, the right keys are
the ones that come again.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from vecstow_engine.storage.dvecdb.untagged import ANY_KIND, Kind, Known, Reading, Step

FIELDS_MAX: Final = 20_000
"""Fields that are remembered: keys can be data, and memory is bounded."""
SHARE_MIN: Final = 0.01
"""A kind that fewer of a field's values have is not expected again."""
MARGIN: Final = 3.0
"""Natural logarithm of how much likelier the best reading must be to raise no doubt."""
SMALL_MAX: Final = 1 << 53
"""Integers below it are certain: as float64 they would be subnormal, or NaN when negative."""
REAL_MIN, REAL_MAX = 1e-40, 1e40
"""Magnitudes in which 8 bytes look like a float64: a ninth of all, and nearly all floats that people store."""

_PRIOR: Final[dict[Kind, float]] = {"null": -1.5, "boolean": -0.1, "array": -0.3, "object": -0.3}
_U64: Final = struct.Struct("<Q")
_I64: Final = struct.Struct("<q")
_F64: Final = struct.Struct("<d")

Doubtful = Callable[[str, str], None]
"""Told the field and the reason."""


@dataclass(slots=True)
class _Numbers:
    """How a field's numbers look, one by one."""

    small: float = 0
    negative: float = 0
    real: float = 0
    other: float = 0


@dataclass(slots=True)
class Fields(Known):
    """Kinds and numbers of each field, by path."""

    records: float = 0
    _weights: dict[str, dict[Kind, float]] = field(default_factory=dict)
    _numbers: dict[str, _Numbers] = field(default_factory=dict)
    _expected: dict[str, tuple[Kind, ...]] = field(default_factory=dict)

    def kinds(self, path: str) -> tuple[Kind, ...]:
        """The kinds that this field had, the most frequent first; none for a new field."""
        expected = self._expected.get(path)
        if expected is None:
            weights = self._weights.get(path, {})
            least = SHARE_MIN * sum(weights.values())
            ranked = sorted(weights, key=lambda kind: -weights[kind])
            expected = tuple(kind for kind in ranked if weights[kind] >= least)
            self._expected[path] = expected
        return expected

    def learn(self, readings: list[Reading]) -> None:
        """Take in the readings of one record, each with an equal share."""
        share = 1 / len(readings)
        self.records += 1
        for reading in readings:
            for step in _distinct(reading):
                if step.path not in self._weights and len(self._weights) >= FIELDS_MAX:
                    continue
                weights = self._weights.setdefault(step.path, {})
                weights[step.kind] = weights.get(step.kind, 0) + share
                self._expected.pop(step.path, None)
                if step.kind == "number":
                    self._learn_number(step, share)

    def rank(self, readings: list[Reading]) -> list[tuple[float, Reading]]:
        """The readings with their log-likelihood, the likeliest first; equal ones in the order given."""
        scored = [(sum(map(self._likelihood, _distinct(reading))), reading) for reading in readings]
        return sorted(scored, key=lambda pair: -pair[0])

    def values(self, reading: Reading, doubtful: Doubtful) -> dict[str, Any]:
        """The map that a reading stands for; tells what is in doubt."""
        steps = iter(reading.steps())
        return self._map(steps, _top_level_count(reading), doubtful)

    def _likelihood(self, step: Step) -> float:
        prior = _PRIOR.get(step.kind, 0.0)
        if not self.records:
            return prior
        weights = self._weights.get(step.path, {})
        weight = weights.get(step.kind, 0.0)
        if step.kind == "zero":
            weight = sum(weights.values()) - weights.get("null", 0.0) - weights.get("boolean", 0.0)
        return prior + math.log((weight + 0.5) / (self.records + 1))

    def _learn_number(self, step: Step, share: float) -> None:
        numbers = self._numbers.setdefault(step.path, _Numbers())
        look = _look(step.value)
        setattr(numbers, look, getattr(numbers, look) + share)

    def _map(self, steps: Iterator[Step], count: int, doubtful: Doubtful) -> dict[str, Any]:
        found = {}
        for _ in range(count):
            step = next(steps)
            found[step.key or ""] = self._value(step, steps, doubtful)
        return found

    def _value(self, step: Step, steps: Iterator[Step], doubtful: Doubtful) -> Any:
        if step.kind == "object":
            return self._map(steps, step.value, doubtful)
        if step.kind == "array":
            return [self._value(next(steps), steps, doubtful) for _ in range(step.value)]
        if step.kind == "zero":
            return self._zero(step.path, doubtful)
        if step.kind == "number":
            return self._number(step.path, step.value, doubtful)
        return step.value

    def _zero(self, path: str, doubtful: Doubtful) -> Any:
        weights = self._weights.get(path, {})
        kinds = [kind for kind in self.kinds(path) if kind in ("number", "string", "array", "object")]
        if not kinds:
            doubtful(path, 'eight zeros: read as 0, may be "", [] or {}; no other value of the field says which')
            return 0
        kind = max(kinds, key=lambda kind: weights[kind])
        if len(kinds) > 1:
            doubtful(path, f"eight zeros in a field that is {' or '.join(sorted(kinds))}: read as {kind}")
        if kind == "number":
            numbers = self._numbers.get(path, _Numbers())
            return 0.0 if numbers.real > numbers.small + numbers.other else 0
        return {"string": "", "array": [], "object": {}}[kind]

    def _number(self, path: str, word: int, doubtful: Doubtful) -> int | float:
        raw = _U64.pack(word)
        signed: int = _I64.unpack(raw)[0]
        real: float = _F64.unpack(raw)[0]
        look = _look(word)
        if look in ("small", "negative"):
            return signed
        numbers = self._numbers.get(path, _Numbers())
        if look == "other" and numbers.real and math.isfinite(real):
            doubtful(path, "a number that may be a very large integer or a float: the field has both looks")
        if math.isfinite(real) and numbers.real >= numbers.other and (look == "real" or numbers.real):
            return real
        if look == "real" and not numbers.real and not numbers.other:
            return real
        if signed < 0:
            doubtful(path, "an integer that may be negative or above 2**63")
            return signed if numbers.negative else word
        return word


def choose(ranked: list[tuple[float, Reading]]) -> tuple[Reading, bool]:
    """The likeliest reading, and whether it is likely enough to be sure."""
    best = ranked[0]
    return best[1], len(ranked) == 1 or best[0] - ranked[1][0] >= MARGIN


def _look(word: int) -> str:
    """What a number's bytes look like: `small`, `negative`, `real` or `other`."""
    if word < SMALL_MAX:
        return "small"
    if word >= (1 << 64) - SMALL_MAX:
        return "negative"
    real = abs(_F64.unpack(_U64.pack(word))[0])
    return "real" if REAL_MIN < real < REAL_MAX else "other"


def _distinct(reading: Reading) -> Iterator[Step]:
    """The steps, those within arrays once per field and kind: a long array is no stronger evidence."""
    seen = set()
    for step in reading.steps():
        if "[]" in step.path:
            if (step.path, step.kind) in seen:
                continue
            seen.add((step.path, step.kind))
        yield step


def _top_level_count(reading: Reading) -> int:
    raise NotImplementedError
