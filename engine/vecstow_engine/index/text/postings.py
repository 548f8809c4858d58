"""Postings: for each word the documents that contain it, and how often; in blocks that only lose documents.

A document is a number within its block. A removed document keeps its postings until its block is merged.
Readers need no lock: postings stay as they are, and a removal writes the length of a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

DOCUMENTS_MAX: Final = 1 << 16
"""The number of documents of a block: a posting then takes three bytes."""
COUNT_MAX: Final = 255
"""How often a word counts in one document at most: a score is nearly the same for more."""
_GONE: Final = np.float32(np.inf)
"""The length of a removed document: a score that is divided by this length is zero."""

Words: TypeAlias = NDArray[np.uint32]
Slots: TypeAlias = NDArray[np.uint32]
Lengths: TypeAlias = NDArray[np.float32]
Starts: TypeAlias = NDArray[np.uint32]
Documents: TypeAlias = NDArray[np.uint16]
Counts: TypeAlias = NDArray[np.uint8]
Occurrences: TypeAlias = tuple[Documents, Counts]
"""The documents that contain one word, and how often each contains it; both of shape (n,)."""


class Block:
    """Up to 65,536 documents and their postings, at least one for each."""

    def __init__(
        self,
        slots: Slots,
        lengths: Lengths,
        words: Words,
        starts: Words,
        documents: Documents,
        counts: Counts,
    ) -> None:
        self.slots = slots
        """The slot of each document, shape (d,)."""
        self.lengths = lengths
        """The number of words of each document, shape (d,); infinite for a removed one."""
        self.words = words
        """The distinct words, ascending, shape (w,)."""
        self.starts = starts
        """The first posting of each word, and the end of the last, shape (w + 1,)."""
        self.documents = documents
        """The document of each posting, ascending for each word, shape (n,)."""
        self.counts = counts
        """How often the document contains the word, shape (n,)."""
        live = lengths[np.isfinite(lengths)]
        self.live = len(live)
        """The number of documents that are not removed."""
        self.tokens = int(live.sum(dtype=np.float64))
        """The words of these documents, each occurrence counted."""

    @property
    def arrays(self) -> tuple[NDArray[np.generic], ...]:
        """The arguments of `Block`."""
        return self.slots, self.lengths, self.words, self.starts, self.documents, self.counts

    @property
    def bytes(self) -> int:
        """Bytes of memory."""
        return sum(array.nbytes for array in self.arrays)

    def remove(self, documents: NDArray[np.int64]) -> None:
        """Remove documents, shape (n,), that are live."""
        self.live -= len(documents)
        self.tokens -= int(self.lengths[documents].sum(dtype=np.float64))
        self.lengths[documents] = _GONE

    def find(self, words: Words) -> list[Occurrences]:
        """Return the occurrences of each word, those in removed documents included."""
        places = np.minimum(np.searchsorted(self.words, words), len(self.words) - 1)
        starts = self.starts[places]
        ends = np.where(self.words[places] == words, self.starts[places + 1], starts)
        ranges = zip(starts.tolist(), ends.tolist(), strict=True)
        return [(self.documents[start:end], self.counts[start:end]) for start, end in ranges]

    def live_count(self, documents: Documents) -> int:
        """Return how many of these distinct documents are live."""
        if self.live == len(self.slots):
            return len(documents)
        return int(np.isfinite(self.lengths[documents]).sum())

    def renumbered(self, numbers: Words) -> Block:
        """Return the same block with `numbers[word]` in place of each word; `numbers` must rise."""
        words = numbers[self.words]
        return Block(self.slots, self.lengths, words, self.starts, self.documents, self.counts)


def make_block(slots: Slots, lengths: Lengths, words: Words, documents: Documents, counts: Counts) -> Block:
    """Return a block of postings (n,), where those of one word come in the order of their documents."""
    order = np.argsort(words, kind="stable")
    words = words[order]
    first = np.flatnonzero(np.concatenate(([True], words[1:] != words[:-1])))
    starts = np.append(first, len(words)).astype(np.uint32)
    return Block(slots, lengths, words[first], starts, documents[order], counts[order])


def merge(blocks: Sequence[Block]) -> Block:
    """Return one block of the live documents, 1 to DOCUMENTS_MAX, in the same order."""
    parts = []
    base = 0
    for block in blocks:
        live = np.isfinite(block.lengths)
        numbers = (np.cumsum(live) + (base - 1)).astype(np.uint16)
        kept = live[block.documents]
        parts.append((
            block.slots[live], block.lengths[live],
            np.repeat(block.words, np.diff(block.starts))[kept],
            numbers[block.documents[kept]], block.counts[kept],
        ))  # fmt: skip
        base += int(live.sum())
    slots, lengths, words, documents, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return make_block(slots, lengths, words, documents, counts)
