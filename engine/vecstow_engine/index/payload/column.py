"""A column: one field of all payloads by slot. A value is a scalar with a code, an array, or something else.

One thread writes at a time. Readers take no lock: an array grows by replacement, and a slot is written before
it becomes live. The values of a slot that is not live mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from vecstow_engine.index.payload.coders import Codes, KeywordCoder, Mask, coder_of

ABSENT: Final = 0
NULL: Final = 1
VALUE: Final = 2
"""A scalar with a code."""
LIST: Final = 3
"""An array; each element has a code."""
OTHER: Final = 4
"""A scalar without a code, or an object."""
OTHER_LIST: Final = 5
"""An array with elements that have no code."""
ROOM_MIN: Final = 1024
NO_OWNER: Final = -1


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of the arrays of all slots, in no order; replaced as a whole when it grows."""

    codes: Codes
    owners: NDArray[np.int64]
    """The slot of each element; NO_OWNER for one whose slot was used again."""
    used: int
    """The number of entries in use; the rest is room."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The slots that match for certain, and those that may match, shape (slots,); the rest does not match."""

    sure: Mask
    possible: Mask


class Column:
    """The values of one field, for slots 0 to `size`."""

    def __init__(self, kind: str, words: Sequence[str] = ()) -> None:
        self.coder = coder_of(kind, words)
        self.has_dotted_key = False
        """Whether a payload had the field as one key with dots, which hides the path of that name."""
        self.kinds: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.codes: Codes = np.zeros(0, self.coder.dtype)
        self.counts: NDArray[np.uint32] = np.zeros(0, np.uint32)
        """The number of elements of an array; without arrays so far, shape (0,)."""
        self.elements = Elements(np.zeros(0, self.coder.dtype), np.zeros(0, np.int64), 0)
        self._starts: NDArray[np.int64] = np.zeros(0, np.int64)
        """The first element of the array of a slot."""
        self._dead = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the column takes."""
        words = self.coder.bytes if isinstance(self.coder, KeywordCoder) else 0
        elements = self.elements.codes.nbytes + self.elements.owners.nbytes
        lists = self.counts.nbytes + self._starts.nbytes
        return self.kinds.nbytes + self.codes.nbytes + elements + lists + words

    def grow(self, size: int) -> None:
        """Make room for slots below `size`."""
        if size > len(self.kinds):
            # Kinds come last: a reader that sees a slot there finds it in the other arrays.
            self.codes = _grown(self.codes, size)
            if len(self.counts):
                self._starts, self.counts = _grown(self._starts, size), _grown(self.counts, size)
            self.kinds = _grown(self.kinds, size)

    def put(self, slots: Sequence[int], values: Sequence[Any]) -> None:
        """Write the values of slots that are not live; UNSET for an absent field. `grow` comes before."""
        at = np.asarray(slots, np.int64)
        if len(self.counts):
            self._forget_elements(at)
        # Most batches have values of one type, or arrays of values of one type.
        if len(set(map(type, values))) == 1 and self._put_alike(at, values):
            return
        encode = self.coder.encode
        zero = self.coder.dtype.type(0)
        kinds, codes, lists = [], [], []
        for slot, value in zip(slots, values, strict=True):
            code = None
            if value is UNSET:
                kind = ABSENT
            elif value is None:
                kind = NULL
            elif value.__class__ is list:
                kind = LIST
                lists.append((slot, value))
            else:
                code = encode(value)
                kind = OTHER if code is None else VALUE
            kinds.append(kind)
            codes.append(zero if code is None else code)
        self.codes[at] = codes
        self.kinds[at] = kinds
        if lists:
            self._put_lists(lists)

    def _put_alike(self, slots: NDArray[np.int64], values: Sequence[Any]) -> bool:
        """Write values of one Python type; return False, with nothing written, when one has no code."""
        if values[0].__class__ is not list:
            codes = self.coder.encode_all(values)
            if codes is not None:
                self.codes[slots], self.kinds[slots] = codes, VALUE
            return codes is not None
        elements = list(chain.from_iterable(values))
        if len(set(map(type, elements))) != 1 or (codes := self.coder.encode_all(elements)) is None:
            return False
        self._make_counts()
        counts = np.fromiter(map(len, values), np.int64, len(values))
        self._starts[slots] = self.elements.used + np.cumsum(counts) - counts
        self.counts[slots] = counts
        self.kinds[slots] = LIST
        self._append(codes, np.repeat(slots, counts))
        return True

    def _make_counts(self) -> None:
        if not len(self.counts):
            size = len(self.kinds)
            self._starts, self.counts = np.zeros(size, np.int64), np.zeros(size, np.uint32)

    def _put_lists(self, lists: Sequence[tuple[int, list[Any]]]) -> None:
        self._make_counts()
        found: list[Any] = []
        owners: list[int] = []
        start = self.elements.used
        for slot, values in lists:
            codes = [code for value in values if (code := self.coder.encode(value)) is not None]
            if len(codes) < len(values):
                self.kinds[slot] = OTHER_LIST
                codes = []
            self._starts[slot] = start + len(found)
            self.counts[slot] = len(values)
            found += codes
            owners += [slot] * len(codes)
        self._append(np.array(found, self.coder.dtype), np.array(owners, np.int64))

    def _append(self, codes: Codes, owners: NDArray[np.int64]) -> None:
        old = self.elements
        used = old.used + len(codes)
        if used > len(old.codes):
            old = Elements(_grown(old.codes, used), _grown(old.owners, used), old.used)
        old.codes[old.used : used] = codes
        old.owners[old.used : used] = owners
        self.elements = Elements(old.codes, old.owners, used)

    def _forget_elements(self, slots: NDArray[np.int64]) -> None:
        """Remove the elements of slots that are used again; move the others together when few are left."""
        had = slots[self.kinds[slots] == LIST]
        if not len(had):
            return
        owners = self.elements.owners
        for start, count in zip(self._starts[had].tolist(), self.counts[had].tolist(), strict=True):
            owners[start : start + count] = NO_OWNER
            self._dead += count
        if 2 * self._dead > self.elements.used > ROOM_MIN:
            self._compact()

    def _compact(self) -> None:
        old = self.elements
        kept = np.flatnonzero(old.owners[: old.used] != NO_OWNER)
        # The elements of a slot stand together, and keep their order.
        owners = old.owners[kept]
        first = np.flatnonzero(np.diff(owners, prepend=NO_OWNER) != 0)
        self._starts[owners[first]] = first
        self.elements = Elements(old.codes[kept], owners, len(kept))
        self._dead = 0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of all arrays, for a file; a dictionary comes without the words that nothing uses."""
        elements = self.elements
        arrays = {
            "kinds": self.kinds.copy(),
            "codes": self.codes.copy(),
            "counts": self.counts.copy(),
            "starts": self._starts.copy(),
            "elements": elements.codes[: elements.used].copy(),
            "owners": elements.owners[: elements.used].copy(),
        }
        if isinstance(self.coder, KeywordCoder):
            arrays["codes"][arrays["kinds"] != VALUE] = 0
            both = np.concatenate([arrays["codes"], arrays["elements"]])
            used, codes = np.unique(both, return_inverse=True)
            arrays["codes"], arrays["elements"] = np.split(codes.astype(np.int32), [len(self.codes)])
            words = [self.coder.words[place] for place in used.tolist() if place < len(self.coder.words)]
            arrays["words"] = np.frombuffer(msgspec.json.encode(words), np.uint8)
        return arrays

    @classmethod
    def from_arrays(cls, kind: str, arrays: Mapping[str, NDArray[Any]]) -> Column:
        """Return the column of these arrays; `kind` is its declared type."""
        words = msgspec.json.decode(arrays["words"].tobytes()) if "words" in arrays else ()
        column = cls(kind, words)
        column.kinds, column.codes = arrays["kinds"], arrays["codes"]
        column.counts, column._starts = arrays["counts"], arrays["starts"]
        owners = arrays["owners"]
        column.elements = Elements(arrays["elements"], owners, len(owners))
        column._dead = int(np.count_nonzero(owners == NO_OWNER))
        return column

    def match(self, operator: str, operand: Any, size: int) -> Bounds:
        """Return the slots below `size` whose value fulfils one condition of a filter."""
        kinds = self.kinds[:size]
        if operator in ("$ne", "$nin"):
            equal = self.match({"$ne": "$eq", "$nin": "$in"}[operator], operand, size)
            return Bounds(~equal.possible, ~equal.sure)
        if operator == "$exists":
            return _exact((kinds != ABSENT) if operand else (kinds == ABSENT))
        if operator == "$size":
            lists = (kinds == LIST) | (kinds == OTHER_LIST)
            return _exact(lists & (self.counts[:size] == operand) if len(self.counts) else lists)
        if operator == "$empty":
            return self._match_empty(kinds, is_wanted=operand)
        if operator == "$contains":
            return self._match_contains(kinds, operand)
        return self._match_scalar(kinds, operator, operand)

    def _match_scalar(self, kinds: NDArray[np.uint8], operator: str, operand: Any) -> Bounds:
        codes = self.codes[: len(kinds)]
        operands = operand if operator == "$in" else (operand,)
        is_equality = operator in ("$eq", "$in")
        found = (
            self.coder.equal(codes, operands) if is_equality else self.coder.compare(codes, operator, operand)
        )
        is_value = kinds == VALUE
        sure = is_value & found if found is not None else np.zeros(len(kinds), np.bool_)
        possible = (sure if found is not None else is_value) | (kinds == OTHER)
        if is_equality and any(each is None for each in operands):
            is_null = kinds == NULL
            sure, possible = sure | is_null, possible | is_null
        return Bounds(sure, possible)

    def _match_contains(self, kinds: NDArray[np.uint8], operand: Any) -> Bounds:
        elements = self.elements
        is_list = kinds == LIST
        found = self.coder.equal(elements.codes[: elements.used], (operand,))
        if found is None:
            return Bounds(np.zeros(len(kinds), np.bool_), is_list | (kinds == OTHER_LIST))
        owners = elements.owners[: elements.used][found]
        holds = np.zeros(len(kinds), np.bool_)
        holds[owners[(owners != NO_OWNER) & (owners < len(kinds))]] = True
        sure = is_list & holds
        return Bounds(sure, sure | (kinds == OTHER_LIST))

    def _match_empty(self, kinds: NDArray[np.uint8], *, is_wanted: bool) -> Bounds:
        empty = (kinds == ABSENT) | (kinds == NULL)
        if len(self.counts):
            empty |= (kinds == LIST) & (self.counts[: len(kinds)] == 0)
        if (blank := self.coder.equal(self.codes[: len(kinds)], ("",))) is not None:
            empty |= (kinds == VALUE) & blank
        perhaps = empty | (kinds == OTHER)
        return Bounds(empty, perhaps) if is_wanted else Bounds(~perhaps, ~empty)


def _exact(mask: Mask) -> Bounds:
    return Bounds(mask, mask)


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return a copy with room for `size` entries, and for half as many more as there were."""
    room = max(size, len(array) + len(array) // 2, ROOM_MIN)
    return np.concatenate([array, np.zeros(room - len(array), array.dtype)])
