"""The hot routes: points and search. The segments of the path select the route; FastAPI is not used.

`docs/api.md` and `openapi.py` describe these routes with the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vecstow_engine.api import search_routes, selection_routes
from vecstow_engine.api.access import authorise_collection
from vecstow_engine.api.answers import VALUES_PER_STEP, Answer, GrowingAnswer, point_answer, success
from vecstow_engine.api.conditions import IF_MATCH, IF_NONE_MATCH, header_condition, unmet
from vecstow_engine.api.decoding import read_batch, read_ids, read_point
from vecstow_engine.api.paths import parse_query, unquote_segment
from vecstow_engine.api.request import Request, run_coding
from vecstow_engine.model.names import check_collection_name, check_point_id
from vecstow_engine.model.points import PointBatch, check_ids
from vecstow_engine.model.searches import check_vector_count, no_such_point

if TYPE_CHECKING:
    from vecstow_engine.service.collection import Collection
    from vecstow_engine.service.engine import Engine

Handler = Callable[["Engine", Request, "Collection", str], Awaitable[Answer]]
GET_CHUNK_POINTS: Final = 128
"""Points that are read and rendered before other requests run; fewer when the vectors are large."""


@dataclass(frozen=True, slots=True)
class PointRoute:
    """One operation on points: method, template (as in metrics and OpenAPI) and handler."""

    method: str
    template: str
    handler: Handler
    query: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    """The headers with a condition that the route takes."""


@dataclass(frozen=True, slots=True)
class Match:
    """A route, with the collection and the id from the path."""

    route: PointRoute
    collection: str
    """A collection or an alias: unquoted, not checked."""
    point_id: str
    """The raw segment."""

    async def answer(self, engine: Engine, request: Request) -> Answer:
        """Check the name and the query, and return the answer of the route's handler."""
        name = check_collection_name(self.collection, "collection")
        if request.query and not self.route.query:
            parse_query(request.query, ())
        # One lookup: no step of the request can reach another collection that takes the name meanwhile.
        collection = engine.collection(name)
        # An alias may have been switched while the body arrived.
        if request.key is not None and collection.name != request.collection:
            authorise_collection(request.key, collection.name, name)
        return await self.route.handler(engine, request, collection, self.point_id)


async def _insert(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    batch = await request.decode(read_point, collection.manifest, header_condition(request))
    return success(await _upsert_one(engine, collection, batch), request.answer_media)


async def _upsert_one(engine: Engine, collection: Collection, batch: PointBatch) -> str:
    """Write the one point of a batch, and return its id; raise PreconditionFailed."""
    if not await engine.upsert(collection, batch):
        raise unmet(batch.condition, collection.name, batch.ids[0])
    return batch.ids[0]


async def _insert_batch(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    points_max = engine.settings.limits.batch_points_max
    batch = await request.decode(read_batch, collection.manifest, points_max)
    return success(await engine.upsert(collection, batch), request.answer_media)


async def _get(engine: Engine, request: Request, collection: Collection, raw_id: str) -> Answer:
    point_id = check_point_id(unquote_segment(raw_id))
    [point] = await engine.get_points(collection, [point_id])
    if point is None:
        raise no_such_point(collection.name, point_id)
    return point_answer(point, request.answer_media)


async def _put(engine: Engine, request: Request, collection: Collection, raw_id: str) -> Answer:
    point_id = check_point_id(unquote_segment(raw_id))
    batch = await request.decode(read_point, collection.manifest, header_condition(request), point_id)
    await _upsert_one(engine, collection, batch)
    return success({"id": point_id, "message": "stored"}, request.answer_media)


async def _delete(engine: Engine, request: Request, collection: Collection, raw_id: str) -> Answer:
    point_id = check_point_id(unquote_segment(raw_id))
    condition = header_condition(request)
    [is_deleted] = await engine.delete_points(collection, [point_id], condition)
    if not is_deleted:
        # A condition does not count where the request fails without it (RFC 9110, 13.2.1).
        [point] = await engine.get_points(collection, [point_id])
        if point is not None:
            raise unmet(condition, collection.name, point_id)
        raise no_such_point(collection.name, point_id)
    return success({"id": point_id, "message": "deleted"}, request.answer_media)


async def _get_many(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    ids = await request.decode(read_ids, engine.settings.limits.batch_points_max)
    check_ids(ids, "ids[{}]")
    check_vector_count(len(ids), collection.manifest, "ids")
    # Each chunk is rendered when it arrives: numbers in JSON take many times the memory of vectors.
    growing = GrowingAnswer(request.answer_media, len(ids), request.lease)
    step = max(1, min(GET_CHUNK_POINTS, VALUES_PER_STEP // collection.manifest.dimension))
    for start in range(0, len(ids), step):
        points = await engine.get_points(collection, ids[start : start + step])
        size = sum(4 * point.vector.nbytes + len(point.payload or b"") for point in points if point)
        await run_coding(size, growing.add_points, points)
        await asyncio.sleep(0)
    return growing.answer()


async def _delete_many(engine: Engine, request: Request, collection: Collection, _: str) -> Answer:
    ids = await request.decode(read_ids, engine.settings.limits.batch_points_max)
    there = await engine.delete_points(
        collection, [check_point_id(point_id, f"ids[{at}]") for at, point_id in enumerate(ids)]
    )
    rows = [{"id": point_id, "deleted": was} for point_id, was in zip(ids, there, strict=True)]
    return success(rows, request.answer_media)


_ROOT: Final = "/collections/{collection}"
_BY_ID: Final = f"{_ROOT}/vectors/{{id}}"
SEARCH: Final = PointRoute(
    "POST",
    f"{_ROOT}/search",
    search_routes.search,
    query=search_routes.SEARCH_PARAMETERS,
)
RECOMMEND: Final = PointRoute("POST", f"{_ROOT}/recommend", search_routes.recommend)
INSERT: Final = PointRoute("POST", f"{_ROOT}/vectors", _insert, conditions=(IF_MATCH, IF_NONE_MATCH))
BY_LAST: Final = {"search": SEARCH, "vectors": INSERT, "recommend": RECOMMEND}
BY_SEARCH: Final = {
    "batch": PointRoute("POST", f"{_ROOT}/search/batch", search_routes.search_batch),
    "groups": PointRoute("POST", f"{_ROOT}/search/groups", search_routes.search_groups),
}
BY_WORD: Final = {
    "batch": PointRoute("POST", f"{_ROOT}/vectors/batch", _insert_batch),
    "get": PointRoute("POST", f"{_ROOT}/vectors/get", _get_many),
    "delete": PointRoute("POST", f"{_ROOT}/vectors/delete", _delete_many),
}
BY_METHOD: Final = {
    "GET": PointRoute("GET", _BY_ID, _get),
    "PUT": PointRoute("PUT", _BY_ID, _put, conditions=(IF_MATCH, IF_NONE_MATCH)),
    "DELETE": PointRoute("DELETE", _BY_ID, _delete, conditions=(IF_MATCH,)),
}
BY_SELECTION: Final = {
    "scroll": PointRoute("POST", f"{_ROOT}/points/scroll", selection_routes.scroll),
    "count": PointRoute("POST", f"{_ROOT}/points/count", selection_routes.count),
    "facet": PointRoute("POST", f"{_ROOT}/points/facet", selection_routes.facet),
    "delete": PointRoute("POST", f"{_ROOT}/points/delete", selection_routes.delete_selected),
    "payload": PointRoute("POST", f"{_ROOT}/points/payload", selection_routes.change_payloads),
}
POINT_ROUTES: Final = tuple(
    route for routes in (BY_LAST, BY_SEARCH, BY_WORD, BY_METHOD, BY_SELECTION) for route in routes.values()
)


def find_point_route(method: str, path: str) -> Match | None:
    """Return the route of a raw path; None when no point route has this path and method.

    Raises Malformed for a collection name with bad escapes.
    """
    route: PointRoute | None
    match path.split("/"):
        case [_, "collections", collection, last] if method == "POST":
            route, raw_id = BY_LAST.get(last), ""
        case [_, "collections", collection, "search", last] if method == "POST":
            route, raw_id = BY_SEARCH.get(last), ""
        case [_, "collections", collection, "vectors", raw_id]:
            route = BY_WORD.get(raw_id) if method == "POST" else BY_METHOD.get(method)
        case [_, "collections", collection, "points", last] if method == "POST":
            route, raw_id = BY_SELECTION.get(last), ""
        case _:
            return None
    if route is None:
        return None
    return Match(route, unquote_segment(collection) if "%" in collection else collection, raw_id)
