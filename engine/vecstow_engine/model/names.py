"""Names of collections, ids of points, uids of incarnations."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Final

from vecstow_engine.model.errors import InvalidInput, WrongShape, refused

COLLECTION_NAME_CHARACTERS_MAX: Final = 64
COLLECTION_PATTERN: Final = rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{COLLECTION_NAME_CHARACTERS_MAX - 1}}}"
"""A pattern for `fullmatch`: `$` would admit a trailing newline."""

COLLECTION_RULE: Final = "1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or digit"
"""The pattern in words."""

RESERVED_NAMES: Final = frozenset({"wal", "deleted", "restore", "import", "cleanup"})
POINT_ID_CHARACTERS_MAX: Final = 256

_COLLECTION = re.compile(COLLECTION_PATTERN)
_PLAIN_ID = rf"[^.\n\ud800-\udfff]{{1,{POINT_ID_CHARACTERS_MAX}}}+"
_PLAIN_IDS = re.compile(rf"(?:{_PLAIN_ID}\n)*+{_PLAIN_ID}")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UID = re.compile(r"[0-9a-f]{32}")


def is_collection_name(name: str) -> bool:
    """Whether `name` is a legal name of a collection, and so of its folder."""
    return _COLLECTION.fullmatch(name) is not None and name not in RESERVED_NAMES


def check_collection_name(name: object, field: str = "name") -> str:
    """Return `name`; raise InvalidInput or WrongShape when it is not a legal collection name."""
    if not isinstance(name, str):
        raise WrongShape(
            f"{field} is {type(name).__name__}; it must be a string", details=refused(field, name)
        )
    if name in RESERVED_NAMES:
        raise InvalidInput(
            f"{field} {name!r} is reserved",
            hint=f"reserved: {', '.join(sorted(RESERVED_NAMES))}",
            details=refused(field, name, COLLECTION_RULE),
        )
    if _COLLECTION.fullmatch(name) is None:
        raise InvalidInput(
            f"{field} {name[:80]!r} is not legal: {COLLECTION_RULE}",
            details=refused(field, name, COLLECTION_RULE),
        )
    return name


def are_plain_point_ids(ids: Sequence[object]) -> bool:
    """Whether all ids are legal, as far as one pass over their joined text can prove.

    False does not mean that an id is illegal: `check_point_id` decides then.
    """
    try:
        lines = "\n".join(ids)  # type: ignore[arg-type]
    except TypeError:
        return False
    return lines.count("\n") == len(ids) - 1 and _PLAIN_IDS.fullmatch(lines) is not None


def check_point_id(point_id: object, field: str = "id") -> str:
    """Return `point_id`; raise InvalidInput or WrongShape when it cannot be a point's id."""
    if not isinstance(point_id, str):
        raise WrongShape(
            f"{field} is {type(point_id).__name__}; ids are strings", details=refused(field, point_id)
        )
    length = len(point_id)
    if not 1 <= length <= POINT_ID_CHARACTERS_MAX:
        raise InvalidInput(
            f"{field} has {length} characters; 1 to {POINT_ID_CHARACTERS_MAX} are allowed",
            details=refused(field, length, POINT_ID_CHARACTERS_MAX if length else 1),
        )
    if _SURROGATE.search(point_id) is not None:
        raise InvalidInput(f"{field} {point_id!r} is not valid Unicode", details=refused(field, point_id))
    if "." in point_id and any(segment in (".", "..") for segment in point_id.split("/")):
        raise InvalidInput(
            f"{field} {point_id!r} has a path segment '.' or '..', which URLs cannot carry",
            details=refused(field, point_id),
        )
    return point_id


def new_point_id() -> str:
    """Return a random UUID, the form of d-vecDB's ids."""
    return str(uuid.uuid4())


def new_collection_uid() -> str:
    """Return a random uid for one incarnation of a collection: 32 lower-case hex digits."""
    return uuid.uuid4().hex


def is_collection_uid(uid: object) -> bool:
    """Whether `uid` has the form of a collection uid."""
    return isinstance(uid, str) and _UID.fullmatch(uid) is not None
