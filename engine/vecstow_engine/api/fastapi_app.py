"""The FastAPI application, which is loaded late: its routes, and the answers of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import Depends, FastAPI, Response
from fastapi import Request as FastRequest
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

import vecstow_engine
from vecstow_engine.api import alias_routes, collection_routes, server_routes
from vecstow_engine.api.access import access_of
from vecstow_engine.api.answers import failure
from vecstow_engine.api.context import (
    Workers,
    refuse_another_route,
    refuse_unknown_body,
    refuse_unknown_query,
    response_of,
    wanted_media,
)
from vecstow_engine.api.errors import Malformed, unexpected_error
from vecstow_engine.api.metrics import HttpMetrics
from vecstow_engine.api.openapi import document
from vecstow_engine.model.errors import InvalidInput, VecstowError, WrongShape, refused

if TYPE_CHECKING:
    from vecstow_engine.service.engine import Engine


_BOUNDS: Final = ("ge", "gt", "le", "lt", "expected")
"""Pydantic's names for the limit that a value breaks."""


def create_fastapi(engine: Engine, metrics: HttpMetrics) -> FastAPI:
    """Return the application with all routes except health and points.

    Its OpenAPI document describes all routes. Raises LookupError for a route without a role.
    """
    app = FastAPI(
        title="Vecstow",
        version=vecstow_engine.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Figures are at /metrics. Nothing is sent elsewhere, even if the environment configures it.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        dependencies=[
            Depends(refuse_another_route),
            Depends(refuse_unknown_query),
            Depends(refuse_unknown_body),
        ],
    )
    app.state.engine = engine
    app.state.workers = Workers()
    app.state.metrics = metrics
    routers = (collection_routes.router, alias_routes.router, server_routes.router)
    for router in routers:
        app.include_router(router)
    for kind in (VecstowError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer_error)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    for route in [route for router in routers for route in router.routes]:
        assert isinstance(route, APIRoute)
        for method in route.methods or ():
            access_of(method, route.path)
    return app


async def _answer_error(request: FastRequest, error: Exception) -> Response:
    match error:
        case VecstowError():
            answered = error
        case RequestValidationError():
            answered = from_validation(error.errors())
        case HTTPException():
            answered = Malformed(str(error.detail))
        case _:
            # Starlette raises the exception again after the answer; the dispatcher logs it.
            answered = unexpected_error(error)
    return response_of(failure(answered, wanted_media(request)))


def from_validation(errors: Any) -> VecstowError:
    """Return the error for the first of Pydantic's errors: 422 for a wrong shape, 400 for a wrong value."""
    first = errors[0]
    place = [str(part) for part in first["loc"]]
    field = ".".join(place[1:]) or place[0]
    if first["type"] == "json_invalid":
        return Malformed("the body is not valid JSON", details={"field": "body"})
    message = f"{field}: {first['msg']}"
    if first["type"] == "missing":
        return WrongShape(message, details={"field": field})
    bounds = first.get("ctx", {})
    limit = next((bounds[name] for name in _BOUNDS if name in bounds), None)
    is_shape = first["type"].endswith(("_type", "_from_float")) and place[0] != "query"
    kind = WrongShape if is_shape else InvalidInput
    return kind(message, details=refused(field, first["input"], limit))
