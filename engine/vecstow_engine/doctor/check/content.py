"""What a checksum cannot tell: that a point's values are such as are written."""

from __future__ import annotations

import json

from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.model.names import check_point_id


def content_problem(point_id: str, payload: bytes | None) -> str | None:
    """What of a point is not such as is written; None when all of it is."""
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
