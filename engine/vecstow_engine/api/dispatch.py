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
    KEY_IN_SCOPE,
    ROUTE_IN_SCOPE,
    access_of,
    authorise,
    find_place,
    identify,
)
from vecstow_engine.api.bodies import Disconnected, Receive, read_arrived, read_body
from vecstow_engine.api.body_limits import (
    BATCH,
    BATCH_HINT,
    BODY_LIMITS,
    REFRESH,
    REFRESH_HINT,
    SMALL,
    BodyLimit,
)
from vecstow_engine.api.decoding import read_json
from vecstow_engine.api.envelope import failure
from vecstow_engine.api.errors import (
    Forbidden,
    Malformed,
    MethodNotAllowed,
    Unauthenticated,
    UnknownRoute,
    UnsupportedMedia,
    unexpected_error,
)
from vecstow_engine.api.exchange import JSON_IN_SCOPE, Exchange, Replay, Send
from vecstow_engine.api.health_routes import HEALTH_ROUTES, check_ready, health_answer
from vecstow_engine.api.media import Media
from vecstow_engine.api.metrics import HttpMetrics
from vecstow_engine.api.paths import raw_path, unquote_segment
from vecstow_engine.api.point_routes import POINT_ROUTES, find_point_route
from vecstow_engine.api.request import BODILESS_METHODS, Request
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.api.shares import Owner, Shares
from vecstow_engine.model.errors import Busy, InvalidInput, Unavailable, VecstowError
from vecstow_engine.service.fair_pool import TENANT

if TYPE_CHECKING:
    from vecstow_engine.api.key_file import KeyFile
    from vecstow_engine.service.engine import Engine

App = Callable[[Any, Receive, Send], Awaitable[None]]

ALWAYS_ANSWERED: Final = frozenset({"/metrics", "/openapi.json"})
"""Paths that answer during discovery and under any load, like health."""
STATE_PATHS: Final = frozenset({"/state", "/state/refresh"})
"""Paths by which the operator checks readiness: they have a limit of their own, `state_requests_max`."""
PATH_CHARACTERS_LOGGED: Final = 300
_DISCARD_SECONDS: Final = 5.0
_DISCARDING_MAX: Final = 32
_OPERATOR_STATUSES: Final = frozenset({500, 507})
"""Statuses that are logged as warnings. For a 503 the change of the state was logged already."""
_CLIENT_GONE: Final = 499
"""Status for a client that disconnected, as nginx numbers it; only metrics and log contain it."""
_STRANGERS_STATUS: Final = 401
"""Status that is logged at debug only, so that requests without a key do not fill the log."""
_ASKED_BY_THE_CLOCK: Final = "/state/refresh"
"""The route that the sidecar calls every few seconds."""

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
        self._body_limits = {route: limit.within(largest) for route, limit in BODY_LIMITS.items()}
        self._body_limits[BATCH] = BodyLimit(largest, BATCH_HINT)
        self._body_limits[REFRESH] = BodyLimit(settings.findings_bytes_max, REFRESH_HINT)
        self._small = SMALL.within(largest)
        self._in_flight = 0
        self._shares = Shares(settings.requests_in_flight_max)
        self._state_requests = 0
        self._discarding = 0
        metrics.watch(lambda: self._in_flight)
        metrics.watch_memory(self._memory)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange(scope, receive, send, self._memory.lease(), self._settings)
        self._in_flight += 1
        try:
            await self._serve(exchange)
        finally:
            exchange.lease.release()
            self._in_flight -= 1
            self._record(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._route(exchange)
        except Disconnected:
            exchange.status = _CLIENT_GONE
        except VecstowError as error:
            await self._refuse(exchange, error)
        except asyncio.CancelledError:
            await self._refuse(exchange, Unavailable("the server is shutting down"))
        except Exception as error:
            log.exception(
                "request failed", method=exchange.scope["method"], path=exchange.path[:PATH_CHARACTERS_LOGGED]
            )
            await self._refuse(exchange, unexpected_error(error))

    async def _route(self, exchange: Exchange) -> None:
        exchange.path = path = raw_path(exchange.scope["raw_path"])
        exchange.request = request = Request(exchange.scope, path, exchange.lease)
        exchange.body_read = not request.has_body
        if path in HEALTH_ROUTES:
            exchange.route = path
            names = self._may_be_told_names(exchange)
            await exchange.answer(health_answer(self._engine, request, names=names))
            return
        if self._keys is not None:
            exchange.key = identify(self._keys.ring, exchange.scope["headers"])
            TENANT.set(exchange.key.name)
        exchange.match = match = find_point_route(request.method, path)
        # The key is checked before the body is read: a client without a key must not make the server wait.
        if match is None:
            self._choose_route(exchange, request)
        else:
            exchange.route = match.route.template
            if exchange.key is not None:
                authorise(exchange.key, request.method, exchange.route, match.collection)
        if path in STATE_PATHS:
            await self._answer_state(exchange, request)
            return
        if path in ALWAYS_ANSWERED:
            await self._answer_in_turn(exchange, request)
            return
        self._check_open()
        owners = _owners(exchange)
        self._shares.take(owners)
        try:
            await self._answer_in_turn(exchange, request)
        finally:
            self._shares.give(owners)

    async def _answer_in_turn(self, exchange: Exchange, request: Request) -> None:
        match = exchange.match
        await self._read_body(exchange, request)
        if match is None:
            await self._hand_on(exchange, request)
            return
        answer = await match.answer(self._engine, request)
        # The memory is given back before the answer is sent: a client may read slowly.
        exchange.lease.release()
        await exchange.answer(answer)

    async def _answer_state(self, exchange: Exchange, request: Request) -> None:
        limit = self._settings.state_requests_max
        if self._state_requests >= limit:
            raise Busy(f"{limit} requests for the state are in flight, the limit", details={"limit": limit})
        check_ready(self._engine)
        self._state_requests += 1
        try:
            # State requests must not wait for the memory of uploads; their number is limited above.
            exchange.lease.is_urgent = True
            await self._read_body(exchange, request)
            await self._hand_on(exchange, request)
        finally:
            self._state_requests -= 1

    def _may_be_told_names(self, exchange: Exchange) -> bool:
        """Whether the answer of a health route, which needs no key, may name collections."""
        if self._keys is None:
            return True
        try:
            key = identify(self._keys.ring, exchange.scope["headers"])
            authorise(key, "GET", "/metrics")
        except (Unauthenticated, Forbidden):
            return False
        return True

    def _choose_route(self, exchange: Exchange, request: Request) -> None:
        """Choose the route that FastAPI serves, and authorise the key.

        A method without a route needs the key of the path's least role. Raises UnknownRoute, MethodNotAllowed
        and Forbidden.
        """
        place = find_place(request.path)
        if place is None:
            raise UnknownRoute(f"no route {request.path[:200]}", hint="GET /openapi.json lists them")
        template = place.template(request.method)
        method, exchange.route = place.routes[0] if template is None else (request.method, template)
        if exchange.key is not None:
            authorise(exchange.key, method, exchange.route, unquote_segment(place.collection))
            exchange.scope[KEY_IN_SCOPE] = exchange.key
            exchange.scope[ROUTE_IN_SCOPE] = exchange.route
        if template is None:
            raise MethodNotAllowed(request.method, request.path[:200], place.allow)

    def _check_open(self) -> None:
        if self._in_flight > self._settings.requests_in_flight_max:
            limit = self._settings.requests_in_flight_max
            raise Busy(f"{limit} requests are in flight, the limit", details={"limit": limit})
        check_ready(self._engine)

    async def _read_body(self, exchange: Exchange, request: Request) -> None:
        if not request.has_body:
            return
        # A body in an unsupported format is refused before it is read.
        request.check_encoding()
        bodiless = request.method in BODILESS_METHODS
        if not bodiless and request.body_media is not Media.JSON and exchange.match is None:
            raise UnsupportedMedia("this route reads application/json alone")
        limit = self._body_limits.get((request.method, exchange.route), self._small)
        receive, lease = exchange.receive, exchange.lease
        request.body = (
            await read_arrived(receive, limit, lease)
            if exchange.body_has_arrived
            else await read_body(receive, request.declared_bytes, limit, lease, self._settings)
        )
        exchange.body_read = True
        if request.declared_bytes not in (None, len(request.body)):
            raise Malformed(f"{request.declared_bytes} bytes of body are declared, others came")
        if request.body and bodiless:
            raise InvalidInput(f"{request.method} takes no body", details={"field": "body"})

    async def _hand_on(self, exchange: Exchange, request: Request) -> None:
        # A copy: the server's own scope must keep the method HEAD.
        scope = exchange.scope | {"path": request.path, "method": request.method}
        has_body = bool(request.body)
        if has_body:
            scope[JSON_IN_SCOPE] = await request.decode(read_json)
        await self._app(scope, Replay(has_body, exchange.receive), exchange.send)

    async def _refuse(self, exchange: Exchange, error: VecstowError) -> None:
        if exchange.started:
            # An answer has begun. The server closes a connection whose answer is not complete.
            return
        media = exchange.request.answer_media if exchange.request else Media.JSON
        answer = failure(error, media)
        if exchange.body_read:
            await exchange.answer(answer)
            return
        answer.headers = [*answer.headers, (b"connection", b"close")]
        await exchange.answer(answer, last=False)
        await self._discard(exchange)
        await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self, exchange: Exchange) -> None:
        """Read the rest of the body for a while, and discard it.

        The kernel resets a connection that is closed with unread bytes. Most clients then miss the answer.
        """
        if self._discarding >= _DISCARDING_MAX:
            return
        self._discarding += 1
        try:
            async with asyncio.timeout(_DISCARD_SECONDS):
                message = await exchange.receive()
                while message["type"] == "http.request" and message.get("more_body", False):
                    message = await exchange.receive()
        except TimeoutError:
            return
        finally:
            self._discarding -= 1

    def _record(self, exchange: Exchange) -> None:
        seconds = perf_counter() - exchange.began
        method = exchange.scope["method"]
        self._metrics.observe(exchange.route, method, exchange.status, seconds)
        if exchange.status in _OPERATOR_STATUSES:
            write = log.warning
        elif _changes(exchange) and exchange.status != _STRANGERS_STATUS:
            write = log.info
        elif _stdlib_log.isEnabledFor(logging.DEBUG):
            write = log.debug
        else:
            return
        write(
            "request",
            method=method,
            path=exchange.path[:PATH_CHARACTERS_LOGGED],
            status=exchange.status,
            duration_ms=round(seconds * 1000, 3),
            **({} if exchange.key is None else {"key": exchange.key.name}),
        )


def _owners(exchange: Exchange) -> list[Owner]:
    """Return the owners whose shares of the requests in flight a request takes: key and collection."""
    owners = [] if exchange.key is None else [("key", exchange.key.name)]
    if exchange.match is not None:
        owners.append(("collection", exchange.match.collection))
    return owners


def _changes(exchange: Exchange) -> bool:
    """Whether the request changes more than points; such requests are few."""
    is_few = exchange.match is None and exchange.scope["method"] not in ("GET", "HEAD")
    return is_few and exchange.route != _ASKED_BY_THE_CLOCK
