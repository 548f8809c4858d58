"""A column: one field of all payloads by slot. A value is a scalar with a code, an array, or something else.

One thread writes at a time. Readers take no lock: an array grows by replacement, and a slot is written before
it becomes live. The values of a slot that is not live mean nothing. A reader finds out afterwards, by the
epochs of `PayloadColumns`, which slots were used again meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from vecstow_engine.index.payload.arrays import Arrays, Slots, grown
from vecstow_engine.index.payload.coders import (
    BooleanCoder,
    Coder,
    Codes,
    DatetimeCoder,
    KeywordCoder,
    Mask,
    NumberCoder,
    coder_of,
)

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


_ORDERED: Final[dict[type, tuple[type, ...]]] = {
    NumberCoder: (int, float, type(UNSET)),
    KeywordCoder: (str, type(UNSET)),
    BooleanCoder: (),
    DatetimeCoder: (),
}
"""The types of values among which a column orders its own, by its coder; none for a type without an order."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The slots that match for certain, and those that may match, shape (slots,); the rest does not match."""

    sure: Mask
    possible: Mask


@dataclass(frozen=True, slots=True, eq=False)
class ValueCounts:
    """How many slots have each value of a column. An element of an array counts once for each slot."""

    coder: Coder
    codes: Codes
    """The distinct values."""
    counts: NDArray[np.int64]
    nulls: int
    """The number of slots with null."""

    def __len__(self) -> int:
        return len(self.codes) + (self.nulls > 0)

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        for code, count in zip(self.codes, self.counts.tolist(), strict=True):
            yield self.coder.value(code), count
        if self.nulls:
            yield None, self.nulls


class Column:
    """The values of one field, by slot."""

    def __init__(self, kind: str, words: Sequence[str] = ()) -> None:
        self.coder = coder_of(kind, words)
        self.has_dotted_key = False
        """Whether a payload had the field as one key with dots, which hides the path of that name."""
        self.kinds: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.codes: Codes = np.zeros(0, self.coder.dtype)
        self.arrays = Arrays(self.coder.dtype)

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the column takes."""
        words = self.coder.bytes if isinstance(self.coder, KeywordCoder) else 0
        return self.kinds.nbytes + self.codes.nbytes + self.arrays.memory_bytes + words

    @property
    def slot_bytes(self) -> int:
        """Bytes of memory of one slot, apart from distinct keywords and elements of arrays."""
        return self.kinds.itemsize + self.coder.dtype.itemsize + self.arrays.slot_bytes

    def growth_bytes(self, size: int, values: Sequence[Any]) -> int:
        """Return the bytes that the arrays of these values add, with room for `size` slots."""
        lengths = [len(value) for value in values if value.__class__ is list]
        return self.arrays.growth_bytes(size, sum(lengths)) if lengths else 0

    def new_word_bytes(self, values: Sequence[Any]) -> int:
        """Return the bytes that distinct keywords of these values add."""
        if not isinstance(self.coder, KeywordCoder):
            return 0
        flat = chain.from_iterable(value if value.__class__ is list else (value,) for value in values)
        return self.coder.new_bytes(flat)

    def grow(self, size: int) -> None:
        """Make room for slots below `size`."""
        # Kinds come last: a reader that sees a slot there finds it in the other arrays.
        self.codes = grown(self.codes, size)
        self.arrays.grow(size)
        self.kinds = grown(self.kinds, size)

    def put(self, slots: Slots, values: Sequence[Any]) -> None:
        """Write the values of slots (n,) that are not live and have room; UNSET for an absent field."""
        had = slots[self.kinds[slots] == LIST]
        if len(had):
            self.kinds[had] = ABSENT
            self.arrays.forget(had)
        # Most batches have values of one type, or arrays of values of one type.
        if len(set(map(type, values))) == 1 and self._put_alike(slots, values):
            return
        encode = self.coder.encode
        zero = self.coder.dtype.type(0)
        kinds, codes, lists = [], [], []
        for line, value in enumerate(values):
            code = None
            if value is UNSET:
                kind = ABSENT
            elif value is None:
                kind = NULL
            elif value.__class__ is list:
                kind = LIST
                lists.append(line)
            else:
                code = encode(value)
                kind = OTHER if code is None else VALUE
            kinds.append(kind)
            codes.append(zero if code is None else code)
        self.codes[slots] = codes
        self.kinds[slots] = kinds
        if lists:
            self._put_lists(slots[lists], [values[line] for line in lists])

    def _put_alike(self, slots: Slots, values: Sequence[Any]) -> bool:
        """Write values of one Python type; return False, with nothing written, when one has no code."""
        if values[0].__class__ is not list:
            codes = self.coder.encode_all(values)
            if codes is not None:
                self.codes[slots], self.kinds[slots] = codes, VALUE
            return codes is not None
        elements = list(chain.from_iterable(values))
        if len(set(map(type, elements))) != 1 or (codes := self.coder.encode_all(elements)) is None:
            return False
        counts = np.fromiter(map(len, values), np.int64, len(values))
        self.arrays.put(len(self.kinds), slots, counts, counts, codes)
        self.kinds[slots] = LIST
        return True

    def _put_lists(self, slots: Slots, lists: Sequence[list[Any]]) -> None:
        encode = self.coder.encode
        coded = [[encode(value) for value in values] for values in lists]
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        is_whole = np.fromiter((None not in codes for codes in coded), np.bool_, len(lists))
        found = [code for codes in coded if None not in codes for code in codes]
        stored = np.where(is_whole, counts, 0)
        self.arrays.put(len(self.kinds), slots, counts, stored, np.array(found, self.coder.dtype))
        self.kinds[slots[~is_whole]] = OTHER_LIST

    def copied(self, slots: int) -> dict[str, NDArray[Any]]:
        """Return copies of all arrays for a file, for the slots below `slots`."""
        kept = {"kinds": self.kinds[:slots].copy(), "codes": self.codes[:slots].copy()}
        return kept | self.arrays.copied(slots)

    def packed(self, copied: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return copies as a file has them: a dictionary comes without the words that nothing uses."""
        if not isinstance(self.coder, KeywordCoder):
            return copied
        codes = np.where(copied["kinds"] == VALUE, copied["codes"], 0)
        used, both = np.unique(np.concatenate([codes, copied["elements"]]), return_inverse=True)
        codes, elements = np.split(both.astype(np.int32), [len(codes)])
        words = [self.coder.words[place] for place in used.tolist() if place < len(self.coder.words)]
        written = np.frombuffer(msgspec.json.encode(words), np.uint8)
        return copied | {"codes": codes, "elements": elements, "words": written}

    @classmethod
    def of_file(cls, kind: str, arrays: Mapping[str, NDArray[Any]]) -> Column:
        """Return the column of `packed` arrays; `kind` is its declared type."""
        words = msgspec.json.decode(arrays["words"].tobytes()) if "words" in arrays else ()
        column = cls(kind, words)
        column.kinds, column.codes = arrays["kinds"], arrays["codes"]
        column.arrays = Arrays.of_file(arrays["counts"], arrays["elements"], arrays["owners"])
        return column

    def count_values(self, slots: Mask) -> ValueCounts | None:
        """Return how many of the slots in a mask have each value; None when codes do not tell all values."""
        kinds = self.kinds[: len(slots)]
        if (
            isinstance(self.coder, DatetimeCoder)
            or (slots & ((kinds == OTHER) | (kinds == OTHER_LIST))).any()
        ):
            return None
        elements = self.arrays.elements
        owned = elements.owners_in(slots & (kinds == LIST))
        codes = elements.codes[: elements.used][owned]
        order = np.lexsort((codes, elements.owners[: elements.used][owned]))
        owners, codes = elements.owners[: elements.used][owned][order], codes[order]
        is_first = np.ones(len(codes), np.bool_)
        is_first[1:] = (owners[1:] != owners[:-1]) | (codes[1:] != codes[:-1])
        scalars = self.codes[: len(slots)][slots & (kinds == VALUE)]
        found, counts = np.unique(np.concatenate([scalars, codes[is_first]]), return_counts=True)
        return ValueCounts(self.coder, found, counts, int(np.count_nonzero(slots & (kinds == NULL))))

    def first_in_order(self, slots: Mask, start: Any, count: int, *, is_descending: bool) -> Mask | None:
        """Return slots, among those in a mask, that contain the first `count` values from `start` on.

        `start` is a value, or UNSET for the first one of all. None when codes do not tell the order.
        """
        kinds = self.kinds[: len(slots)]
        if (slots & (kinds == OTHER)).any() or start.__class__ not in _ORDERED[type(self.coder)]:
            return None
        chosen: Mask = slots & (kinds == VALUE)
        codes = self.codes[: len(slots)]
        wanted = count
        if start is not UNSET:
            at = self.coder.equal(codes, (start,))
            behind = self.coder.compare(codes, "$lt" if is_descending else "$gt", start)
            assert at is not None
            assert behind is not None
            # Equal values are ordered by id, which the column does not have.
            wanted += int(np.count_nonzero(chosen & at))
            chosen &= at | behind
        keys = self.coder.order_keys(codes[chosen])
        assert keys is not None
        if len(keys) > wanted:
            last = len(keys) - wanted if is_descending else wanted - 1
            bound = np.partition(keys, last)[last]
            chosen[chosen] = keys >= bound if is_descending else keys <= bound
        return chosen

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
            counts = self.arrays.counts[:size]
            return _exact(lists & (counts == operand) if len(counts) else lists)
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
        elements = self.arrays.elements
        is_list = kinds == LIST
        found = self.coder.equal(elements.codes[: elements.used], (operand,))
        if found is None:
            return Bounds(np.zeros(len(kinds), np.bool_), is_list | (kinds == OTHER_LIST))
        owners = elements.owners_of(found)
        holds = np.zeros(len(kinds), np.bool_)
        holds[owners[owners < len(kinds)]] = True
        sure = is_list & holds
        return Bounds(sure, sure | (kinds == OTHER_LIST))

    def _match_empty(self, kinds: NDArray[np.uint8], *, is_wanted: bool) -> Bounds:
        empty = (kinds == ABSENT) | (kinds == NULL)
        counts = self.arrays.counts[: len(kinds)]
        if len(counts):
            empty |= (kinds == LIST) & (counts == 0)
        if (blank := self.coder.equal(self.codes[: len(kinds)], ("",))) is not None:
            empty |= (kinds == VALUE) & blank
        perhaps = empty | (kinds == OTHER)
        return Bounds(empty, perhaps) if is_wanted else Bounds(~perhaps, ~empty)


def _exact(mask: Mask) -> Bounds:
    return Bounds(mask, mask)
