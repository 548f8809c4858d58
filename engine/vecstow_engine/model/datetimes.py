"""Datetimes in payloads and filters: strings in the form of RFC 3339, compared by instant.

docs/filters.md has the accepted forms. A payload keeps the string as it was sent.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_FORM: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
"""Date, time and offset of RFC 3339, at most to nanoseconds and without leap seconds.

`datetime.fromisoformat` reads other forms too.
"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def parse_datetime(text: str) -> datetime | None:
    """Return the instant of an RFC 3339 datetime in UTC, or None for any other text.

    Of a second's fraction, one to nine digits are read, and those after the sixth are cut off. A leap second
    (`:60`) is None, and so is an instant outside of the years 1 to 9999 in UTC.
    """
    if _FORM.fullmatch(text) is None:
        return None
    try:
        instant = datetime.fromisoformat(text.upper())
        return instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def microseconds(instant: datetime) -> int:
    """Return the microseconds from 1970-01-01T00:00:00Z to an aware datetime; exact, and within int64."""
    return (instant - _EPOCH) // _MICROSECOND
