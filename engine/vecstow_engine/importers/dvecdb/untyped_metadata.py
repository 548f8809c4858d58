"""Metadata that d-vecDB 0.2.1 stored without types: the most likely readings of its bytes as a map.

A map is a u64 count, then that many keys (u64 length, UTF-8) each with a value:

    null            nothing
    true, false     1 byte
    number          8 bytes: u64, i64 or f64; the bytes do not show which
    string          u64 length, UTF-8
    array           u64 count, items
    object          u64 count, keys with values

A reading must end where the record ends, which nearly always leaves one sensible reading. Each choice has a
cost, the negative logarithm of its likelihood. The cheapest unfinished reading is continued first (Dijkstra's
algorithm), so that readings are found in the order of their cost. The number of steps is limited.
"""

from __future__ import annotations

import heapq
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["null", "boolean", "number", "string", "array", "object", "zero"]
"""`zero` is 8 bytes of zeros: 0, 0.0, "", [] or {}, unclear until other values of the field are known."""

Look: TypeAlias = Literal["small", "negative", "real", "tiny", "other"]
"""The look of a number's 8 bytes; `look_of` defines each."""
Options: TypeAlias = Callable[[str], tuple[tuple[Kind, float], ...]]
"""A function that returns the kinds to try for a field, each with its cost; none for an impossible field."""

WIDE_KINDS: Final[frozenset[Kind]] = frozenset({"number", "string", "array", "object", "zero"})

MARGIN: Final = 3.0
"""The extra cost at which another reading raises no doubt: it is then a twentieth as likely."""
DEPTH_MAX: Final = 32
READINGS_MAX: Final = 16
VISITS_MAX: Final = 2
"""The number of ways to one place that are continued: the cheapest, and one that may raise a doubt."""
STEPS_AFTER_FIRST: Final = 500
TEXT_BYTES_PER_STEP: Final = 256

COST_ODD_TEXT: Final = 6.0
"""The cost of control characters (except tab and newline), or of an empty, long or unprintable key."""
COST_ODD_NUMBER: Final = 2.0
"""The cost of a number that is neither a small integer nor a usual float."""
ODD_LOOKS: Final = ("tiny", "other")
COST_MIXED: Final = 2.0
"""The cost of each further kind among an array's items."""
SHARE_WITHIN_ARRAYS: Final = 0.2
"""The share of its cost at which a key counts in an array's object, where the same keys repeat."""

_NO_KINDS: Final[frozenset[Kind]] = frozenset()
_U64: Final = struct.Struct("<Q")
_F64: Final = struct.Struct("<d")
_SMALL_MAX: Final = 1 << 53
_REAL_MIN, _REAL_MAX = 1e-40, 1e40
_KEY_BYTES_MAX: Final = 1024
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class ParsedValue(NamedTuple):
    """One value of a reading, linked to the previous one: readings share their beginnings."""

    key: str | None
    """None for an array's item."""
    path: str
    """Keys from the top, joined by dots; `[]` stands for any item of an array."""
    kind: Kind
    value: Any
    """A number's 8 bytes as u64; the count of an array or object."""
    before: ParsedValue | None


@dataclass(frozen=True, slots=True)
class Interpretation:
    """One reading of the bytes: its cost, the number of keys at the top, the last value, the end."""

    cost: float
    count: int
    last: ParsedValue | None
    end: int

    def steps(self) -> list[ParsedValue]:
        """Return the values in file order."""
        steps = []
        step = self.last
        while step is not None:
            steps.append(step)
            step = step.before
        return steps[::-1]


class _Frame(NamedTuple):
    """An open map or array."""

    is_map: bool
    remaining: int
    path: str
    depth: int
    items: frozenset[Kind]
    """The kinds of an array's items so far."""
    outer: _Frame | None


_State: TypeAlias = tuple[float, int, int, _Frame | None, ParsedValue | None]
"""Cost, tie-breaker (the youngest first), offset, open maps and arrays, last value."""


class Search:
    """A search for readings of `raw` that end at `end_min` or later, limited to `steps_max` steps.

    Odd texts and numbers have a cost unless `oddness_costs` is false, for known fields.
    """

    def __init__(
        self, raw: bytes, end_min: int, options: Options, steps_max: int, *, oddness_costs: bool = True
    ) -> None:
        self._raw = raw
        self._end_min = end_min
        self._options = options
        self._odd_share = 1.0 if oddness_costs else 0.0
        self._steps = steps_max
        self._age = 0
        self._open: list[_State] = []

    def run(self) -> list[Interpretation]:
        """Return the cheapest reading and those within MARGIN of it, the cheapest first."""
        readings: list[Interpretation] = []
        if len(self._raw) < 8 or self._word(0) * 8 > len(self._raw):
            return readings
        count = self._word(0)
        self._push(0.0, 8, _Frame(True, count, "", 1, _NO_KINDS, None), None)
        visits: dict[tuple[int, _Frame | None], int] = {}
        while self._open and self._steps > 0 and len(readings) < READINGS_MAX:
            self._steps -= 1
            cost, _, at, frame, step = heapq.heappop(self._open)
            if readings and cost > readings[0].cost + MARGIN:
                break
            visits[at, frame] = visits.get((at, frame), 0) + 1
            if visits[at, frame] > VISITS_MAX:
                continue
            while frame is not None and frame.remaining == 0:
                frame = frame.outer
            if frame is not None:
                self._expand(cost, at, frame, step)
            elif at >= self._end_min:
                readings.append(Interpretation(cost, count, step, at))
                self._steps = min(self._steps, STEPS_AFTER_FIRST)
        return readings

    def _push(self, cost: float, at: int, frame: _Frame, step: ParsedValue | None) -> None:
        self._age -= 1
        heapq.heappush(self._open, (cost, self._age, at, frame, step))

    def _expand(self, cost: float, at: int, frame: _Frame, before: ParsedValue | None) -> None:
        """Push every reading of the next value of `frame`."""
        is_map, remaining, outer_path, depth, items, outer = frame
        key = None
        path = outer_path + "[]"
        if is_map:
            found = self._key(at)
            if found is None:
                return
            key, at, odd_cost = found
            cost += odd_cost * self._odd_share
            path = f"{outer_path}.{key}" if outer_path else key
        share = SHARE_WITHIN_ARRAYS if "[]" in outer_path else 1.0
        for kind, kind_cost in self._options(path):
            read = self._value(kind, at, depth)
            if read is None:
                continue
            value, end, odd_cost = read
            total = cost + odd_cost * self._odd_share
            total += kind_cost * share if is_map else _item_cost(kind, kind_cost, items)
            after = items if is_map or kind in items else items | {kind}
            inner = rest = _Frame(is_map, remaining - 1, outer_path, depth, after, outer)
            if kind == "object" or kind == "array":
                inner = _Frame(kind == "object", value, path, depth + 1, _NO_KINDS, rest)
            self._push(total, end, inner, ParsedValue(key, path, kind, value, before))

    def _value(self, kind: Kind, at: int, depth: int) -> tuple[Any, int, float] | None:
        """Return the value, its end and its cost; None when the bytes at `at` cannot be of that kind."""
        if kind == "null":
            return None, at, 0.0
        if kind == "boolean":
            byte = self._raw[at : at + 1]
            return (byte == b"\1", at + 1, 0.0) if byte in (b"\0", b"\1") else None
        left = len(self._raw) - at - 8
        if left < 0:
            return None
        word, at = self._word(at), at + 8
        if (word == 0) != (kind == "zero"):
            return None
        if kind == "number":
            return word, at, COST_ODD_NUMBER * (look_of(word) in ODD_LOOKS)
        if kind == "string":
            return self._text(at, word)
        # An item of an array may be null and take no byte; a key takes eight.
        if kind != "zero" and (depth == DEPTH_MAX or word > (left // 8 if kind == "object" else left + 16)):
            return None
        return word, at, 0.0

    def _key(self, at: int) -> tuple[str, int, float] | None:
        if at + 8 > len(self._raw):
            return None
        length = self._word(at)
        found = self._text(at + 8, length)
        if found is None or (found[2] == 0 and 0 < length <= _KEY_BYTES_MAX and found[0].isprintable()):
            return found
        return found[0], found[1], COST_ODD_TEXT

    def _text(self, at: int, length: int) -> tuple[str, int, float] | None:
        if length > len(self._raw) - at:
            return None
        raw = self._raw[at : at + length]
        self._steps -= length // TEXT_BYTES_PER_STEP
        try:
            return raw.decode(), at + length, COST_ODD_TEXT if _CONTROL.search(raw) else 0.0
        except UnicodeDecodeError:
            return None

    def _word(self, at: int) -> int:
        word: int = _U64.unpack_from(self._raw, at)[0]
        return word


def look_of(word: int) -> Look:
    """Return the look of a number's 8 bytes.

    Integers below 2**53 are certain: as float64 they would be too tiny for any use, or NaN when negative.
    Nearly all magnitudes from 1e-40 to 1e40 are floats that people store; these are a ninth of all bit
    patterns. Positive numbers below that are large integers (times in nanoseconds) or floats, for example
    p-values.
    """
    if word < _SMALL_MAX:
        return "small"
    if word >= (1 << 64) - _SMALL_MAX:
        return "negative"
    real: float = _F64.unpack(_U64.pack(word))[0]
    if _REAL_MIN < abs(real) < _REAL_MAX:
        return "real"
    return "tiny" if 0 < real < 1 else "other"


def _item_cost(kind: Kind, cost: float, others: frozenset[Kind]) -> float:
    """Return the cost of an array's item: nothing when an earlier item is like it."""
    if not others:
        return cost
    alike = (
        kind in others
        or (kind == "zero" and others & WIDE_KINDS)
        or (kind in WIDE_KINDS and "zero" in others)
    )
    return 0.0 if alike else cost + COST_MIXED
