"""Statistics of the metadata fields in the records of a file, and the values of a reading.

A field is read as the kind that it has in other records. Counts are weights: a record with two readings
counts for each according to its likelihood. A wrong reading takes values for keys, so the right keys are
those that repeat.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from vecstow_engine.importers.dvecdb.untyped_metadata import (
    ODD_LOOKS,
    WIDE_KINDS,
    Interpretation,
    Kind,
    Look,
    ParsedValue,
    look_of,
)

FIELDS_MAX: Final = 20_000
"""The number of fields in memory: keys can be data, and memory is bounded."""
SHARE_MIN: Final = 0.01
"""The share of a field's values below which a kind is not expected again."""
EVIDENCE_MIN: Final = 1.5
"""The records that must show a kind before it is expected, so that a single damaged record does not."""
SHARE_OF_ZEROS: Final = 0.1
"""The expected share of zero or empty values in a field before one is found."""
COST_WITHIN_NEW: Final = 1.5
"""The extra cost of each field in an object or array that is new, added to the cost of that one."""
SETTLED: Final = 10
"""The number of records with a field after which a change of its kind is odd."""
ODD_KEY: Final = 4
"""The oddness of a control character in a new key."""

_ODD_CHANGES: Final[dict[Kind, int]] = {"number": 1, "array": 2, "object": 2}
"""The oddness of a settled field's new kind. Texts prove themselves, and any field may become null."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PRIOR_COSTS: Final[dict[Kind, float]] = {
    "string": 0.0,
    "number": 0.0,
    "zero": 0.0,
    "boolean": 0.3,
    "array": 0.3,
    "object": 0.3,
    "null": 2.5,  # takes no byte, so it fits everywhere
}

Doubtful = Callable[[str, str], None]
"""A callback that gets the field and the reason of a doubt."""


class FieldStatistics:
    """The kinds and the numbers of each field, by path."""

    def __init__(self) -> None:
        self.records = 0
        self._weights: dict[str, dict[Kind, float]] = {}
        self._looks: dict[str, dict[Look, float]] = {}
        self._known: dict[str, tuple[tuple[Kind, float], ...]] = {}
        self._any: dict[str, tuple[tuple[Kind, float], ...]] = {}
        """The results of the two functions below, until the statistics change."""

    def known_kinds(self, path: str) -> tuple[tuple[Kind, float], ...]:
        """Return the kinds that this field had, with their costs; none for a new field."""
        found = self._known.get(path)
        if found is None:
            weights = self._weights.get(path)
            if weights is None:
                return ()
            least = EVIDENCE_MIN if self.records >= SETTLED else SHARE_MIN
            least = max(SHARE_MIN * sum(weights.values()), least)
            likely = {kind for kind in _PRIOR_COSTS if weights.get(kind, 0.0) >= least}
            if likely & WIDE_KINDS:
                likely.add("zero")
            found = tuple((kind, self._cost(path, kind)) for kind in _PRIOR_COSTS if kind in likely)
            self._known[path] = found
        return found

    def any_kinds(self, path: str) -> tuple[tuple[Kind, float], ...]:
        """Return all kinds, with the costs that they have in a field that is new or changes its kind."""
        found = self._any.get(path)
        if found is None:
            found = tuple((kind, prior + self._cost(path, kind)) for kind, prior in _PRIOR_COSTS.items())
            if len(self._any) < FIELDS_MAX:
                self._any[path] = found
        return found

    def learn(self, readings: list[Interpretation]) -> None:
        """Add one record: each of its readings counts according to its likelihood among them."""
        if not readings:
            return
        self.records += 1
        shares = [math.exp(readings[0].cost - reading.cost) for reading in readings]
        for share, reading in zip(shares, readings, strict=True):
            self._learn_reading(reading, share / sum(shares))

    def values(self, reading: Interpretation, doubtful: Doubtful) -> dict[str, Any]:
        """Return the map of a reading; report doubts to `doubtful`."""
        return self._map(iter(reading.steps()), reading.count, doubtful)

    def oddities(self, reading: Interpretation) -> dict[tuple[str, Kind], int]:
        """Return oddities, which data seldom has, with their weights; a reading of damaged bytes has many."""
        found: dict[tuple[str, Kind], int] = {}
        items: dict[str, Kind] = {}
        for step in reading.steps():
            weights = self._weights.get(step.path, {})
            odd = int(step.kind == "number" and look_of(step.value) in ODD_LOOKS)
            if step.key is None:
                first = items.setdefault(step.path, step.kind)
                odd += (step.kind != first and "zero" not in (step.kind, first)) + (step.kind == "null")
            elif not weights and _CONTROL.search(step.key):
                odd += ODD_KEY
            if step.kind in _ODD_CHANGES and weights.get(step.kind, 0.0) < EVIDENCE_MIN:
                odd += _ODD_CHANGES[step.kind] * (sum(weights.values()) >= SETTLED)
            if odd:
                found[step.path, step.kind] = max(odd, found.get((step.path, step.kind), 0))
        return found

    def _cost(self, path: str, kind: Kind) -> float:
        """Return the cost of a field of this kind in a record, or in the object or array that contains it."""
        weights = self._weights.get(path, {})
        weight = weights.get(kind, 0.0)
        if kind == "zero":
            weight += SHARE_OF_ZEROS * sum(weight for wide, weight in weights.items() if wide in WIDE_KINDS)
        outer = path[:-2] if path.endswith("[]") else path.rpartition(".")[0]
        if not outer:
            return -math.log((weight + 0.5) / (self.records + 1)) if self.records else 0.0
        around = self._weights.get(outer, {})
        places = around.get("array", 0.0) + around.get("object", 0.0)
        return -math.log((weight + 0.5) / (places + 1)) + (COST_WITHIN_NEW if not places else 0.0)

    def _learn_reading(self, reading: Interpretation, share: float) -> None:
        counted = set()
        for step in reading.steps():
            if step.path not in self._weights and len(self._weights) >= FIELDS_MAX:
                continue
            if step.kind == "number":
                looks, look = self._looks.setdefault(step.path, {}), look_of(step.value)
                looks[look] = looks.get(look, 0.0) + share
            if (step.path, step.kind) not in counted:  # A long array is no stronger evidence.
                counted.add((step.path, step.kind))
                weights = self._weights.setdefault(step.path, {})
                weights[step.kind] = weights.get(step.kind, 0.0) + share
        self._known.clear()
        self._any.clear()

    def _map(self, steps: Iterator[ParsedValue], count: int, doubtful: Doubtful) -> dict[str, Any]:
        found = {}
        for _ in range(count):
            step = next(steps)
            found[step.key or ""] = self._value(step, steps, doubtful)
        return found

    def _value(self, step: ParsedValue, steps: Iterator[ParsedValue], doubtful: Doubtful) -> Any:
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
        kinds = [kind for kind, _ in self.known_kinds(path) if kind in WIDE_KINDS and kind != "zero"]
        if not kinds:
            doubtful(
                path, 'eight zeros: read as 0, may be "", [] or {}; no other value of the field says which'
            )
            return 0
        kind = max(kinds, key=lambda kind: weights[kind])
        if len(kinds) > 1:
            doubtful(path, f"eight zeros in a field that is {' or '.join(sorted(kinds))}: read as {kind}")
        if kind == "number":
            looks = self._looks[path]
            integers = sum(looks.get(look, 0.0) for look in ("small", "tiny", "other"))
            return 0.0 if looks.get("real", 0.0) > integers else 0
        return {"string": "", "array": [], "object": {}}[kind]

    def _number(self, path: str, word: int, doubtful: Doubtful) -> int | float:
        signed = word - (word >> 63 << 64)
        real: float = struct.unpack("<d", struct.pack("<Q", word))[0]
        look = look_of(word)
        if look in ("small", "negative"):
            return signed
        looks = self._looks.get(path, {})
        if math.isfinite(real) and (look == "real" or "real" in looks):
            if look != "real":
                doubtful(path, "a number that may be a huge integer or a float: the field has both")
            if looks.get("real", 0.0) >= looks.get("other", 0.0):
                return real
        if signed < 0:
            doubtful(path, "an integer that may be negative or above 2**63")
            return signed if "negative" in looks else word
        return word
