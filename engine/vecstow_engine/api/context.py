"""The dependencies of FastAPI's routes: engine, threads, format of the answer, collection's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, ParamSpec, TypeVar

from fastapi import Depends, Response
from fastapi import Request as FastRequest
from fastapi.routing import APIRoute

from vecstow_engine.api.access import (
    COLLECTION_IN_SCOPE,
    KEY_IN_SCOPE,
    ROUTE_IN_SCOPE,
    Key,
    authorise_collection,
)
from vecstow_engine.api.answers import Answer, Media, media_of_answer, success
from vecstow_engine.api.dispatch import JSON_IN_SCOPE
from vecstow_engine.api.errors import Forbidden
from vecstow_engine.api.paths import parse_query, unquote_segment
from vecstow_engine.model.errors import Conflict, WrongShape
from vecstow_engine.model.names import check_collection_name
from vecstow_engine.service.fair_pool import FairPool

if TYPE_CHECKING:
    from vecstow_engine.service.engine import Engine

WAITING_MAX: Final = 64
"""The most calls that wait for a thread, in each of the slow pools."""

P = ParamSpec("P")
T = TypeVar("T")


class DecodedRoute(APIRoute):
    """A route whose body the dispatcher has already decoded, within the limits."""

    def get_route_handler(self) -> Callable[[FastRequest], Coroutine[Any, Any, Response]]:
        """Return the handler, for a request whose `json` returns the decoded body."""
        handler = super().get_route_handler()

        async def handle(request: FastRequest) -> Response:
            return await handler(_DecodedRequest(request.scope, request.receive))

        return handle


class _DecodedRequest(FastRequest):
    """A request whose body is `{}`, which stands for the decoded body, or empty."""

    async def body(self) -> bytes:
        return b"{}" if JSON_IN_SCOPE in self.scope else b""

    async def json(self) -> Any:
        return self.scope[JSON_IN_SCOPE]


class Workers:
    """The threads for blocking calls of the service; their number does not depend on the collections.

    Three pools: a listing never waits for a backup of an hour, nor for a drop that waits for that backup.

    In the two slow pools no collection and no key takes the last thread.
    """

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(4, thread_name_prefix="api")
        self._waiting = FairPool(4, "api-waiting", WAITING_MAX)
        self._long = FairPool(3, "api-long", WAITING_MAX)

    async def quick(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that takes milliseconds and waits for no lock; return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, partial(call, *args, **kwargs))

    async def waiting(self, collection: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that may wait long for a lock on names or files, and then takes milliseconds."""
        return await self._waiting.run(collection, partial(call, *args, **kwargs))

    async def long(
        self, collection: str | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a call whose time grows with the size of a collection."""
        return await self._long.run(collection, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Start no more calls; let the running calls finish."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._waiting.shutdown(wait=False)
        self._long.shutdown(wait=False)


class Context:
    """The application as one request sees it."""

    def __init__(self, request: FastRequest) -> None:
        self.engine: Engine = request.app.state.engine
        self.workers: Workers = request.app.state.workers
        self._key: Key | None = request.scope.get(KEY_IN_SCOPE)
        self._media = wanted_media(request)

    @property
    def is_limited(self) -> bool:
        """Whether the request's key is for some collections only."""
        return self._key is not None and bool(self._key.patterns)

    def reaches(self, collection: str) -> bool:
        """Whether an answer to this request may name that collection."""
        return self._key is None or self._key.reaches(collection)

    def authorise(self, collection: str, given: str = "") -> None:
        """Raise Forbidden unless the request may touch that collection; `given` is an alias of it."""
        if self._key is not None:
            authorise_collection(self._key, collection, given)

    def reply(self, data: Any) -> Response:
        """Return `data` in the envelope, in the format that the client asks for."""
        return response_of(success(data, self._media))


def wanted_media(request: FastRequest) -> Media:
    """Return the format that the request's Accept header asks for."""
    accept = request.headers.get("accept")
    return media_of_answer(None if accept is None else accept.encode("latin-1"))


def response_of(answer: Answer) -> Response:
    """Return a Starlette response that sends `answer` unchanged."""
    response = Response(answer.body, answer.status, media_type=answer.media.decode())
    response.raw_headers.extend(answer.headers)
    return response


async def _context(request: FastRequest) -> Context:
    return Context(request)


async def _collection_name(request: FastRequest, collection: str) -> str:
    """Return the collection that the name in the path leads to: the one that the key was checked for."""
    check_collection_name(unquote_segment(collection), "collection")
    behind: str = request.scope[COLLECTION_IN_SCOPE]
    return behind


async def _own_name(request: FastRequest, collection: str) -> str:
    """Return the name in the path; raise Conflict for an alias."""
    behind = await _collection_name(request, collection)
    name = unquote_segment(collection)
    if behind != name:
        raise Conflict(
            f"{name!r} is an alias of collection {behind!r}, which is deleted under its own name alone",
            collection=behind,
            hint=f"DELETE /aliases/{name} removes the alias; DELETE /collections/{behind} the collection",
        )
    return name


async def _alias_name(alias: str) -> str:
    return check_collection_name(unquote_segment(alias), "alias")


async def refuse_another_route(request: FastRequest) -> None:
    """Raise Forbidden unless the route is the one that the request's key was authorised for."""
    template = request.scope["route"].path
    if request.scope.get(KEY_IN_SCOPE) is not None and request.scope.get(ROUTE_IN_SCOPE) != template:
        raise Forbidden(f"no key may use {template}")


async def refuse_unknown_query(request: FastRequest) -> None:
    """Raise InvalidInput for a query parameter that the route does not take."""
    known = tuple(field.alias for field in request.scope["route"].dependant.query_params)
    parse_query(request.scope["query_string"], known)


async def refuse_unknown_body(request: FastRequest) -> None:
    """Raise WrongShape for a body that the route does not read, except an empty object or null."""
    if request.scope["route"].body_field is None and request.scope.get(JSON_IN_SCOPE) not in (None, {}):
        raise WrongShape("this route takes no body", details={"field": "body"})


InContext = Annotated[Context, Depends(_context)]
CollectionName = Annotated[str, Depends(_collection_name)]
"""The collection that the name in the path leads to."""
OwnName = Annotated[str, Depends(_own_name)]
"""The same, when it must be the collection's own name."""
AliasName = Annotated[str, Depends(_alias_name)]
"""The name of an alias in the path."""
