"""The OpenAPI document: FastAPI's, with the routes of health and points, which FastAPI does not serve."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from vecstow_engine.api.access import Access, access_of
from vecstow_engine.api.health_routes import HEALTH_ROUTES
from vecstow_engine.api.point_routes import POINT_ROUTES, PointRoute
from vecstow_engine.api.schemas import ErrorEnvelope
from vecstow_engine.model.searches import EF_SEARCH_MAX, LIMIT_MAX

Schema = dict[str, Any]

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

_ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 256, "example": "docs/a.md"}
_VECTOR: Final[Schema] = {"type": "array", "items": {"type": "number"}, "example": [0.1, 0.2, 0.3]}
_BIN: Final[Schema] = {"type": "string", "format": "binary"}
_METADATA: Final[Schema] = {"type": ["object", "null"], "example": {"section": "net", "size": 12}}
_FILTER: Final[Schema] = {"type": ["object", "null"], "example": {"section": "net", "size": {"$lt": 20}}}
_SEARCH_INTEGERS: Final[dict[str, Schema]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
    "ef_search": {"type": "integer", "minimum": 1, "maximum": EF_SEARCH_MAX},
}
"""The parameters of a search in the query string; in a body they may also be null."""


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_NULL_OR_ID: Final[Schema] = {**_ID, "type": ["string", "null"]}
_POINT_IN: Final = _object(("data",), id=_NULL_OR_ID, data=_VECTOR, metadata=_METADATA)
_POINT_OUT: Final = _object(("id", "data", "metadata"), id=_ID, data=_VECTOR, metadata=_METADATA)
_IDS: Final[Schema] = {"type": "array", "items": _ID}
_SEARCH_OPTIONS: Final[dict[str, Schema]] = {
    **{name: kind | {"type": ["integer", "null"]} for name, kind in _SEARCH_INTEGERS.items()},
    "filter": _FILTER,
}

COMPONENTS: Final[dict[str, Schema]] = {
    "Point": _POINT_IN,
    "PackedPoint": _object(("data",), id=_NULL_OR_ID, data=_BIN, metadata=_METADATA),
    "Batch": _object(
        ("vectors",), vectors={"type": "array", "items": {"$ref": "#/components/schemas/Point"}}
    ),
    "PackedBatch": _object(
        ("vectors",),
        ids={"type": ["array", "null"], "items": _ID},
        vectors={**_BIN, "description": "n * d little-endian float32"},
        metadata={"type": ["array", "null"], "items": _METADATA},
    ),
    "Search": _object(("vector",), vector=_VECTOR, **_SEARCH_OPTIONS),
    "PackedSearch": _object(("vector",), vector=_BIN, **_SEARCH_OPTIONS),
    "Ids": _object(("ids",), ids=_IDS),
    "StoredPoint": _POINT_OUT,
    "Hit": _object(
        ("id", "distance", "metadata"),
        id=_ID,
        distance={"type": "number", "example": 0.12},
        metadata=_METADATA,
    ),
}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_ID_AND_MESSAGE: Final = _object(("id", "message"), id=_ID, message={"type": "string"})
_ID_AND_DELETED: Final = _object(("id", "deleted"), id=_ID, deleted={"type": "boolean"})
_POINT_OR_NULL: Final[Schema] = {"anyOf": [_ref("StoredPoint"), {"type": "null"}]}

_OPERATIONS: Final[dict[tuple[str, str], tuple[str, str | None, str | None, Schema]]] = {
    ("POST", "/vectors"): (
        "Insert or replace a point; without an id one is made",
        "Point",
        "PackedPoint",
        _ID,
    ),
    ("POST", "/vectors/batch"): ("Insert points, all or none", "Batch", "PackedBatch", _IDS),
    ("POST", "/search"): (
        "Find the nearest points, nearest first",
        "Search",
        "PackedSearch",
        {"type": "array", "items": _ref("Hit")},
    ),
    ("GET", "/vectors/{id}"): ("Get a point", None, None, _ref("StoredPoint")),
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
    if json_body and packed_body:
        content = {
            "application/json": {"schema": _ref(json_body)},
            "application/msgpack": {"schema": _ref(packed_body)},
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
    kind = {"type": "string"} if place == "path" else _SEARCH_INTEGERS[name]
    return {"name": name, "in": place, "required": place == "path", "schema": kind}


def _envelope(data: Schema) -> Schema:
    return _object(("success", "data", "error"), success={"const": True}, data=data, error={"type": "null"})


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
        "content": {"application/json": {"schema": _ref("ErrorEnvelope")}},
    }


def _add_errors(operation: Schema) -> None:
    for status, description in _ERRORS.items():
        operation["responses"][status] = _error(description)
