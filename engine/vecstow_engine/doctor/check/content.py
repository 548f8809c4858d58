"""The check that a checksum cannot make: a point's values are some that a write accepts."""

from __future__ import annotations

import json

from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.model.names import check_point_id


def content_problem(point_id: str, payload: bytes | None) -> str | None:
    """Return which value of a point no write accepts; None when all are accepted."""
    try:
        check_point_id(point_id)
    except InvalidInput as error:
        return error.message
    if payload is not None and not is_json_object(payload):
        return "its payload is no JSON object"
    return None


def is_json_object(payload: bytes) -> bool:
    """Whether a payload is what is stored as one."""
    try:
        return isinstance(json.loads(payload), dict)
    except (ValueError, RecursionError):
        return False
