"""The text index of one payload field: which documents contain which words, searchable once they are put.

Every write makes a block. Four blocks of about the same size are merged into one, so that few remain. A
search reads the blocks of one moment, and waits for no write.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.text.dictionary import NO_WORD, Dictionary
from vecstow_engine.index.text.postings import COUNT_MAX, DOCUMENTS_MAX, Block, Slots, make_block, merge
from vecstow_engine.index.text.ranking import Allowed, Content, Scores, contained, rank
from vecstow_engine.index.text.saved import Buffer, load, save
from vecstow_engine.index.text.words import words_of

WORD_BYTES: Final = 8
"""About the most bytes of memory of one word of a text, apart from distinct words."""
DOCUMENT_WORDS_MAX: Final = 32_768
"""The words of a text that count, from the first on. A payload of ASCII text has no more."""
MERGED_POSTINGS_MAX: Final = 4_000_000
"""The postings of a block that a merge makes: the merge then takes about 0.1 s."""
CHUNK_CHARACTERS: Final = 1 << 20
"""The text whose words are in memory at a time: about 15 MiB."""
CHUNK_DOCUMENTS: Final = 8192
_TIER_BLOCKS: Final = 4
_TIER_BITS_MIN: Final = 7
_DOCUMENT_BITS: Final = 16
_DOCUMENT_MASK: Final = DOCUMENTS_MAX - 1
_NOWHERE: Final = -1
_WORDS_KEPT: Final = 65_536
"""Unused words stay in a dictionary that is smaller than twice this number."""


class TextIndex:
    """Texts by slot, one for each slot. Thread-safe."""

    def __init__(self, dictionary: Dictionary | None = None, blocks: Sequence[Block] = ()) -> None:
        self._writing = threading.Lock()
        self._blocks: dict[int, Block] = {}
        self._next_key = 0
        self._places = np.full(0, _NOWHERE, np.int64)
        """For each slot the key of the block, and the document in it."""
        self._content = Content(Dictionary() if dictionary is None else dictionary)
        self._words_checked = 2 * _WORDS_KEPT
        for block in blocks:
            self._replace((), block)

    @classmethod
    def load(cls, raw: Buffer, file: str) -> TextIndex:
        """Return the index that `save` returned as one piece; raise DamagedFile when the sizes are wrong.

        The caller verifies a checksum before. Errors name `file`.
        """
        return cls(*load(raw, file))

    def save(self) -> list[Buffer]:
        """Return the index as bytes, in parts that later changes leave as they are."""
        with self._writing:
            return save(self._content.dictionary, self._content.blocks)

    def put(self, slots: NDArray[np.int64], texts: Sequence[str | None]) -> None:
        """Set the texts of distinct slots, shape (n,), in place of the former ones; None for no text."""
        with self._writing:
            self._remove(slots)
            for some_slots, some_texts in _chunks(slots, texts):
                block = self._block_of(some_slots, some_texts)
                if block is not None:
                    self._replace((), block)
            self._merge()

    def growth_bytes(self, texts: Sequence[str | None]) -> int:
        """Return about the bytes of memory that these texts add."""
        dictionary = self._content.dictionary
        new: set[str] = set()
        count = 0
        for text in texts:
            found = words_of(text)[:DOCUMENT_WORDS_MAX] if text is not None else []
            new.update(word for word in found if word not in dictionary)
            count += len(found)
        return dictionary.bytes_with(new) - dictionary.bytes + WORD_BYTES * count

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Remove the texts of distinct slots, shape (n,); ignore slots without one."""
        with self._writing:
            self._remove(slots)
            self._merge()

    def search(
        self, text: str, k: int | None, allowed: Allowed | None = None, known: Container[str] = ()
    ) -> tuple[Slots, Scores]:
        """Return the slots of the k texts that answer best, and their scores above 0; of all without k.

        Best first, and by slot where scores are equal; both of shape (n,). `allowed` is true for each slot
        that counts; without it, all count. Words in `known` are not misspelt, even if no text contains them.
        """
        return rank(self._content, text, k, allowed, known)

    def contained(self, text: str) -> set[str]:
        """Return the words of a text that the texts of the index contain."""
        return contained(self._content, text)

    @property
    def count(self) -> int:
        """The number of texts with at least one word."""
        return sum(block.live for block in self._content.blocks)

    @property
    def bytes(self) -> int:
        """Bytes of memory, about."""
        content = self._content
        return content.dictionary.bytes + sum(s.bytes for s in content.blocks) + self._places.nbytes

    def _remove(self, slots: NDArray[np.int64]) -> None:
        inside = slots[slots < len(self._places)]
        places = self._places[inside]
        self._places[inside] = _NOWHERE
        places = places[places != _NOWHERE]
        keys = places >> _DOCUMENT_BITS
        for key in np.unique(keys).tolist():
            self._blocks[key].remove(places[keys == key] & _DOCUMENT_MASK)

    def _block_of(self, slots: NDArray[np.int64], texts: Sequence[str]) -> Block | None:
        """Return a block of new documents, without those that have no words; None when there are none."""
        words: list[str] = []
        lengths = np.zeros(len(texts), np.int64)
        for document, text in enumerate(texts):
            found = words_of(text)[:DOCUMENT_WORDS_MAX]
            lengths[document] = len(found)
            words += found
        numbers = self._content.dictionary.numbers(words)
        known = numbers != NO_WORD
        documents = np.repeat(np.arange(len(texts)), lengths)[known]
        if not len(documents):
            return None
        kept = np.bincount(documents, minlength=len(texts)) > 0
        slots, lengths, documents = slots[kept], lengths[kept], (np.cumsum(kept) - 1)[documents]
        pairs = numbers[known].astype(np.int64) << _DOCUMENT_BITS | documents
        pairs, counts = np.unique(pairs, return_counts=True)
        return make_block(
            slots.astype(np.uint32), lengths.astype(np.float32), (pairs >> _DOCUMENT_BITS).astype(np.uint32),
            (pairs & _DOCUMENT_MASK).astype(np.uint16), np.minimum(counts, COUNT_MAX).astype(np.uint8),
        )  # fmt: skip

    def _merge(self) -> None:
        """Merge blocks until few remain, and drop the words that none contains when they are many."""
        while group := _due(self._blocks):
            blocks = [self._blocks[key] for key in group]
            self._replace(group, merge(blocks) if any(block.live for block in blocks) else None)
        if len(self._content.dictionary) > self._words_checked:
            self._drop_unused_words()

    def _replace(self, keys: Sequence[int], block: Block | None) -> None:
        """Put a block in place of others, which searches under way go on to read."""
        for key in keys:
            del self._blocks[key]
        if block is not None:
            self._blocks[self._next_key] = block
            self._reserve(int(block.slots.max()) + 1)
            live = np.flatnonzero(np.isfinite(block.lengths))
            self._places[block.slots[live]] = self._next_key << _DOCUMENT_BITS | live
            self._next_key += 1
        self._content = Content(self._content.dictionary, tuple(self._blocks.values()))

    def _drop_unused_words(self) -> None:
        dictionary = self._content.dictionary
        used = np.zeros(len(dictionary), np.bool_)
        for block in self._blocks.values():
            used[block.words] = True
        kept = int(used.sum())
        if 2 * kept < len(dictionary):
            numbers = (np.cumsum(used) - 1).astype(np.uint32)
            words = [word for word, is_used in zip(dictionary, used.tolist(), strict=True) if is_used]
            self._blocks = {key: block.renumbered(numbers) for key, block in self._blocks.items()}
            self._content = Content(Dictionary(words), tuple(self._blocks.values()))
        self._words_checked = 2 * max(kept, _WORDS_KEPT)

    def _reserve(self, slots: int) -> None:
        have = len(self._places)
        if slots > have:
            more = np.full(max(slots, 2 * have) - have, _NOWHERE, np.int64)
            self._places = np.concatenate((self._places, more))


def _chunks(
    slots: NDArray[np.int64], texts: Sequence[str | None]
) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
    """Yield the slots that have a text, and their texts, in parts of bounded size."""
    some: list[int] = []
    characters = 0
    for place, text in enumerate(texts):
        if text is None:
            continue
        if some and (characters + len(text) > CHUNK_CHARACTERS or len(some) == CHUNK_DOCUMENTS):
            yield slots[some], [texts[each] or "" for each in some]
            some, characters = [], 0
        some.append(place)
        characters += len(text)
    if some:
        yield slots[some], [texts[each] or "" for each in some]


def _due(blocks: dict[int, Block]) -> list[int]:
    """Return the keys of blocks to merge: one that is half empty, or several of about the same size."""
    tiers: dict[int, list[int]] = defaultdict(list)
    for key, block in blocks.items():
        if 2 * block.live < len(block.slots):
            return [key]
        tiers[max(0, len(block.documents).bit_length() - _TIER_BITS_MIN) // 2].append(key)
    for _, keys in sorted(tiers.items()):
        if len(keys) >= _TIER_BLOCKS and len(fitting := _fitting(blocks, keys)) > 1:
            return fitting
    return []


def _fitting(blocks: dict[int, Block], keys: Sequence[int]) -> list[int]:
    """Return the keys whose blocks fit into one, the smallest first."""
    fitting = []
    documents = postings = 0
    for key in sorted(keys, key=lambda key: len(blocks[key].documents)):
        documents += blocks[key].live
        postings += len(blocks[key].documents)
        if documents > DOCUMENTS_MAX or postings > MERGED_POSTINGS_MAX:
            break
        fitting.append(key)
    return fitting
