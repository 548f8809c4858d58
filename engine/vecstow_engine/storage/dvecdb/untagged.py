"""Metadata that d-vecDB 0.2.1 stored without types: every way in which its bytes can be read as a map.

A map is a u64 count, then that many keys (u64 length, UTF-8) each with a value:

    null            nothing
    true, false     1 byte
    number          8 bytes: u64, i64 or f64, which the bytes do not tell
    string          u64 length, UTF-8
    array           u64 count, items
    object          u64 count, keys with values

A reading must come out exactly where the record ends, which leaves one reading nearly always. The search goes
depth first, with the readings first that the same field had in other records, and counts its steps.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["null", "boolean", "number", "string", "array", "object", "zero"]
"""`zero` is 8 bytes of zeros: 0, 0.0, "", [] or {}, all the same until the field's other values are known."""

WIDE_KINDS: Final[frozenset[Kind]] = frozenset({"number", "string", "array", "object", "zero"})
ANY_KIND: Final[tuple[Kind, ...]] = ("string", "number", "boolean", "object", "array", "null")
"""In the order of trying: a string proves itself by its text; null needs no byte, so it is the last resort."""

DEPTH_MAX: Final = 32
READINGS_MAX: Final = 16
STEPS_BASE: Final = 4_000
STEPS_AFTER_FIRST: Final = 500
"""Steps spent on looking for a second reading when there is one."""
STEPS_BYTES: Final = 256
"""Bytes of text whose check counts as one more step."""

_U64: Final = struct.Struct("<Q")
_KEY_BYTES_MAX: Final = 1024
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Step(NamedTuple):
    """One value of a reading, linked to the one before it; a shared tail costs nothing."""

    key: str | None
    """None for an array's item."""
    path: str
    """Keys from the top, joined by dots; `[]` stands for any item of an array."""
    kind: Kind
    value: Any
    before: Step | None


class _Frame(NamedTuple):
    """A map or an array that is still open."""

    is_map: bool
    remaining: int
    path: str
    depth: int
    outer: _Frame | None


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the bytes: the last step, and where it ends."""

    last: Step | None
    end: int

    def steps(self) -> list[Step]:
        """The values in file order."""
        steps = []
        step = self.last
        while step is not None:
            steps.append(step)
            step = step.before
        return steps[::-1]


class Known:
    """What other records say about fields. This one knows nothing; `fields.Fields` learns."""

    def kinds(self, path: str) -> tuple[Kind, ...]:
        """The kinds to try for a field, the likeliest first; none for a field that cannot be there."""
        return ANY_KIND


class Search:
    """All readings of `raw` that end in [end_min, end_max]; `truncated` says that the steps ran out."""

    def __init__(self, raw: bytes, end_min: int, end_max: int, *, known: Known, lenient: bool = False) -> None:
        self._raw = raw
        self._end_min = end_min
        self._end_max = end_max
        self._known = known
        self._lenient = lenient
        self._steps = STEPS_BASE + len(raw) // 4
        self.truncated = False

    def run(self) -> list[Reading]:
        """Up to READINGS_MAX readings, in the order of their likelihood field by field."""
        if len(self._raw) < 8:
            return []
        readings: list[Reading] = []
        count = self._word(0)
        if count * 8 > len(self._raw):
            return []
        stack: list[tuple[int, _Frame | None, Step | None]] = [(8, _Frame(True, count, "", 1, None), None)]
        while stack:
            self._steps -= 1
            if self._steps < 0:
                self.truncated = True
                break
            at, frame, step = stack.pop()
            while frame is not None and frame.remaining == 0:
                frame = frame.outer
            if frame is not None:
                self._expand(stack, at, frame, step)
            elif self._end_min <= at <= self._end_max:
                readings.append(Reading(step, at))
                self._steps = min(self._steps, STEPS_AFTER_FIRST)
                if len(readings) == READINGS_MAX:
                    break
        return readings

    def _expand(
        self, stack: list[tuple[int, _Frame | None, Step | None]], at: int, frame: _Frame, step: Step | None
    ) -> None:
        """Push every way to read the next value of `frame`, the likeliest last."""
        is_map, remaining, outer_path, depth, outer = frame
        rest = _Frame(is_map, remaining - 1, outer_path, depth, outer)
        key = None
        path = outer_path + "[]"
        if is_map:
            found = self._key(at)
            if found is None:
                return
            key, at = found
            path = f"{outer_path}.{key}" if outer_path else key
        for kind in reversed(self._candidates(at, path)):
            read = self._value(kind, at, depth)
            if read is None:
                continue
            value, end = read
            inner: _Frame = rest
            if kind == "object" or kind == "array":
                inner = _Frame(kind == "object", value, path, depth + 1, rest)
            stack.append((end, inner, Step(key, path, kind, value, step)))

    def _candidates(self, at: int, path: str) -> tuple[Kind, ...]:
        kinds = self._known.kinds(path)
        if at + 8 > len(self._raw) or self._word(at) != 0:
            return kinds
        # Eight zeros are one reading, whatever the wide kinds would make of them.
        wide = [kind in WIDE_KINDS for kind in kinds]
        if True not in wide:
            return kinds
        first = wide.index(True)
        narrow = [kind for kind in kinds if kind not in WIDE_KINDS]
        narrow.insert(sum(not is_wide for is_wide in wide[:first]), "zero")
        return tuple(narrow)

    def _value(self, kind: Kind, at: int, depth: int) -> tuple[Any, int] | None:
        """The value and its end, or None when the bytes at `at` cannot be of that kind."""
        if kind == "null":
            return None, at
        if kind == "boolean":
            byte = self._raw[at : at + 1]
            return (byte == b"\1", at + 1) if byte in (b"\0", b"\1") and byte else None
        if at + 8 > len(self._raw):
            return None
        word, at = self._word(at), at + 8
        if kind == "number":
            return word, at
        if kind == "zero":
            return (0, at) if word == 0 else None
        left = len(self._raw) - at
        if word == 0 or word > left + 16:
            return None
        if kind == "string":
            text = self._text(at, word)
            return None if text is None else (text, at + word)
        fits = word * 8 <= left if kind == "object" else True
        return (word, at) if fits and depth < DEPTH_MAX else None

    def _key(self, at: int) -> tuple[str, int] | None:
        if at + 8 > len(self._raw):
            return None
        length = self._word(at)
        if length > (len(self._raw) if self._lenient else _KEY_BYTES_MAX) or (length == 0 and not self._lenient):
            return None
        key = self._text(at + 8, length)
        if key is None or (not self._lenient and not key.isprintable()):
            return None
        return key, at + 8 + length

    def _text(self, at: int, length: int) -> str | None:
        raw = self._raw[at : at + length]
        self._steps -= length // STEPS_BYTES
        if len(raw) < length or (not self._lenient and _CONTROL.search(raw)):
            return None
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return None

    def _word(self, at: int) -> int:
        word: int = _U64.unpack_from(self._raw, at)[0]
        return word
