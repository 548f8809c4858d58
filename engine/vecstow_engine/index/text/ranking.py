"""BM25 (Robertson and others, 1994), with Lucene's weight of rare words: ln(1 + (N - n + 0.5) / (n + 0.5)).

A document scores the sum over the words of the query of weight * c / (c + K), where c is how often the
document contains the word, and K = k1 * (1 - b + b * length / average length). N and n leave out removed
documents.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.text.dictionary import WORD_CHARACTERS_MAX, Dictionary
from vecstow_engine.index.text.postings import Block, Occurrences, Slots
from vecstow_engine.index.text.words import words_of

K1: Final = 1.2
B: Final = 0.75
MISSPELT_MAX: Final = 32
"""The number of unknown words of a query in whose place the words near them are searched for."""

Scores: TypeAlias = NDArray[np.float32]
Allowed: TypeAlias = NDArray[np.bool_]
"""For each slot whether its document counts, shape (n,); slots from n on do not count."""
_Term: TypeAlias = tuple[np.float32, Sequence[Occurrences]]
"""The weight of a word, and its occurrences in each block."""


@dataclass(frozen=True, slots=True)
class Content:
    """The documents of an index at one moment."""

    dictionary: Dictionary
    blocks: tuple[Block, ...] = ()


def rank(
    content: Content, text: str, k: int | None, allowed: Allowed | None, known: Container[str] = ()
) -> tuple[Slots, Scores]:
    """Return slots and scores of the k best documents that contain one of the words; of all, without k.

    Best first, and by slot where scores are equal; both of shape (n,). The weights of words come from all
    documents, whatever is allowed. Words in `known` are not misspelt, even if no document contains them.
    """
    blocks = [block for block in content.blocks if block.live]
    slots, scores = np.zeros(0, np.uint32), np.zeros(0, np.float32)
    live = sum(block.live for block in blocks)
    if not live:
        return slots, scores
    terms = _terms_of(content.dictionary, blocks, text, live, known)
    average = max(1, sum(block.tokens for block in blocks)) / live  # a removal may be under way
    for number, block in enumerate(blocks):
        occurrences = [(weight, found[number]) for weight, found in terms]
        floor = scores[-1] if k is not None and len(scores) == k else np.float32(0)
        more = _matches(block, _scores_of(block, occurrences, average), floor, allowed)
        slots, scores = best(np.append(slots, more[0]), np.append(scores, more[1]), k)
    return slots, scores


def best(slots: Slots, scores: Scores, k: int | None) -> tuple[Slots, Scores]:
    """Return the k best of these slots, best first, and by slot where scores are equal; all, without k."""
    if k is not None and len(scores) > k:
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        slots, scores = slots[kept], scores[kept]
    order = np.lexsort((slots, -scores))[:k]
    return slots[order], scores[order]


def contained(content: Content, text: str) -> set[str]:
    """Return the words of a text that documents contain."""
    blocks = [block for block in content.blocks if block.live]
    return set(_found(content.dictionary, blocks, _cut_words(text)))


def _cut_words(text: str) -> list[str]:
    return [word[:WORD_CHARACTERS_MAX] for word in words_of(text)]


def _found(
    dictionary: Dictionary, blocks: Sequence[Block], words: Iterable[str]
) -> dict[str, tuple[int, list[Occurrences]]]:
    """Return the words that documents contain, each with the count of these and its occurrences by block."""
    numbers = {word: number for word in words if (number := dictionary.get(word)) is not None}
    found = _look_up(blocks, list(numbers.values())) if blocks else []
    return {word: each for word, each in zip(numbers, found, strict=False) if each[0]}


def _terms_of(
    dictionary: Dictionary, blocks: Sequence[Block], text: str, live: int, known: Container[str]
) -> list[_Term]:
    """Return the words of a text that documents contain; for a misspelt one those near it, of one weight."""
    repeats = Counter(_cut_words(text))
    found = _found(dictionary, blocks, repeats)
    terms: list[_Term] = []
    misspelt = 0
    for word, count in repeats.items():
        group = [found[word]] if word in found else []
        if not group and word not in known and misspelt < MISSPELT_MAX:
            misspelt += 1
            group = _look_up(blocks, dictionary.near(word))
        documents = min(sum(count for count, _ in group), live)
        weight = np.float32(count * math.log(1 + (live - documents + 0.5) / (documents + 0.5)))
        terms += [(weight, occurrences) for _, occurrences in group]
    return terms


def _look_up(blocks: Sequence[Block], numbers: Sequence[int]) -> list[tuple[int, list[Occurrences]]]:
    """Return for each word the number of live documents that contain it, and its occurrences by block."""
    words = np.array(numbers, np.uint32)
    by_word = list(zip(*(block.find(words) for block in blocks), strict=True))
    return [
        (sum(block.live_count(found[0]) for block, found in zip(blocks, each, strict=True)), list(each))
        for each in by_word
    ]


def _scores_of(block: Block, terms: Sequence[tuple[np.float32, Occurrences]], average: float) -> Scores:
    """Return the score of each document of a block, shape (d,); zero for removed ones."""
    scores = np.zeros(len(block.slots), np.float32)
    norms = np.float32(K1 * B / average) * block.lengths + np.float32(K1 * (1 - B))
    for weight, (documents, counts) in terms:
        scores[documents] += weight * counts / (counts + norms[documents])
    return scores


def _matches(
    block: Block, scores: Scores, floor: np.float32, allowed: Allowed | None
) -> tuple[Slots, Scores]:
    """Return slots and scores of the documents that are allowed, with at least the score `floor`, above 0."""
    matching = np.flatnonzero((scores >= floor) & (scores > 0))
    slots = block.slots[matching]
    if allowed is not None:
        kept = slots < len(allowed)
        kept[kept] = allowed[slots[kept]]
        matching, slots = matching[kept], slots[kept]
    return slots, scores[matching]
