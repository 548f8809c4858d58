"""The filter language: conditions on a point's payload. The language is described in docs/filters.md.

Charter: `nodes` is what a filter says, `parse` refuses what is not one, `compile` makes it quick to test. A
filter knows payloads only; which points are tested, and when, is the caller's matter.
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
