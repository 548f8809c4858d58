"""The hot routes for many points: scroll, count, facet, delete, and changes of payloads."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from vecstow_engine.api.answers import VALUES_PER_STEP, Answer, success
from vecstow_engine.api.page_answer import PageAnswer
from vecstow_engine.api.request import Request, run_coding
from vecstow_engine.api.selections import (
    read_count,
    read_deletion,
    read_facet,
    read_payload_change,
    read_scroll,
)
from vecstow_engine.model.scrolls import encode_cursor
from vecstow_engine.query.scroll import ScrolledPoint
from vecstow_engine.service.request_memory import Part

if TYPE_CHECKING:
    from vecstow_engine.service.collection import Collection
    from vecstow_engine.service.engine import Engine

PAGE_BYTES_MAX: Final = 8 << 20
"""The size at which a page ends before its limit: larger answers would not fit into the account."""
READ_POINTS: Final = 1_000
"""Points that are read and rendered before other requests run."""
READ_VECTORS: Final = 128
"""The same with vectors; fewer when the vectors are large."""


async def scroll(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    """Answer one page."""
    query = await request.decode(read_scroll, collection.manifest)
    step = READ_POINTS
    if query.with_vectors:
        step = max(1, min(READ_VECTORS, VALUES_PER_STEP // collection.manifest.dimension))
    page = PageAnswer(request.answer_media, query.payload, request.lease)
    reader = engine.selections.scroll(collection, query)
    last, left = query.start, query.limit
    while True:
        # One point beyond the page shows whether another page follows.
        points = await reader.read(min(step, left + 1))
        listed, has_more = points[:left], len(points) > left
        if listed:
            size = _size(listed)
            request.lease.grow(Part.DECODED, size)
            await run_coding(size, page.add_scrolled, listed)
            last = listed[-1].position
            left = left - len(listed) if page.size < PAGE_BYTES_MAX else 0
        if has_more or reader.is_done:
            return page.page(
                encode_cursor(last, query.fingerprint) if has_more and last is not None else None
            )


async def count(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    """Answer the number of points that match."""
    wanted = await request.decode(read_count)
    return success({"count": await engine.selections.count(collection, wanted)}, request.answer_media)


async def facet(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    """Answer the most frequent values of a field, and how many points have each."""
    query = await request.decode(read_facet)
    weigh = functools.partial(request.lease.grow, Part.DECODED)
    found = await engine.selections.facet(collection, query.field, query.filter, query.limit, weigh)
    size = sum(len(value) for value, _ in found if isinstance(value, str))
    request.lease.grow(Part.ANSWERS, 2 * size)
    values = [{"value": value, "count": points} for value, points in found]
    return await run_coding(size, success, {"values": values}, request.answer_media)


async def delete_selected(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    """Delete points, and answer how many."""
    selection = await request.decode(read_deletion, engine.settings.limits.batch_points_max)
    return success({"deleted": await engine.selections.delete(collection, selection)}, request.answer_media)


async def change_payloads(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    """Change payloads, and answer how many."""
    points_max = engine.settings.limits.batch_points_max
    selection, change = await request.decode(read_payload_change, points_max)
    weigh = functools.partial(request.lease.grow, Part.DECODED)
    updated = await engine.selections.change_payloads(collection, selection, change, weigh)
    return success({"updated": updated}, request.answer_media)


def _size(points: Sequence[ScrolledPoint]) -> int:
    """Return the bytes of payloads and vectors; a number in JSON takes several times its bytes."""
    vectors = sum(point.vector.nbytes for point in points if point.vector is not None)
    return 4 * vectors + sum(len(point.payload or b"") for point in points)
