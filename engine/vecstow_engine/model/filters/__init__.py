"""The filter language: conditions on a point's payload, described in docs/filters.md.

Charter: `nodes` defines the parts of a filter, `parse` rejects other documents, and `compile` makes tests
fast. A filter knows payloads only; the caller decides which points are tested, and when.
"""

from vecstow_engine.model.filters.nodes import And, Condition, Filter, Node, Not, Or
from vecstow_engine.model.filters.parse import (
    CONDITIONS_MAX,
    DEPTH_MAX,
    FIELD_CHARACTERS_MAX,
    IN_VALUES_MAX,
    parse_filter,
)

__all__ = [
    "CONDITIONS_MAX",
    "DEPTH_MAX",
    "FIELD_CHARACTERS_MAX",
    "IN_VALUES_MAX",
    "And",
    "Condition",
    "Filter",
    "Node",
    "Not",
    "Or",
    "parse_filter",
]
