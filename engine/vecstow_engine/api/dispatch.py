"""The dispatcher, which every request passes first: path, key, limits, body; then a hot route or FastAPI.

Pure ASGI (https://asgi.readthedocs.io/en/latest/specs/www.html). The dispatcher reads the whole body before
any route runs, so that no route can forget a limit. Every exception of a route becomes an answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import structlog

from vecstow_engine.api.access import (
    ACCESS,
    BATCH,
    COLLECTION_IN_SCOPE,
    KEY_IN_SCOPE,
    REFRESH,
    ROUTE_IN_SCOPE,
    access_of,
    authorise,
    find_place,
    identify,
)
from vecstow_engine.api.answers import Media, failure
from vecstow_engine.api.conditions import refuse_conditions
from vecstow_engine.api.errors import (
    MethodNotAllowed,
    UnknownRoute,
    UnsupportedMedia,
    unexpected_error,
)
from vecstow_engine.api.health_routes import HEALTH_ROUTES, discovering, health_answer
from vecstow_engine.api.metrics import HttpMetrics
from vecstow_engine.api.parsing import read_json
from vecstow_engine.api.paths import unquote_segment
from vecstow_engine.api.point_routes import POINT_ROUTES, find_point_route
from vecstow_engine.api.request import BodyLimit, Disconnected, Receive, Request, Send
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.api.shares import Shares, owners_of
from vecstow_engine.model.errors import Busy, InvalidInput, Unavailable, VecstowError
from vecstow_engine.service.fair_pool import TENANT

if TYPE_CHECKING:
    from vecstow_engine.api.key_file import KeyFile
    from vecstow_engine.service.engine import Engine

App = Callable[[Any, Receive, Send], Awaitable[None]]

JSON_IN_SCOPE: Final = "vecstow.json"
"""The decoded body of a request that FastAPI answers."""

ALWAYS_ANSWERED: Final = frozenset({"/metrics", "/openapi.json"})
"""Paths that answer during discovery and under any load, like health."""
STATE_PATHS: Final = frozenset({"/state", REFRESH[1]})
"""Paths by which the operator checks readiness: they have a limit of their own, `state_requests_max`."""
_BODILESS_METHODS: Final = frozenset({"GET", "DELETE", "OPTIONS"})
PATH_CHARACTERS_LOGGED: Final = 300
_DISCARD_SECONDS: Final = 5.0
_DISCARDING_MAX: Final = 32
_OPERATOR_STATUSES: Final = frozenset({500, 507})
"""Statuses that are logged as warnings. For a 503 the change of the state was logged already."""
_CLIENT_GONE: Final = 499
"""Status for a client that disconnected, as nginx numbers it; only metrics and log contain it."""
_STRANGERS_STATUS: Final = 401
"""Status that is logged at debug only, so that requests without a key do not fill the log."""

log = structlog.stdlib.get_logger(__name__)
# Hot routes check the level of this logger before they build a debug line.
_stdlib_log = logging.getLogger(__name__)


class Dispatcher:
    """The steps that all requests share; `app` is the FastAPI application behind them.

    Without `keys` every request may do everything.
    """

    def __init__(
        self,
        app: App,
        *,
        engine: Engine,
        settings: HttpSettings,
        metrics: HttpMetrics,
        keys: KeyFile | None = None,
    ) -> None:
        for route in POINT_ROUTES:
            access_of(route.method, route.template)
        self._app = app
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._keys = keys
        self._memory = engine.requests
        largest = engine.settings.limits.body_bytes_max
        self._body_limits = {route: access.body.within(largest) for route, access in ACCESS.items()} | {
            BATCH: BodyLimit(largest, "send smaller batches"),
            REFRESH: BodyLimit(
                settings.findings_bytes_max, "report fewer findings, or raise VECSTOW_FINDINGS_BYTES_MAX"
            ),
        }
        self._in_flight = 0
        self._shares = Shares(settings.requests_in_flight_max)
        self._state_requests = 0
        self._discarding = 0
        metrics.watch(lambda: self._in_flight, self._memory)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on the start and stop of the server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send, self._memory.lease(), self._settings)
        self._in_flight += 1
        try:
            await self._serve(request)
        finally:
            request.lease.release()
            self._in_flight -= 1
            self._record(request)

    async def _serve(self, request: Request) -> None:
        try:
            await self._route(request)
        except Disconnected:
            request.status = _CLIENT_GONE
        except VecstowError as error:
            await self._refuse(request, error)
        except asyncio.CancelledError:
            await self._refuse(request, Unavailable("the server is shutting down"))
        except Exception as error:
            log.exception(
                "request failed", method=request.scope["method"], path=request.path[:PATH_CHARACTERS_LOGGED]
            )
            await self._refuse(request, unexpected_error(error))

    async def _route(self, request: Request) -> None:
        request.read_head()
        path = request.path
        if path in HEALTH_ROUTES:
            request.route = path
            await request.answer(health_answer(self._engine, request, self._keys))
            return
        if self._keys is not None:
            request.key = identify(self._keys.ring, request.scope["headers"])
            TENANT.set(request.key.name)
        request.match = match = find_point_route(request.method, path)
        # The key is checked before the body is read: a client without a key must not make the server wait.
        if match is None:
            self._choose_route(request)
        else:
            request.route = match.route.template
            self._authorise(request, request.method, match.collection)
        refuse_conditions(request, () if match is None else match.route.conditions)
        if path in STATE_PATHS:
            await self._answer_state(request)
            return
        if path in ALWAYS_ANSWERED:
            await self._answer(request)
            return
        if self._in_flight > (limit := self._settings.requests_in_flight_max):
            raise Busy(f"{limit} requests are in flight, the limit", details={"limit": limit})
        if not self._engine.discovered:
            raise discovering()
        owners = owners_of(request)
        self._shares.take(owners)
        try:
            await self._answer(request)
        finally:
            self._shares.give(owners)

    async def _answer(self, request: Request) -> None:
        await self._read_body(request)
        if request.match is not None:
            answer = await request.match.answer(self._engine, request)
            # The memory is given back before the answer is sent: a client may read slowly.
            request.lease.release()
            await request.answer(answer)
            return
        # A copy: the server's own scope must keep the method HEAD.
        scope = request.scope | {"path": request.path, "method": request.method}
        if request.body:
            scope[JSON_IN_SCOPE] = await request.decode(read_json)
        await self._app(scope, request.receive, request.send)

    async def _answer_state(self, request: Request) -> None:
        limit = self._settings.state_requests_max
        if self._state_requests >= limit:
            raise Busy(f"{limit} requests for the state are in flight, the limit", details={"limit": limit})
        if not self._engine.discovered:
            raise discovering()
        self._state_requests += 1
        try:
            # State requests must not wait for the memory of uploads; their number is limited above.
            request.lease.is_urgent = True
            await self._answer(request)
        finally:
            self._state_requests -= 1

    def _choose_route(self, request: Request) -> None:
        """Choose the route that FastAPI serves, and authorise the key.

        A method without a route needs the key of the path's least role. Raises UnknownRoute, MethodNotAllowed
        and Forbidden.
        """
        place = find_place(request.path)
        if place is None:
            raise UnknownRoute(f"no route {request.path[:200]}", hint="GET /openapi.json lists them")
        template = place.template(request.method)
        method, request.route = place.routes[0] if template is None else (request.method, template)
        self._authorise(request, method, unquote_segment(place.collection))
        request.scope[COLLECTION_IN_SCOPE] = request.collection
        if request.key is not None:
            request.scope[KEY_IN_SCOPE] = request.key
            request.scope[ROUTE_IN_SCOPE] = request.route
        if template is None:
            raise MethodNotAllowed(request.method, request.path[:200], place.allow)

    def _authorise(self, request: Request, method: str, name: str) -> None:
        """Find the collection behind the name in the path, and check the key for it.

        Raises Forbidden, Quarantined when aliases are unknown, and Unavailable before they are read.
        """
        is_discovered = self._engine.discovered
        request.collection = self._engine.registry.resolve(name) if name and is_discovered else name
        if request.key is not None:
            if name and not is_discovered:
                raise discovering()  # The name may be an alias of a collection that the key is for.
            authorise(request.key, method, request.route, request.collection, name)

    async def _read_body(self, request: Request) -> None:
        if not request.has_body:
            return
        # A body in an unsupported format is refused before it is read.
        request.check_encoding()
        bodiless = request.method in _BODILESS_METHODS
        if not bodiless and request.body_media is not Media.JSON and request.match is None:
            raise UnsupportedMedia("this route reads application/json alone")
        await request.read_body(self._body_limits[request.method, request.route])
        if request.body and bodiless:
            raise InvalidInput(f"{request.method} takes no body", details={"field": "body"})

    async def _refuse(self, request: Request, error: VecstowError) -> None:
        if request.started:
            # An answer has begun. The server closes a connection whose answer is not complete.
            return
        answer = failure(error, request.answer_media)
        if request.body_read:
            await request.answer(answer)
            return
        answer.headers = [*answer.headers, (b"connection", b"close")]
        await request.answer(answer, last=False)
        await self._discard(request)
        await request.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self, request: Request) -> None:
        """Read the rest of the body for a while, and discard it.

        The kernel resets a connection that is closed with unread bytes. Most clients then miss the answer.
        """
        if self._discarding >= _DISCARDING_MAX:
            return
        self._discarding += 1
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                message = await request.receive()
                while message["type"] == "http.request" and message.get("more_body", False):
                    message = await request.receive()
        except TimeoutError:
            return
        finally:
            self._discarding -= 1

    def _record(self, request: Request) -> None:
        seconds = perf_counter() - request.began
        method = request.scope["method"]
        self._metrics.observe(request.route, method, request.status, seconds)
        if request.status in _OPERATOR_STATUSES:
            write = log.warning
        elif _changes(request) and request.status != _STRANGERS_STATUS:
            write = log.info
        elif _stdlib_log.isEnabledFor(logging.DEBUG):
            write = log.debug
        else:
            return
        write(
            "request",
            method=method,
            path=request.path[:PATH_CHARACTERS_LOGGED],
            status=request.status,
            duration_ms=round(seconds * 1000, 3),
            **({} if request.key is None else {"key": request.key.name}),
        )


def _changes(request: Request) -> bool:
    """Whether the request changes more than points; such requests are few.

    The sidecar calls the route of REFRESH every few seconds.
    """
    is_few = request.match is None and request.scope["method"] not in ("GET", "HEAD")
    return is_few and request.route != REFRESH[1]
