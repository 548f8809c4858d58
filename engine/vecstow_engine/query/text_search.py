"""Searches for words, alone or fused with a search near a vector.

The text indexes rank the points that may match the filter by BM25. Each hit is checked by its payload. The
distance of a hit is its score with a minus, so that smaller distances come first here too.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec.structs import replace

from vecstow_engine.index.exact import Hits
from vecstow_engine.index.text.fields import search_fields
from vecstow_engine.index.text.text_index import TextIndex
from vecstow_engine.model.errors import Unavailable
from vecstow_engine.model.explanation import Explanation
from vecstow_engine.model.points import make_labels
from vecstow_engine.model.searches import LIMIT_MAX, NO_PAYLOAD, Hit, SearchOptions
from vecstow_engine.model.text_searches import TextQuery, text_fields
from vecstow_engine.query.contents import with_contents
from vecstow_engine.query.filtered import (
    DOUBT_CANDIDATES,
    DOUBT_FACTOR,
    describe_candidates,
    without_few_doubts,
)
from vecstow_engine.query.fusion import fuse
from vecstow_engine.query.matching import find_candidates
from vecstow_engine.query.nearest import growing, nearest_hits
from vecstow_engine.query.ranking import admitted
from vecstow_engine.query.search import required, resolve
from vecstow_engine.query.source import Source

FUSED_FACTOR: Final = 4
FUSED_MIN: Final = 100
"""Each list of a fused search has four times as many points as the search has hits, at least 100."""


def answer_text(source: Source, query: TextQuery) -> list[Hit]:
    """Return the hits, best first; search again when points among them are gone.

    Raises Unavailable while an index of a text field is not complete.
    """
    for attempt in source.attempts():
        with attempt:
            found = _words_alone(source, query) if query.near is None else _fused(source, query)
            chosen = admitted(found, frozenset(), query.max_distance)[query.offset : query.hits_read]
            hits = with_contents(source, chosen, query, with_payloads=True)
        if None not in hits:
            break
        source.hide_withheld()
    return [hit for hit in hits if hit is not None]


def _fused(source: Source, query: TextQuery) -> list[Hit]:
    """Return the points of both lists by their fused score."""
    assert query.near is not None
    note = query.explanation or Explanation()
    count = min(max(FUSED_FACTOR * query.hits_read, FUSED_MIN), LIMIT_MAX) + len(query.excluded)
    near = nearest_hits(source, replace(query.near, limit=count, payload=NO_PAYLOAD))
    near_plan = note.plan
    lists = [admitted(hits, query.excluded, None) for hits in (near, _best_by_words(source, query, count))]
    note.plan = "fusion"
    note.reason = f"{len(lists[0])} points by the plan {near_plan}, and {len(lists[1])} by words"
    labels = {hit.id: hit.label for hits in lists for hit in hits}
    weights = (query.fusion.vector, query.fusion.text)
    ranked = fuse([[hit.id for hit in hits] for hits in lists], weights, query.fusion.k)
    return [Hit(point_id, -score, None, labels[point_id]) for point_id, score in ranked]


def _words_alone(source: Source, query: TextQuery) -> list[Hit]:
    return _best_by_words(source, query, query.hits_read)


def _best_by_words(source: Source, query: TextQuery, count: int) -> list[Hit]:
    """Return the `count` best points that match and contain one of the words, without payloads."""
    note = query.explanation or Explanation()
    note.plan, note.reason = "words", "the search has a text, and no vector"
    indexes = _text_indexes(source)
    options: SearchOptions = replace(query, limit=count, payload=NO_PAYLOAD)
    for attempt in source.attempts():
        with attempt:
            position = source.view.position()
            with note.step("filter"):
                candidates = find_candidates(source, query.filter)
                note.counts = {"points": candidates.live_count}
                if query.filter is not None:
                    candidates = without_few_doubts(source, query.filter, candidates)
                    describe_candidates(note, source, query.filter, candidates)
            first = max(DOUBT_FACTOR * count, DOUBT_CANDIDATES) if candidates.has_doubts else count
            for size in growing(first, max(first, candidates.possible_count)):
                with note.step("words"):
                    slots, scores = search_fields(indexes, query.text, size, candidates.possible)
                labels = make_labels(slots.astype(np.int64), candidates.epochs[slots])
                with note.step("payloads"):
                    [gathered] = resolve(source.view, Hits(labels[None], -scores[None]), [options])
                hits = required(gathered.result)
                if len(hits) >= count or len(slots) < size:
                    break
            is_undisturbed = not gathered.gone and source.view.position() == position
        if is_undisturbed:
            break
        source.hide_withheld()
    return hits


def _text_indexes(source: Source) -> list[TextIndex]:
    texts = source.columns.texts if source.columns is not None else {}
    for field in text_fields(source.manifest):
        if field not in texts:
            name = source.manifest.name
            raise Unavailable(
                f"the text index of field {field!r} is being built",
                collection=name,
                hint=f"GET /collections/{name} has its progress",
                retry_after_seconds=1,
            )
    return [texts[field] for field in text_fields(source.manifest)]
