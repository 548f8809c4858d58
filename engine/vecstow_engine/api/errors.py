"""The HTTP answers of errors: the one table of status codes.

Errors that only HTTP has extend the model's tree:

    VecstowError
    ├── Unauthenticated      no key, or an unknown key
    ├── Forbidden            a key whose role or collections do not suffice
    ├── Malformed            bytes that are not valid JSON, MessagePack, URL or HTTP
    ├── MethodNotAllowed     the path exists, not with this method
    ├── UnsupportedMedia     a content type that the route does not read
    │   └── UnsupportedEncoding    a body that is compressed
    ├── PreconditionFailed   a point that does not meet the condition of its write
    ├── UnknownExpectation   an Expect header other than 100-continue
    ├── SlowBody             the body did not arrive in time
    └── NotFound
        └── UnknownRoute     no such path
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final, get_origin

from vecstow_engine.model.errors import (
    MESSAGE_CHARACTERS_MAX,
    Busy,
    Conflict,
    DiskFull,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    OutOfMemory,
    Recovering,
    StorageError,
    TooLarge,
    Unavailable,
    VecstowError,
    WrongShape,
    as_storage_error,
    shortened,
)
from vecstow_engine.model.fields import unknown_field


class Unauthenticated(VecstowError):
    """Raised when a request has no key, or a key that is not in the file."""


class Forbidden(VecstowError):
    """Raised when the key of a request lacks the role, or the collection, that the route needs."""


class Malformed(VecstowError):
    """Raised when the bytes of a request cannot be parsed."""


class MethodNotAllowed(VecstowError):
    """Raised when a path does not serve this method; `allow` lists the methods that it serves."""

    def __init__(self, method: str, path: str, allow: str) -> None:
        super().__init__(f"{method} is not allowed for {path}; allowed: {allow}", details={"allow": allow})
        self.allow = allow


class UnsupportedMedia(VecstowError):
    """Raised when a body has a content type that the route does not read."""


class UnsupportedEncoding(UnsupportedMedia):
    """Raised when a body has a content coding, for example gzip."""


class PreconditionFailed(VecstowError):
    """Raised when a point does not meet the condition of its write; nothing was changed."""


class UnknownExpectation(VecstowError):
    """Raised when a request expects something other than `100-continue`."""


class SlowBody(VecstowError):
    """Raised when a body did not arrive in time."""


class UnknownRoute(NotFound):
    """Raised when no route has this path."""


STATUS: Final[dict[type[VecstowError], int]] = {
    InvalidInput: 400,
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    SlowBody: 408,
    Conflict: 409,
    PreconditionFailed: 412,
    TooLarge: 413,
    UnsupportedMedia: 415,
    UnknownExpectation: 417,
    WrongShape: 422,
    Busy: 429,
    VecstowError: 500,
    StorageError: 500,
    OutcomeUnknown: 503,
    Unavailable: 503,
    DiskFull: 507,
    OutOfMemory: 507,
}
"""The status of each class, and of its subclasses without an entry of their own."""

_RETRY_AFTER_SECONDS: Final = 1
_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
NUMBER_OUT_OF_RANGE: Final = "Number out of range"
"""The beginning of the decoder's message."""
_ID_FIELD: Final = re.compile(r"(^|\.)ids?(\[.*\])?$")


def status_of(error: VecstowError) -> int:
    """Return the HTTP status of `error`: that of the nearest class in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_headers(error: VecstowError) -> list[tuple[bytes, bytes]]:
    """Return the headers of the answer for `error`; names in lower case.

    `Retry-After` is for an error that passes, `Allow` for a wrong method, `WWW-Authenticate` for a missing
    key, `Accept-Encoding` for a coded body.
    """
    headers = []
    seconds = error.retry_after_seconds
    if seconds is None and isinstance(error, (Busy, Recovering)):
        seconds = _RETRY_AFTER_SECONDS
    if seconds is not None:
        headers.append((b"retry-after", b"%d" % seconds))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, UnsupportedEncoding):
        headers.append((b"accept-encoding", b"identity"))
    if isinstance(error, Unauthenticated):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def error_document(error: VecstowError) -> dict[str, Any]:
    """Return the envelope of an error. `details` has at least `kind`, the name of the error's class."""
    details: dict[str, Any] = {"kind": type(error).__name__} | error.details
    for name in ("collection", "operation", "hint"):
        value = getattr(error, name)
        if value is not None:
            details[name] = value
    return {
        "success": False,
        "data": None,
        "error": error.message,
        "message": error.message,
        "details": details,
    }


def unexpected_error(error: Exception) -> VecstowError:
    """Return the error that a client gets for an unforeseen exception; the log has the details.

    An OSError keeps its message, any other exception becomes `internal error`.
    """
    if isinstance(error, OSError):
        return as_storage_error(error, "answering the request")
    return VecstowError("internal error", hint="the server's log has the reason")


def wrong_shape(kind: Any, message: str, prefix: str) -> WrongShape | InvalidInput:
    """Return the error for msgspec's `message` on a body that is no `kind`; `prefix` is the body's field."""
    match = _AT.match(shortened(message, MESSAGE_CHARACTERS_MAX))
    what, path = (match["what"], match["path"] or "") if match else (message, "")
    # The decoder does not name the keys of an object with any keys.
    field = (prefix + path.partition("[...]")[0]).lstrip(".")
    if unknown := _UNKNOWN.fullmatch(what):
        struct = kind.Entry if path else get_origin(kind) or kind
        return unknown_field(unknown[1], struct.__struct_fields__, field)
    if missing := _MISSING.fullmatch(what):
        name = f"{field}.{missing[1]}".lstrip(".")
        return WrongShape(f"{field or 'the body'} has no field {missing[1]!r}", details={"field": name})
    if _ID_FIELD.search(field):
        what += "; ids are strings"
    text = f"{field}: {what}" if field else what
    if what.startswith(NUMBER_OUT_OF_RANGE):
        return InvalidInput(text, details={"field": field or "body", "limit": sys.float_info.max})
    return WrongShape(text.replace("`", ""), details={"field": field or "body"})
