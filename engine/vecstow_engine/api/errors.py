"""From an error to its HTTP answer: the one table of codes.

Errors that only HTTP knows extend the model's tree:

    VecstowError
    ├── Unauthenticated      no key, or none that is known
    ├── Forbidden            a key whose role or collections do not suffice
    ├── Malformed            bytes that are no JSON, no MessagePack, no URL of ours
    ├── MethodNotAllowed     the path exists, not with this method
    ├── UnsupportedMedia     a content type that the route does not read
    │   └── UnsupportedEncoding    a body that is compressed
    ├── UnknownExpectation   an Expect header that is not met here
    ├── SlowBody             the body did not arrive in time
    └── NotFound
        └── UnknownRoute     no such path
"""

from __future__ import annotations

from typing import Any, Final

from vecstow_engine.model.errors import (
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
)
from vecstow_engine.storage.files import as_storage_error


class Unauthenticated(VecstowError):
    """Raised when a request brings no key, or one that is not in the file."""


class Forbidden(VecstowError):
    """Raised when the key of a request has not the role, or not the collection, that the route needs."""


class Malformed(VecstowError):
    """Raised when the bytes of a request cannot be read at all."""


class MethodNotAllowed(VecstowError):
    """Raised when a path is known but not with this method; `allow` lists those that are."""

    def __init__(self, method: str, path: str, allow: str) -> None:
        super().__init__(f"{method} is not allowed for {path}; allowed: {allow}", details={"allow": allow})
        self.allow = allow


class UnsupportedMedia(VecstowError):
    """Raised when a body comes in a content type that the route does not read."""


class UnsupportedEncoding(UnsupportedMedia):
    """Raised when a body comes in a content coding."""


class UnknownExpectation(VecstowError):
    """Raised when a request expects anything but `100-continue`."""


class SlowBody(VecstowError):
    """Raised when a body did not arrive in the time it had."""


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
"""The status of a class and of its subclasses that are not listed themselves."""

_RETRY_AFTER_SECONDS: Final = 1


def status_of(error: VecstowError) -> int:
    """The HTTP status of `error`: that of the nearest class in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_headers(error: VecstowError) -> list[tuple[bytes, bytes]]:
    """`Retry-After` for what passes by itself, `Allow` for a wrong method, `WWW-Authenticate` when a key is
    missing, `Accept-Encoding` for a coded body; names in lower case.
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
    """The envelope of an error. `details` has at least `kind`, the name of the error's class."""
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
    """What a client learns of an error that nobody foresaw: of one of the system's calls what it said, else
    that there was one; the log has the rest.
    """
    if isinstance(error, OSError):
        return as_storage_error(error, "answering the request")
    return VecstowError("internal error", hint="the server's log has the reason")
