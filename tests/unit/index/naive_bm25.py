"""BM25 as its formula says, over texts in a dict: the oracle of the text index."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container

from vecstow_engine.index.text.words import words_of

K1 = 1.2
B = 0.75


def ranked(texts: dict[int, str], query: str, allowed: Container[int] | None = None) -> dict[int, float]:
    """Return the score of each slot that contains one of the words, best first."""
    counts = {slot: Counter(words_of(text)) for slot, text in texts.items()}
    counts = {slot: found for slot, found in counts.items() if found}
    average = sum(found.total() for found in counts.values()) / max(len(counts), 1)
    scores: dict[int, float] = {}
    for slot, found in counts.items():
        score = sum(
            repeats * weight(counts, [word]) * found[word] / (found[word] + norm(found.total() / average))
            for word, repeats in Counter(words_of(query)).items()
        )
        if score and (allowed is None or slot in allowed):
            scores[slot] = score
    return dict(sorted(scores.items(), key=lambda pair: (-pair[1], pair[0])))


def weight(counts: dict[int, Counter[str]], words: list[str]) -> float:
    """Return the weight of words that count as one."""
    containing = sum(word in found for found in counts.values() for word in words)
    containing = min(containing, len(counts))
    return math.log(1 + (len(counts) - containing + 0.5) / (containing + 0.5))


def norm(relative_length: float) -> float:
    """Return what a count is compared with."""
    return K1 * (1 - B + B * relative_length)
