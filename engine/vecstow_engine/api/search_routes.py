"""The handlers of the routes that search; `point_routes` has their paths."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from vecstow_engine.api.answers import Answer, Media, batch_answer, groups_answer, hits_answer
from vecstow_engine.api.paths import parse_query, query_boolean, query_integer
from vecstow_engine.api.request import Request, run_coding
from vecstow_engine.api.search_decoding import (
    read_groups,
    read_recommendation,
    read_search,
    read_searches,
)
from vecstow_engine.model.queries import options_of
from vecstow_engine.model.searches import EF_SEARCH_MAX, LIMIT_MAX, SearchOptions
from vecstow_engine.service.request_memory import Lease, Part

if TYPE_CHECKING:
    from vecstow_engine.service.collection import Collection
    from vecstow_engine.service.engine import Engine

SEARCH_QUERY: Final = {"limit": (1, LIMIT_MAX), "ef_search": (1, EF_SEARCH_MAX)}
"""The query parameters of a search, each with its least and its largest value."""
EXPLAIN: Final = "explain"
"""The query parameter, and the member of a body, that asks for an explanation."""
SEARCH_PARAMETERS: Final = (*SEARCH_QUERY, EXPLAIN)
EXPLAIN_HEADER: Final = b"vecstow-explain"
JSON_FACTOR: Final = 4
"""The bytes that a vector takes as JSON for each byte in memory."""


async def search(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    """Answer one search: the hits."""
    query: dict[str, int | None] = {}
    if request.query:
        values = parse_query(request.query, SEARCH_PARAMETERS)
        query = {field: query_integer(values, field, *bounds) for field, bounds in SEARCH_QUERY.items()}
        query[EXPLAIN] = query_boolean(values, EXPLAIN)
    asked = await request.decode(read_search, collection.manifest, query)
    hits = await engine.search(collection, asked)
    options = options_of(asked)
    return await _render(request, partial(hits_answer, hits, options), options)


async def recommend(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    """Answer a search by examples: the hits."""
    asked = await request.decode(read_recommendation, collection.manifest)
    hits = await engine.search(collection, asked)
    return await _render(request, partial(hits_answer, hits, asked.options), asked.options)


async def search_batch(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    """Answer several searches: the hits of each."""
    searches = await request.decode(read_searches, collection.manifest)
    lists = await engine.search_batch(collection, searches)
    options = [options_of(each) for each in searches]
    return await _render(request, partial(batch_answer, lists, options), *options)


async def search_groups(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    """Answer a grouped search: the groups with their hits."""
    asked = await request.decode(read_groups, collection.manifest)
    groups = await engine.search_groups(collection, asked)
    options = options_of(asked.search)
    return await _render(request, partial(groups_answer, groups, options), options)


async def _render(
    request: Request, render: Callable[[Media, Lease], Answer], *options: SearchOptions
) -> Answer:
    """Return the answer of `render`, in a thread when it is large."""
    size = request.lease.parts[Part.ANSWERS]
    if any(each.with_vectors for each in options):
        size *= JSON_FACTOR
    answer = await run_coding(size, render, request.answer_media, request.lease)
    for explanation in filter(None, (each.explanation for each in options)):
        answer.headers = [(EXPLAIN_HEADER, json.dumps(explanation.document()).encode())]
    return answer
