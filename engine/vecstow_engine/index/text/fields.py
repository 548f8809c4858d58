"""The search of several fields for the same words: a point scores the sum over its fields."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vecstow_engine.index.text.postings import Slots
from vecstow_engine.index.text.ranking import Allowed, Scores, best
from vecstow_engine.index.text.text_index import TextIndex


def search_fields(
    indexes: Sequence[TextIndex], text: str, k: int, allowed: Allowed | None
) -> tuple[Slots, Scores]:
    """Return the k best slots and their scores, best first, and by slot where scores are equal.

    `TextIndex.search` has the rest. A word that one field contains is not misspelt in the others.
    """
    if len(indexes) == 1:
        return indexes[0].search(text, k, allowed)
    known = set[str]().union(*(index.contained(text) for index in indexes))
    found = [index.search(text, None, allowed, known) for index in indexes]
    slots, places = np.unique(np.concatenate([slots for slots, _ in found]), return_inverse=True)
    scores = np.bincount(places, np.concatenate([scores for _, scores in found]), len(slots))
    return best(slots, scores.astype(np.float32), k)
