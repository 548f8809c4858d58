"""The parts that the schemas of point routes share, for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

Schema = dict[str, Any]
Operation: TypeAlias = tuple[str, str | None, str | None, Schema]
"""A summary, the components of the JSON and MessagePack bodies, and the schema of `data`."""

ID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 256, "example": "docs/a.md"}
VECTOR: Final[Schema] = {"type": "array", "items": {"type": "number"}, "example": [0.1, 0.2, 0.3]}
BIN: Final[Schema] = {"type": "string", "format": "binary"}
METADATA: Final[Schema] = {"type": ["object", "null"], "example": {"section": "net", "size": 12}}
FILTER: Final[Schema] = {"type": ["object", "null"], "example": {"section": "net", "size": {"$lt": 20}}}


def object_of(required: tuple[str, ...], **properties: Schema) -> Schema:
    """Return the schema of an object with these members alone."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def ref(name: str) -> Schema:
    """Return the reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def or_null(schema: Schema) -> Schema:
    """Return the schema of a member that may also be null, which counts as absent."""
    return schema | {"type": [schema["type"], "null"]}
