"""The schemas of the searches, their bodies and answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Final

from vecstow_engine.api.schema_parts import (
    BIN,
    FILTER,
    ID,
    METADATA,
    VECTOR,
    Operation,
    Schema,
    object_of,
    or_null,
    ref,
)
from vecstow_engine.api.search_decoding import SEARCHES_MAX
from vecstow_engine.model.examples import EXAMPLES_MAX, Strategy
from vecstow_engine.model.payloads import CHOSEN_FIELDS_MAX, FIELD_CHARACTERS_MAX
from vecstow_engine.model.searches import EF_SEARCH_MAX, LIMIT_MAX
from vecstow_engine.model.text_searches import FUSION_MAX, TEXT_CHARACTERS_MAX

SEARCH_PARAMETERS: Final[dict[str, Schema]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
    "ef_search": {"type": "integer", "minimum": 1, "maximum": EF_SEARCH_MAX},
    "explain": {"type": "boolean"},
}
"""The parameters of a search in the query string; in a body they may also be null."""

_FIELD: Final[Schema] = {"type": "string", "maxLength": FIELD_CHARACTERS_MAX, "example": "section"}
_CHOICE: Final[Schema] = {
    "anyOf": [
        {"type": ["boolean", "null"]},
        {"type": "array", "items": _FIELD, "minItems": 1, "maxItems": CHOSEN_FIELDS_MAX},
    ],
    "description": "Whether hits have their payload, or the fields of the payload that they have",
}
_OPTIONS: Final[dict[str, Schema]] = {
    **{name: or_null(kind) for name, kind in SEARCH_PARAMETERS.items()},
    "filter": FILTER,
    "offset": or_null({"type": "integer", "minimum": 0, "maximum": LIMIT_MAX - 1}),
    "max_distance": or_null({"type": "number"}),
    "with_vectors": or_null({"type": "boolean"}),
    "with_metadata": _CHOICE,
}
_TARGETS: Final[list[Schema]] = [{"required": ["vector"]}, {"required": ["id"]}]
_DIVERSITY: Final[Schema] = or_null({"type": "number", "minimum": 0, "maximum": 1})
_TEXT: Final[Schema] = {"type": "string", "maxLength": TEXT_CHARACTERS_MAX, "example": "image viewer"}
_WEIGHT: Final[Schema] = or_null({"type": "number", "minimum": 0, "maximum": FUSION_MAX})
_FUSION: Final[Schema] = or_null(object_of((), vector=_WEIGHT, text=_WEIGHT, k=_WEIGHT))
_GROUPING: Final[dict[str, Schema]] = {
    "group_by": _FIELD,
    "group_size": or_null({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}),
}
_STRATEGY: Final[Schema] = {"enum": [*(each.value for each in Strategy), None]}


def _near(vector: Schema, required: tuple[str, ...] = (), **more: Schema) -> Schema:
    """Return the schema of a search near a vector, or near the stored point of an id."""
    return object_of(required, vector=vector, id=ID, **_OPTIONS, **more) | {"oneOf": _TARGETS}


def _search(vector: Schema) -> Schema:
    """Return the schema of a search near a vector or a stored point, for a text, or for both."""
    members = _OPTIONS | {"diversity": _DIVERSITY, "text": or_null(_TEXT), "fusion": _FUSION}
    targets = [
        {"required": ["vector"], "properties": {"id": False}},
        {"required": ["id"], "properties": {"vector": False}},
        {"required": ["text"], "properties": {"vector": False, "id": False}},
    ]
    return object_of((), vector=vector, id=ID, **members) | {"oneOf": targets}


def _by_example(vector: Schema) -> Schema:
    examples = {"type": "array", "items": {"anyOf": [ID, vector]}, "maxItems": EXAMPLES_MAX}
    return object_of(
        ("positive",),
        positive=examples | {"minItems": 1},
        negative=or_null(examples),
        strategy=_STRATEGY,
        **_OPTIONS,
    )


def _batch(search: str) -> Schema:
    searches = {"type": "array", "items": ref(search), "maxItems": SEARCHES_MAX}
    return object_of(("searches",), searches=searches)


SEARCH_COMPONENTS: Final[dict[str, Schema]] = {
    "Search": _search(VECTOR),
    "PackedSearch": _search(BIN),
    "Searches": _batch("Search"),
    "PackedSearches": _batch("PackedSearch"),
    "GroupSearch": _near(VECTOR, ("group_by",), **_GROUPING),
    "PackedGroupSearch": _near(BIN, ("group_by",), **_GROUPING),
    "Recommendation": _by_example(VECTOR),
    "PackedRecommendation": _by_example(BIN),
    "Hit": object_of(
        ("id", "distance"),
        id=ID,
        distance={"type": "number", "example": 0.12},
        metadata=METADATA,
        data=VECTOR | {"description": "With `with_vectors` alone"},
    ),
    "Group": object_of(
        ("value", "hits"),
        value={"type": ["string", "number", "boolean"], "example": "net"},
        hits={"type": "array", "items": ref("Hit")},
    ),
}
_HITS: Final[Schema] = {"type": "array", "items": ref("Hit")}

SEARCH_OPERATIONS: Final[dict[tuple[str, str], Operation]] = {
    ("POST", "/search"): ("Find the nearest points, nearest first", "Search", "PackedSearch", _HITS),
    ("POST", "/search/batch"): (
        "Answer several searches",
        "Searches",
        "PackedSearches",
        {"type": "array", "items": _HITS},
    ),
    ("POST", "/search/groups"): (
        "Find the nearest points of each value of a field",
        "GroupSearch",
        "PackedGroupSearch",
        object_of(("groups",), groups={"type": "array", "items": ref("Group")}),
    ),
    ("POST", "/recommend"): (
        "Find points near examples, and not near others",
        "Recommendation",
        "PackedRecommendation",
        _HITS,
    ),
}
