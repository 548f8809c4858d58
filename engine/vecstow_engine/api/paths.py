"""The path and the query of a request: a raw path is split at its slashes first, then unquoted once.

`docs%2Fa.md` is therefore one id, and no escape can add a segment. An unquoted segment is a name or an id,
and is checked before use, so that it cannot hold a path outside the data directory.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from vecstow_engine.api.errors import Malformed
from vecstow_engine.model.errors import InvalidInput, refused
from vecstow_engine.model.fields import integer

_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_QUERY_FIELDS_MAX: Final = 32
_INTEGER: Final = re.compile(r"-?[0-9]{1,1000}")
"""Python converts no text of many thousand digits."""


def unquote_segment(segment: str) -> str:
    """Return one path segment with its escapes decoded; raise Malformed for bad escapes and bad UTF-8."""
    if "%" not in segment:
        return segment
    if _BROKEN_ESCAPE.search(segment):
        raise Malformed(
            f"path segment {segment[:80]!r} has a broken percent escape", details=refused("path", segment)
        )
    try:
        return unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError as broken:
        raise Malformed(
            f"path segment {segment[:80]!r} is not valid UTF-8", details=refused("path", segment)
        ) from broken


def parse_query(query: bytes, allowed: tuple[str, ...]) -> dict[str, str]:
    """Return the query's parameters.

    Raises InvalidInput for unknown or repeated ones, Malformed for a query that cannot be parsed.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_QUERY_FIELDS_MAX,
        )
    except ValueError as broken:
        raise Malformed("the query string cannot be read", details={"field": "query"}) from broken
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise InvalidInput(
                f"unknown query parameter {name[:80]!r}; known here: {known}",
                details={"field": name, "known": list(allowed)},
            )
        if name in values:
            raise InvalidInput(f"query parameter {name!r} is given twice", details=refused(name, value))
        values[name] = value
    return values


def query_boolean(values: dict[str, str], name: str) -> bool | None:
    """Return a query parameter as a truth value, None when absent; raise InvalidInput."""
    text = values.get(name)
    if text not in (None, "true", "false"):
        raise InvalidInput(
            f"query parameter {name} is {text[:80]!r}; it must be true or false",
            details=refused(name, text, ["true", "false"]),
        )
    return None if text is None else text == "true"


def query_integer(values: dict[str, str], name: str, low: int, high: int) -> int | None:
    """Return a query parameter as an integer in [low, high], None when absent; raise InvalidInput."""
    text = values.get(name)
    if text is None:
        return None
    if _INTEGER.fullmatch(text) is None:
        raise InvalidInput(
            f"query parameter {name} is {text[:80]!r}; it must be an integer from {low} to {high}",
            details=refused(name, text),
        )
    return integer(int(text), name, low, high)
