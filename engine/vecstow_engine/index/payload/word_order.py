"""The order of the words of a keyword column, for comparisons. Words are appended to the list meanwhile.

No step holds the interpreter for long: other threads go on while a large dictionary is sorted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from heapq import merge
from typing import Final

import numpy as np
from numpy.typing import NDArray

SORTED_AT_ONCE: Final = 16_384
"""Words that one call sorts: in about 10 ms."""
RANK_BYTES: Final = 8
"""Memory of a word in the order: its place and its rank."""

Places = NDArray[np.int32]


class WordOrder:
    """The order of code points of the words in a list, as of the last comparison."""

    def __init__(self, words: Sequence[str]) -> None:
        """Order nothing yet: most columns are never asked for an order."""
        self._words = words
        self._state: tuple[Places, Places] = np.zeros(0, np.int32), np.zeros(0, np.int32)
        """The places of the words in their order, and the rank of the word at each place."""

    @property
    def bytes(self) -> int:
        """Bytes of memory that the order takes."""
        return RANK_BYTES * len(self._state[0])

    def ranks(self) -> Places:
        """Return the rank of the word at each place, shape (n,)."""
        return self._followed()[1]

    def compare(self, operator: str, operand: str) -> NDArray[np.bool_]:
        """Return which words lie on that side of the operand, or start with it, by place, shape (n,)."""
        order, ranks = self._followed()
        low, high = self._range(order, operator, operand)
        return np.asarray((ranks >= low) & (ranks < high))

    def _range(self, order: Places, operator: str, operand: str) -> tuple[int, int]:
        """Return the first rank that fulfils a comparison, and the rank behind the last one."""
        word = self._words.__getitem__
        match operator:
            case "$gt":
                return bisect_right(order, operand, key=word), len(order)
            case "$gte":
                return bisect_left(order, operand, key=word), len(order)
            case "$lt":
                return 0, bisect_left(order, operand, key=word)
            case "$lte":
                return 0, bisect_right(order, operand, key=word)
        # Words with a prefix follow each other.
        last = bisect_right(order, operand, key=lambda place: word(place)[: len(operand)])
        return bisect_left(order, operand, key=word), last

    def _followed(self) -> tuple[Places, Places]:
        """Return the state with all words of the list."""
        order, ranks = self._state
        size = len(self._words)
        if size > len(order):
            new = np.fromiter(self._sorted(len(order), size), np.int32, size - len(order))
            if len(order):
                word = self._words.__getitem__
                at = [bisect_left(order, word(place), key=word) for place in new.tolist()]
                order = np.insert(order, at, new)
            else:
                order = new
            ranks = np.empty(size, np.int32)
            ranks[order] = np.arange(size, dtype=np.int32)
            self._state = order, ranks
        return order, ranks

    def _sorted(self, begin: int, end: int) -> Iterator[int]:
        """Yield places in the order of their words."""
        word = self._words.__getitem__
        starts = range(begin, end, SORTED_AT_ONCE)
        parts = [sorted(range(start, min(end, start + SORTED_AT_ONCE)), key=word) for start in starts]
        return merge(*parts, key=word)
