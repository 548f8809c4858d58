"""The application: the dispatcher in front, FastAPI behind it, the engine's life tied to the server's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import Depends, FastAPI, Response
from fastapi import Request as FastRequest
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

import vecstow_engine
from vecstow_engine.api import collection_routes, server_routes
from vecstow_engine.api.collector import EngineCollector
from vecstow_engine.api.context import refuse_unknown_query, response_of, wanted_media
from vecstow_engine.api.dispatch import Dispatcher
from vecstow_engine.api.envelope import failure
from vecstow_engine.api.errors import Malformed, MethodNotAllowed, UnknownRoute, internal_error
from vecstow_engine.api.metrics import HttpMetrics
from vecstow_engine.api.openapi import document
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.api.workers import Workers
from vecstow_engine.model.errors import InvalidInput, VecstowError, WrongShape

if TYPE_CHECKING:
    from vecstow_engine.service.engine import Engine

log = structlog.stdlib.get_logger(__name__)

OnFailure = Callable[[Exception], None]


class Application(FastAPI):
    """FastAPI with the dispatcher in front of it: hot routes pass none of its layers."""

    dispatcher: Dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the lifespan."""
        await self.dispatcher(scope, receive, send)


def create_app(
    engine: Engine, settings: HttpSettings | None = None, on_start_failure: OnFailure | None = None
) -> FastAPI:
    """The ASGI application over `engine`, which it starts and stops.

    `on_start_failure` is called when `engine.start` raised: the server then has nothing to serve.
    """
    settings = settings or HttpSettings()
    app = Application(
        title="Vecstow",
        version=vecstow_engine.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Figures are at /metrics; nothing is sent anywhere, whatever the environment says.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        lifespan=_lifespan(engine, on_start_failure),
        dependencies=[Depends(refuse_unknown_query)],
    )
    app.state.engine = engine
    app.state.workers = Workers()
    app.state.metrics = HttpMetrics(CollectorRegistry())
    app.state.metrics.registry.register(EngineCollector(engine, settings.metrics_collections_max))
    app.include_router(collection_routes.router)
    app.include_router(server_routes.router)
    app.add_exception_handler(VecstowError, _on_vecstow_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_any_exception)
    app.dispatcher = Dispatcher(
        super(Application, app).__call__, engine=engine, settings=settings, metrics=app.state.metrics
    )
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


def _lifespan(engine: Engine, on_start_failure: OnFailure | None) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # The server listens only after this generator has yielded, and /health/live answers from then on:
        # so the volume is discovered beside it.
        starting = asyncio.create_task(_start(engine, on_start_failure))
        yield
        if await starting:
            await asyncio.to_thread(engine.stop)
        app.state.workers.close()

    return lifespan


async def _start(engine: Engine, on_failure: OnFailure | None) -> bool:
    try:
        await asyncio.to_thread(engine.start)
    except Exception as refused:
        if on_failure is None:
            log.exception("the engine did not start")
        else:
            on_failure(refused)
        return False
    return True


async def _on_vecstow_error(request: FastRequest, error: Exception) -> Response:
    assert isinstance(error, VecstowError)
    return _failed(request, error)


async def _on_validation_error(request: FastRequest, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _failed(request, from_validation(error.errors()))


async def _on_http_exception(request: FastRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    if error.status_code == 405:
        return _failed(request, MethodNotAllowed(request.method, path, _allowed(request)))
    if error.status_code == 404:
        return _failed(request, UnknownRoute(f"no route {path[:200]}", hint="GET /openapi.json lists them"))
    return _failed(request, Malformed(str(error.detail)))


async def _on_any_exception(request: FastRequest, error: Exception) -> Response:
    # Starlette raises it again once this is sent; the dispatcher logs it.
    return _failed(request, internal_error())


def _allowed(request: FastRequest) -> str:
    """The methods of every route that has this path: Starlette names those of the first one only."""
    path = request.scope["path"]
    routes = [*collection_routes.router.routes, *server_routes.router.routes]
    found = [route for route in routes if isinstance(route, APIRoute) and route.path_regex.match(path)]
    return ", ".join(sorted(method for route in found for method in route.methods or ()))


def from_validation(errors: Any) -> VecstowError:
    """The first of Pydantic's complaints as one of ours: 422 for a wrong shape, 400 for a wrong value."""
    first = errors[0]
    place = [str(part) for part in first["loc"]]
    field = ".".join(place[1:]) or place[0]
    if first["type"] == "json_invalid":
        return Malformed("the body is not valid JSON", details={"field": "body"})
    message = f"{field}: {first['msg']}"
    shape = first["type"] in ("missing", "extra_forbidden") or first["type"].endswith(
        ("_type", "_from_float")
    )
    if shape and place[0] != "query":
        return WrongShape(message, details={"field": field})
    return InvalidInput(message, details={"field": field})


def _failed(request: FastRequest, error: VecstowError) -> Response:
    return response_of(failure(error, wanted_media(request)))
