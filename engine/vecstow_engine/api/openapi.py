"""The OpenAPI document: FastAPI's, with the routes of health and points, which FastAPI does not serve."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from vecstow_engine.api.access import Access, access_of
from vecstow_engine.api.health_routes import HEALTH_ROUTES
from vecstow_engine.api.point_routes import BY_METHOD, POINT_ROUTES, PointRoute
from vecstow_engine.api.schema_parts import (
    BIN,
    ID,
    METADATA,
    VECTOR,
    Operation,
    Schema,
    object_of,
    or_null,
    ref,
)
from vecstow_engine.api.schemas import ErrorEnvelope
from vecstow_engine.api.search_schemas import SEARCH_COMPONENTS, SEARCH_OPERATIONS, SEARCH_PARAMETERS
from vecstow_engine.api.selection_schemas import SELECTION_COMPONENTS, SELECTION_OPERATIONS

DESCRIPTION: Final = """\
Collections of vectors that come back from their volume alone. Every answer is
`{"success", "data", "error"}`; an error also has `message` and `details`, and a real status.
Names and ids in a path are percent-encoded once: `docs%2Fa.md` is one id.
Keys are asked for when the server was started with them; the least role stands next to each route."""

_ERRORS: Final = {
    "400": "A value breaks a limit, or the body cannot be read; nothing was changed",
    "404": "No such collection or point",
    "405": "The path does not serve this method; the header Allow lists those that it serves",
    "408": "The body did not arrive in time",
    "409": "It exists, or something else owns or holds it",
    "413": "The body or the batch is larger than the limit",
    "415": "The content type or coding is not read here",
    "417": "The header Expect is not 100-continue",
    "422": "Missing, unknown or mistyped fields",
    "429": "Too busy: try again after Retry-After seconds",
    "500": "A file is not what it must be, or the engine has a fault; the log has the reason",
    "503": "Not ready, read-only, quarantined or foreign",
    "507": "The volume is full, or the memory limit is reached; nothing was changed",
}

_KEY_ERRORS: Final = {
    "401": "No key, or none that is known",
    "403": "The key has not the role, or is not for the collection",
}
SECURITY_SCHEMES: Final[dict[str, Schema]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
"""The ways to send a key, when the engine requires keys; one of them suffices."""

_NULL_OR_ID: Final[Schema] = {**ID, "type": ["string", "null"]}
_CONDITIONS: Final[dict[str, Schema]] = {
    "if_absent": or_null({"type": "boolean", "description": "Write no point that exists"}),
    "if_exists": or_null({"type": "boolean", "description": "Write no point that does not exist"}),
}
_CONDITION_HEADERS: Final[dict[str, Schema]] = {
    "If-Match": {"type": "string", "description": "* for a point that exists, or ETags of the point"},
    "If-None-Match": {"const": "*", "description": "The point must not exist"},
}
_UNMET: Final = "The point does not meet the condition; nothing was changed"
_ETAG: Final[Schema] = {"description": "The version of the point, for If-Match", "schema": {"type": "string"}}
_POINT_OUT: Final = object_of(("id", "data", "metadata"), id=ID, data=VECTOR, metadata=METADATA)
_IDS: Final[Schema] = {"type": "array", "items": ID}

COMPONENTS: Final[dict[str, Schema]] = {
    "Point": object_of(("data",), id=_NULL_OR_ID, data=VECTOR, metadata=METADATA, **_CONDITIONS),
    "PackedPoint": object_of(("data",), id=_NULL_OR_ID, data=BIN, metadata=METADATA, **_CONDITIONS),
    "BatchPoint": object_of(("data",), id=_NULL_OR_ID, data=VECTOR, metadata=METADATA),
    "Batch": object_of(("vectors",), vectors={"type": "array", "items": ref("BatchPoint")}, **_CONDITIONS),
    "PackedBatch": object_of(
        ("vectors",),
        ids={"type": ["array", "null"], "items": ID},
        vectors={**BIN, "description": "n * d little-endian float32"},
        metadata={"type": ["array", "null"], "items": METADATA},
        **_CONDITIONS,
    ),
    "Ids": object_of(("ids",), ids=_IDS),
    "StoredPoint": _POINT_OUT,
    **SEARCH_COMPONENTS,
    **SELECTION_COMPONENTS,
}


_ID_AND_MESSAGE: Final = object_of(("id", "message"), id=ID, message={"type": "string"})
_ID_AND_DELETED: Final = object_of(("id", "deleted"), id=ID, deleted={"type": "boolean"})
_POINT_OR_NULL: Final[Schema] = {"anyOf": [ref("StoredPoint"), {"type": "null"}]}

_OPERATIONS: Final[dict[tuple[str, str], Operation]] = {
    ("POST", "/vectors"): (
        "Insert or replace a point; without an id one is made",
        "Point",
        "PackedPoint",
        ID,
    ),
    ("POST", "/vectors/batch"): (
        "Insert points, all or none, or those that meet a condition",
        "Batch",
        "PackedBatch",
        _IDS,
    ),
    **SEARCH_OPERATIONS,
    **SELECTION_OPERATIONS,
    ("GET", "/vectors/{id}"): ("Get a point", None, None, ref("StoredPoint")),
    ("PUT", "/vectors/{id}"): ("Store a point under this id", "Point", "PackedPoint", _ID_AND_MESSAGE),
    ("DELETE", "/vectors/{id}"): ("Delete a point", None, None, _ID_AND_MESSAGE),
    ("POST", "/vectors/get"): ("Get points by ids", "Ids", "Ids", {"type": "array", "items": _POINT_OR_NULL}),
    ("POST", "/vectors/delete"): (
        "Delete points by ids",
        "Ids",
        "Ids",
        {"type": "array", "items": _ID_AND_DELETED},
    ),
}


def document(app: FastAPI) -> Schema:
    """Return the whole document, which the first call makes."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(COMPONENTS)
        schemas["ErrorEnvelope"] = ErrorEnvelope.model_json_schema()
        for route in POINT_ROUTES:
            schema["paths"].setdefault(route.template, {})[route.method.lower()] = _operation(route)
        for path, check in HEALTH_ROUTES.items():
            schema["paths"][path] = {"get": _health_operation(path, check.__doc__ or "")}
        schema["components"]["securitySchemes"] = SECURITY_SCHEMES
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                _add_errors(operation)
                _add_security(operation, access_of(method.upper(), path))
        app.openapi_schema = schema
    return app.openapi_schema


def _operation(route: PointRoute) -> Schema:
    summary, json_body, packed_body, data = _OPERATIONS[
        route.method, route.template.removeprefix("/collections/{collection}")
    ]
    operation: Schema = {
        "tags": ["points"],
        "summary": summary,
        "operationId": f"{route.handler.__name__.lstrip('_')}_point_route",
        "parameters": [
            _parameter("path", name) for name in ("collection", "id") if f"{{{name}}}" in route.template
        ],
        "responses": {"200": _ok(data)},
    }
    operation["parameters"] += [_parameter("query", name) for name in route.query]
    operation["parameters"] += [_parameter("header", name) for name in route.conditions]
    if route.conditions:
        operation["responses"]["412"] = _error(_UNMET)
    if route.handler is BY_METHOD["GET"].handler:
        operation["responses"]["200"]["headers"] = {"ETag": _ETAG}
    if json_body and packed_body:
        content = {
            "application/json": {"schema": ref(json_body)},
            "application/msgpack": {"schema": ref(packed_body)},
        }
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _health_operation(path: str, description: str) -> Schema:
    return {
        "tags": ["health"],
        "summary": "Health",
        "description": description,
        "operationId": "_".join(["health", *path.strip("/").split("/")]),
        "responses": {"200": _ok({"const": "OK"})},
    }


def _parameter(place: str, name: str) -> Schema:
    kind = {"type": "string"} if place == "path" else (SEARCH_PARAMETERS | _CONDITION_HEADERS)[name]
    return {"name": name, "in": place, "required": place == "path", "schema": kind}


def _envelope(data: Schema) -> Schema:
    return object_of(("success", "data", "error"), success={"const": True}, data=data, error={"type": "null"})


def _ok(data: Schema) -> Schema:
    media = {"schema": _envelope(data)}
    return {
        "description": "Successful Response",
        "content": {"application/json": media, "application/msgpack": media},
    }


def _add_security(operation: Schema, access: Access) -> None:
    """Add the least role to an operation, as a scope of its security requirement (OpenAPI 3.1)."""
    if access.role is None:
        operation["security"] = []
        return
    operation["security"] = [{name: [access.role.value]} for name in SECURITY_SCHEMES]
    for status, description in _KEY_ERRORS.items():
        operation["responses"][status] = _error(description)


def _error(description: str) -> Schema:
    return {
        "description": description,
        "content": {"application/json": {"schema": ref("ErrorEnvelope")}},
    }


def _add_errors(operation: Schema) -> None:
    for status, description in _ERRORS.items():
        operation["responses"][status] = _error(description)
