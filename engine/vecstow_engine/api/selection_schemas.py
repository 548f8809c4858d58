"""The schemas and operations of the routes for many points in the OpenAPI document."""

from __future__ import annotations

from typing import Final

from vecstow_engine.api.schema_parts import FILTER, ID, METADATA, VECTOR, Operation, Schema, object_of, ref
from vecstow_engine.model import scrolls
from vecstow_engine.model.payloads import CHOSEN_FIELDS_MAX, FIELD_CHARACTERS_MAX
from vecstow_engine.model.selections import UNSET_FIELDS_MAX
from vecstow_engine.query import facet

_FIELD: Final[Schema] = {"type": "string", "maxLength": FIELD_CHARACTERS_MAX, "example": "place.city"}
_IDS: Final[Schema] = {"type": ["array", "null"], "items": ID}
_CURSOR: Final[Schema] = {"type": ["string", "null"], "description": "next_cursor of the page before"}
_PART: Final[Schema] = {"type": ["object", "null"], "example": {"section": "net"}}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_SCALAR: Final[Schema] = {"type": ["string", "number", "boolean", "null"]}


def _up_to(most: int) -> Schema:
    return {"type": ["integer", "null"], "minimum": 1, "maximum": most}


def _fields(most: int) -> Schema:
    return {"type": "array", "items": _FIELD, "minItems": 1, "maxItems": most}


SELECTION_COMPONENTS: Final[dict[str, Schema]] = {
    "Count": object_of((), filter=FILTER),
    "Scroll": object_of(
        (),
        filter=FILTER,
        limit=_up_to(scrolls.LIMIT_MAX),
        cursor=_CURSOR,
        order_by={
            "anyOf": [
                _FIELD,
                object_of(("field",), field=_FIELD, direction={"enum": ["asc", "desc"]}),
                {"type": "null"},
            ]
        },
        with_vectors={"type": ["boolean", "null"]},
        with_metadata={"anyOf": [{"type": ["boolean", "null"]}, _fields(CHOSEN_FIELDS_MAX)]},
    ),
    "Facet": object_of(("field",), field=_FIELD, filter=FILTER, limit=_up_to(facet.LIMIT_MAX)),
    "Deletion": object_of(
        (), ids=_IDS, filter=FILTER, all={"type": ["boolean", "null"], "description": "true, alone"}
    ),
    "PayloadChange": object_of(
        (),
        ids=_IDS,
        filter=FILTER,
        set=_PART,
        merge=_PART,
        unset={"anyOf": [_fields(UNSET_FIELDS_MAX), {"type": "null"}]},
    ),
    "ListedPoint": object_of(("id",), id=ID, data=VECTOR, metadata=METADATA),
}

_LISTED: Final[Schema] = {"type": "array", "items": ref("ListedPoint")}
_VALUES: Final[Schema] = {
    "type": "array",
    "items": object_of(("value", "count"), value=_SCALAR, count=_COUNT),
}

SELECTION_OPERATIONS: Final[dict[tuple[str, str], Operation]] = {
    ("POST", "/points/scroll"): (
        "List points in an order, a page at a time",
        "Scroll",
        "Scroll",
        object_of(("points", "next_cursor"), points=_LISTED, next_cursor={"type": ["string", "null"]}),
    ),
    ("POST", "/points/count"): (
        "Count points, exactly",
        "Count",
        "Count",
        object_of(("count",), count=_COUNT),
    ),
    ("POST", "/points/facet"): (
        "Count the points of each value of a field",
        "Facet",
        "Facet",
        object_of(("values",), values=_VALUES),
    ),
    ("POST", "/points/delete"): (
        "Delete points by ids or by a filter",
        "Deletion",
        "Deletion",
        object_of(("deleted",), deleted=_COUNT),
    ),
    ("POST", "/points/payload"): (
        "Change payloads by ids or by a filter, without the vectors",
        "PayloadChange",
        "PayloadChange",
        object_of(("updated",), updated=_COUNT),
    ),
}
