"""The errors of texts that no decoder accepts: broken syntax, too many levels, numbers beyond float64.

The command line uses them for the lines of its input files too.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any, Final

from msgspec import Raw

from vecstow_engine.api.errors import Malformed
from vecstow_engine.model.errors import InvalidInput, refused
from vecstow_engine.model.filter_parser import DEPTH_MAX
from vecstow_engine.model.payloads import PAYLOAD_DEPTH_MAX, shown_path

Buffer = bytes | bytearray | memoryview | Raw

_PLACE: Final = re.compile(r"\(byte (\d+)\)$")
_PREFIX: Final = re.compile(r"^(JSON|MessagePack data) is malformed: ")
"""The words that an error of ours says itself."""
_NO_NUMBER: Final = re.compile(rb"nan|inf", re.IGNORECASE)
_NO_NUMBER_BYTES: Final = 4
"""Number of bytes that are compared with these names, from the character that the decoder refused."""
_LITERAL_CHARACTERS_SHOWN: Final = 80
_NAMED_BYTES_MAX: Final = 1 << 20
"""The largest text that is decoded once more to name a number: objects take many times the text's memory."""


def malformed(body: Buffer, broken: Exception, *, is_json: bool) -> Malformed:
    """Return the error for a body that is not valid JSON or MessagePack."""
    if not is_json:
        message = f"the body is not valid MessagePack: {reason_of(broken)}"
        return Malformed(message, details={"field": "body"})
    hint = "NaN and Infinity are no JSON numbers; every value must be finite"
    return Malformed(
        f"the body is not valid JSON: {reason_of(broken)}",
        hint=hint if _is_no_number(body, str(broken)) else None,
        details={"field": "body"},
    )


def reason_of(broken: Exception) -> str:
    """Return a decoder's message without the words that the text is malformed."""
    return _PREFIX.sub("", str(broken))


def too_deep(field: str, is_search: bool) -> InvalidInput:
    """Return the error for a field, or a body (no field), that nests deeper than a decoder reads.

    In a search only the filter may nest. No field of another body may have more levels than a payload.
    """
    limit = DEPTH_MAX if is_search else PAYLOAD_DEPTH_MAX
    levels = "levels of $and, $or and $not" if is_search else "levels"
    message = f"{field or 'the body'} nests too deep; at most {limit} {levels} are allowed"
    return InvalidInput(message, details={"field": field or "body", "limit": limit})


def beyond_float64(text: Buffer, prefix: str) -> InvalidInput | None:
    """Return the error for the first number beyond float64 in a JSON text.

    `prefix` is the name of the field that contains the text. Returns None for a text without such a number,
    and for a text above 1 MiB.
    """
    if memoryview(text).nbytes > _NAMED_BYTES_MAX:
        return None
    try:
        found = _find_beyond(json.loads(bytes(text), parse_float=_number, parse_int=_number))
    except (ValueError, RecursionError):
        return None
    if found is None:
        return None
    path, literal = found
    field = shown_path(prefix, path).lstrip(".") or "body"
    message = (
        f"{field} is {literal[:_LITERAL_CHARACTERS_SHOWN]}, which is out of range: "
        f"numbers have at most the magnitude {sys.float_info.max}"
    )
    return InvalidInput(message, details=refused(field, literal, sys.float_info.max))


class _Beyond(str):
    """A literal that no float64 can hold."""


def _number(literal: str) -> object:
    return _Beyond(literal) if math.isinf(float(literal)) else 0


def _find_beyond(value: Any) -> tuple[list[object], str] | None:
    if isinstance(value, _Beyond):
        return [], value
    members: Any = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value) if isinstance(value, list) else members:
        if (found := _find_beyond(inner)) is not None:
            return [key, *found[0]], found[1]
    return None


def _is_no_number(body: Buffer, message: str) -> bool:
    """Whether a decoder stopped at NaN or Infinity, which JSON does not have."""
    place = _PLACE.search(message)
    if place is None:
        return False
    start = max(0, int(place[1]) - 1)  # `nan` begins like `null`: the decoder refuses its second character
    return _NO_NUMBER.search(memoryview(body)[start : start + 1 + _NO_NUMBER_BYTES]) is not None
