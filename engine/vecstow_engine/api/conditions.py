"""The conditions of requests that write points: the headers If-Match and If-None-Match, and fields of bodies.

RFC 9110, 8.8.3 and 13.1 describe entity tags and preconditions. A tag is the version of a point in quotes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from vecstow_engine.api.errors import Malformed, PreconditionFailed
from vecstow_engine.model.conditions import Condition, Presence
from vecstow_engine.model.errors import InvalidInput, refused

if TYPE_CHECKING:
    from vecstow_engine.api.request import Request

IF_MATCH: Final = "If-Match"
IF_NONE_MATCH: Final = "If-None-Match"
_TAG: Final = r'(?:W/)?"[!#-~\x80-\xff]*"'
_TAGS: Final = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
_STRONG: Final = re.compile(r'(?<!W/)"([!#-~\x80-\xff]*)"')
_ANY: Final = "*"


def refuse_conditions(request: Request, allowed: tuple[str, ...]) -> None:
    """Raise InvalidInput when a request that may write has a condition other than those `allowed`.

    A write that ignored its condition could destroy what the condition protects. Reads ignore conditions.
    """
    if request.method == "GET" or (request.if_match is None and request.if_none_match is None):
        return
    for name, value in ((IF_MATCH, request.if_match), (IF_NONE_MATCH, request.if_none_match)):
        if value is not None and name not in allowed:
            raise InvalidInput(
                f"the header {name} is not taken by {request.method} {request.route}",
                hint="If-Match goes with a write of one point, If-None-Match with PUT or POST of one point",
                details=refused(name, value.decode("latin-1"), list(allowed)),
            )


def header_condition(request: Request) -> Condition | None:
    """Return the condition in the headers of a write of one point; None without one.

    Raises Malformed for a value that is no list of tags, InvalidInput for tags in If-None-Match, and for both
    headers.
    """
    condition: Condition | None = None
    if request.if_match is not None:
        condition = _match(request.if_match.decode("latin-1").strip())
    if request.if_none_match is not None:
        value = request.if_none_match.decode("latin-1").strip()
        if value != _ANY:
            raise InvalidInput(
                f"{IF_NONE_MATCH} is {value!r}; a write takes only *",
                hint="If-Match names the versions that a write may replace",
                details=refused(IF_NONE_MATCH, value, _ANY),
            )
        condition = _only_one(condition, Presence.ABSENT, IF_NONE_MATCH, value)
    return condition


def with_fields(condition: Condition | None, if_absent: object, if_exists: object) -> Condition | None:
    """Return the condition of a write, from its headers or the fields of its body; a field counts when true.

    Raises InvalidInput for more than one condition.
    """
    if if_absent is True:
        condition = _only_one(condition, Presence.ABSENT, "if_absent", True)
    if if_exists is True:
        condition = _only_one(condition, Presence.PRESENT, "if_exists", True)
    return condition


def unmet(condition: Condition | None, collection: str, point_id: str) -> PreconditionFailed:
    """Return the error for a point that did not meet the condition of its write."""
    if condition is Presence.ABSENT:
        what, hint = "exists already", "leave the condition out to replace the point"
    elif condition is Presence.PRESENT:
        what, hint = "does not exist", "leave the condition out to insert the point"
    else:
        what = f"does not have the version that {IF_MATCH} names"
        hint = "read the point again: its ETag is the version that it has now"
    return PreconditionFailed(
        f"point {point_id!r} {what}; nothing was changed",
        collection=collection,
        hint=hint,
        details={"id": point_id},
    )


def _match(value: str) -> Condition:
    if value == _ANY:
        return Presence.PRESENT
    if _TAGS.fullmatch(value) is None:
        raise Malformed(
            f"{IF_MATCH} is {value!r}; it must be * or a list of ETags",
            hint='an ETag has double quotes around it: If-Match: "1b2c…"',
            details=refused(IF_MATCH, value),
        )
    # A weak tag never matches: If-Match compares strongly.
    return frozenset(_STRONG.findall(value))


def _only_one(before: Condition | None, condition: Condition, field: str, value: object) -> Condition:
    if before is not None:
        raise InvalidInput(
            f"{field} stands next to another condition; a write has one condition at most",
            hint="send one of If-Match, If-None-Match, if_absent and if_exists",
            details=refused(field, value),
        )
    return condition
