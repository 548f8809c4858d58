"""Coders: the values of one type as numbers of one dtype, and comparisons of these numbers.

A comparison is exact: it equals that of `model.filters` for every value that has a code. A value without a
code is no value of the type, or one that the dtype cannot hold exactly.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.payload.word_order import WordOrder
from vecstow_engine.model.datetimes import microseconds, parse_datetime

Codes: TypeAlias = NDArray[Any]
"""Codes of values, shape (n,), of the coder's dtype."""
Mask: TypeAlias = NDArray[np.bool_]

KEYWORD_BYTES_MAX: Final = 256
"""The longest string in UTF-8 that a keyword column holds."""
KEYWORDS_MAX: Final = 1 << 20
"""The most distinct strings of one keyword column."""
KEYWORD_OVERHEAD_BYTES: Final = 160
"""Memory of a distinct string apart from its characters: object, list and dict entries (measured)."""
_INT64: Final = np.iinfo(np.int64)
_ORDERS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


class Coder(Protocol):
    """The codes of one type of values."""

    dtype: np.dtype[Any]

    def encode(self, value: Any) -> int | float | None:
        """Return the code of a scalar; None for one without a code."""

    def encode_all(self, values: Sequence[Any]) -> Codes | None:
        """Return the codes of values of one Python type, shape (n,), faster than one by one.

        None when one of them has no code.
        """

    def equal(self, codes: Codes, operands: Sequence[Any]) -> Mask | None:
        """Return which codes equal one of the operands, shape (n,); None when codes do not tell."""

    def compare(self, codes: Codes, operator: str, operand: Any) -> Mask | None:
        """Return which codes lie on that side of the operand, shape (n,); None when codes do not tell."""

    def value(self, code: Any) -> Any:
        """Return the JSON value of a code."""

    def order_keys(self, codes: Codes) -> NDArray[Any] | None:
        """Return numbers in the order of the values, shape (n,); None for a type without an order."""


class NumberCoder:
    """Integers or floats, as int64 or float64; a number that the dtype rounds has no code."""

    def __init__(self, dtype: type[np.int64] | type[np.float64]) -> None:
        self.dtype = np.dtype(dtype)
        self._is_integer = dtype is np.int64

    def encode(self, value: Any) -> int | float | None:
        """Return the equal number of the dtype; None for another value, and for one without an equal."""
        if value.__class__ is int:
            if self._is_integer:
                return value if _INT64.min <= value <= _INT64.max else None
            as_float = float(value)
            return as_float if as_float == value else None
        if value.__class__ is float:
            if not self._is_integer:
                return float(value)
            return int(value) if value.is_integer() and _INT64.min <= value <= _INT64.max else None
        return None

    def encode_all(self, values: Sequence[Any]) -> Codes | None:
        """Return the numbers as an array; None unless all are of the column's own type."""
        if values[0].__class__ is not (int if self._is_integer else float):
            return None
        try:
            return np.array(values, self.dtype)
        except OverflowError:
            return None

    def equal(self, codes: Codes, operands: Sequence[Any]) -> Mask:
        """Return which codes equal one of the operands; operands that are no numbers equal none."""
        found = [code for operand in operands if (code := self.encode(operand)) is not None]
        return _is_one_of(codes, found)

    def compare(self, codes: Codes, operator: str, operand: Any) -> Mask:
        """Return which codes lie on that side of the operand; no number is ordered against a string."""
        if isinstance(operand, str | datetime):
            return np.zeros(len(codes), np.bool_)
        bound = self.encode(operand)
        if bound is None:
            return self._compare_rounded(codes, operator, operand)
        return np.asarray(_ORDERS[operator](codes, np.array(bound, self.dtype)))

    def value(self, code: Any) -> int | float:
        """Return the number."""
        return int(code) if self._is_integer else float(code)

    def order_keys(self, codes: Codes) -> NDArray[Any]:
        """Return the numbers."""
        return codes

    def _compare_rounded(self, codes: Codes, operator: str, operand: int | float) -> Mask:
        """Compare with an operand that lies between two numbers of the dtype, or beyond all of them."""
        is_upper = operator in ("$gt", "$gte")
        if self._is_integer:
            below: float = math.floor(operand)
            if not _INT64.min <= below < _INT64.max:
                return np.full(len(codes), (below < 0) == is_upper, np.bool_)
        elif (below := float(operand)) > operand:
            below = math.nextafter(below, -math.inf)
        bound = np.array(below, self.dtype)
        return np.asarray(codes > bound if is_upper else codes <= bound)


class BooleanCoder:
    """True and false, as uint8; they have no order."""

    dtype = np.dtype(np.uint8)

    def encode(self, value: Any) -> int | None:
        """Return 1 or 0; None for another value."""
        return int(value) if value.__class__ is bool else None

    def encode_all(self, values: Sequence[Any]) -> Codes | None:
        """Return ones and zeros; None for other values."""
        return np.array(values, self.dtype) if values[0].__class__ is bool else None

    def equal(self, codes: Codes, operands: Sequence[Any]) -> Mask:
        """Return which codes equal one of the operands."""
        return _is_one_of(codes, [int(operand) for operand in operands if operand.__class__ is bool])

    def compare(self, codes: Codes, operator: str, operand: Any) -> Mask:
        """Return False for every code."""
        return np.zeros(len(codes), np.bool_)

    def value(self, code: Any) -> bool:
        """Return the truth value."""
        return bool(code)

    def order_keys(self, codes: Codes) -> None:
        """Return None: truth values have no order."""


class DatetimeCoder:
    """Strings with a datetime (RFC 3339), as int64 microseconds since 1970 in UTC.

    The code does not tell how the string is spelled, so a comparison with a string is not answered.
    """

    dtype = np.dtype(np.int64)

    def encode(self, value: Any) -> int | None:
        """Return the instant; None for a value that is no datetime."""
        if value.__class__ is not str:
            return None
        instant = parse_datetime(value)
        return None if instant is None else microseconds(instant)

    def encode_all(self, values: Sequence[Any]) -> Codes | None:
        """Return the instants; None when one value is no datetime."""
        codes = list(map(self.encode, values))
        return None if None in codes else np.array(codes, self.dtype)

    def equal(self, codes: Codes, operands: Sequence[Any]) -> Mask | None:
        """Return which codes equal one of the operands; None when one of these is a string."""
        if any(isinstance(operand, str) for operand in operands):
            return None
        found = [microseconds(operand) for operand in operands if isinstance(operand, datetime)]
        return _is_one_of(codes, found)

    def compare(self, codes: Codes, operator: str, operand: Any) -> Mask | None:
        """Return which codes lie on that side of a datetime; None for a string."""
        if isinstance(operand, datetime):
            return np.asarray(_ORDERS[operator](codes, np.int64(microseconds(operand))))
        return None if isinstance(operand, str) else np.zeros(len(codes), np.bool_)

    def value(self, code: Any) -> Any:
        """Return None: the spelling is only in the payload."""
        return None

    def order_keys(self, codes: Codes) -> None:
        """Return None: strings are ordered by their spelling."""


class KeywordCoder:
    """Strings, as the int32 places of a dictionary that grows and never shrinks in a process."""

    dtype = np.dtype(np.int32)

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.words = list(words)
        self._places = {word: place for place, word in enumerate(self.words)}
        self._bytes = sum(map(_word_bytes, self.words))
        self._order = WordOrder(self.words)

    @property
    def bytes(self) -> int:
        """Bytes of memory that the dictionary takes."""
        return self._bytes + self._order.bytes

    def encode(self, value: Any) -> int | None:
        """Return the place of a string, a new one if need be; None beyond the limits."""
        if value.__class__ is not str:
            return None
        place = self._places.get(value)
        if place is None:
            if _is_too_long(value) or len(self.words) >= KEYWORDS_MAX:
                return None
            place = len(self.words)
            self.words.append(value)
            self._places[value] = place
            self._bytes += _word_bytes(value)
        return place

    def new_bytes(self, values: Iterable[Any]) -> int:
        """Return the bytes of memory that the strings among these values add to the dictionary."""
        new = {value for value in values if value.__class__ is str and value not in self._places}
        sizes = sorted(_word_bytes(value) for value in new if not _is_too_long(value))
        return sum(sizes[max(0, len(sizes) - (KEYWORDS_MAX - len(self.words))) :])

    def encode_all(self, values: Sequence[Any]) -> Codes | None:
        """Return the places of strings that the dictionary has; None when one is new, or no string."""
        places = list(map(self._places.get, values)) if values[0].__class__ is str else [None]
        return None if None in places else np.array(places, self.dtype)

    def equal(self, codes: Codes, operands: Sequence[Any]) -> Mask | None:
        """Return which codes equal one of the operands; None when one of these is a datetime."""
        if any(isinstance(operand, datetime) for operand in operands):
            return None
        found = [place for o in operands if o.__class__ is str and (place := self._places.get(o)) is not None]
        return _is_one_of(codes, found)

    def compare(self, codes: Codes, operator: str, operand: Any) -> Mask | None:
        """Return which codes lie on that side of a string, or start with it; None for a datetime."""
        if isinstance(operand, datetime):
            return None
        if not isinstance(operand, str):
            return np.zeros(len(codes), np.bool_)
        table = self._order.compare(operator, operand)
        if not len(table):
            return np.zeros(len(codes), np.bool_)
        # A slot that is not live may have a code that was added meanwhile.
        return np.take(table, codes, mode="clip")

    def value(self, code: Any) -> str:
        """Return the string."""
        return str(self.words[code])

    def order_keys(self, codes: Codes) -> NDArray[Any]:
        """Return the places of the strings in the order of code points."""
        return np.take(self._order.ranks(), codes, mode="clip")


def coder_of(kind: str, words: Sequence[str] = ()) -> Coder:
    """Return the coder of a declared type; `words` are those of a stored keyword column."""
    if kind == "keyword":
        return KeywordCoder(words)
    if kind == "boolean":
        return BooleanCoder()
    if kind == "datetime":
        return DatetimeCoder()
    return NumberCoder(np.int64 if kind == "integer" else np.float64)


def _is_one_of(codes: Codes, found: Sequence[int | float]) -> Mask:
    if len(found) == 1:
        return np.asarray(codes == codes.dtype.type(found[0]))
    return np.isin(codes, np.array(found, codes.dtype))


def _is_too_long(word: str) -> bool:
    # A string has at most four bytes a character, so most need no encoding.
    return 4 * len(word) > KEYWORD_BYTES_MAX and len(word.encode()) > KEYWORD_BYTES_MAX


def _word_bytes(word: str) -> int:
    return len(word.encode()) + KEYWORD_OVERHEAD_BYTES
