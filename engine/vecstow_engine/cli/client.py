"""The REST client of the commands: one request, one answer; errors keep the engine's message."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import httpx

from vecstow_engine.cli.transport import SHOWN_CHARACTERS_MAX, explain, open_http, route
from vecstow_engine.model.errors import Unavailable, VecstowError
from vecstow_engine.model.key_source import KEY_VARIABLE

ANSWER_SECONDS: Final = 600.0
"""The longest wait for an answer: compaction and imports answer only at their end."""
MESSAGEPACK: Final = "application/msgpack"
RETRY_SECONDS_DEFAULT: Final = 1.0
UNAUTHENTICATED: Final = 401
KEY_HINT: Final = f"put the key into the environment as {KEY_VARIABLE}, or into a file: --key-file FILE"


class Unreachable(Unavailable):
    """Raised when no engine answers at the address, or another program answers."""


class RequestRefused(VecstowError):
    """Raised when the engine answers with an error; carries the error's message, hint and HTTP status."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        hint: str | None = None,
        details: dict[str, object] | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details, retry_after_seconds=retry_after_seconds)
        self.status = status


class Client:
    """A connection to one engine; use it as a context manager. `key` is sent with each request.

    `answer_seconds` limits the time of an answer; None: no limit. A call is repeated for `patience_seconds`
    while the engine does not answer, or answers with Retry-After; each call must then be idempotent. The
    calls raise Unreachable and RequestRefused.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        answer_seconds: float | None = ANSWER_SECONDS,
        patience_seconds: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/")
        self.patience_seconds = patience_seconds
        self._sleep = sleep
        self._now = now
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = open_http(self.url, headers, answer_seconds)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, *segments: str, **parameters: str | int) -> Any:
        """Return the data of `GET /segment/segment`."""
        return self._patiently("GET", segments, params=parameters)

    def post(self, *segments: str, document: object = None, **parameters: str | int) -> Any:
        """Return the data of a POST with `document` as the JSON body."""
        # In ASCII: UTF-8 cannot hold half a surrogate pair, which the engine refuses with a clear message.
        body = None if document is None else json.dumps(document).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        return self._patiently("POST", segments, params=parameters, content=body, headers=headers)

    def post_messagepack(self, *segments: str, body: bytes) -> Any:
        """Return the data of a POST whose body is MessagePack already."""
        return self._patiently("POST", segments, content=body, headers={"Content-Type": MESSAGEPACK})

    def delete(self, *segments: str) -> Any:
        """Return the data of a DELETE."""
        return self._patiently("DELETE", segments)

    def _patiently(self, method: str, segments: tuple[str, ...], **request: Any) -> Any:
        path = "/" + "/".join(quote(segment, safe="") for segment in segments)
        deadline = self._now() + self.patience_seconds
        while True:
            try:
                return self._once(method, path, request)
            except (Unreachable, RequestRefused) as error:
                wait = _wait_seconds(error)
                if wait is None or self._now() + wait > deadline:
                    raise
            self._sleep(wait)

    def _once(self, method: str, path: str, request: Mapping[str, Any]) -> Any:
        try:
            response = self._http.request(method, path, **request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            problem, hint = explain(error)
            raise Unreachable(f"no answer from {route(self.url)}: {problem}", hint=hint) from error
        return _data(self.url, response)


def _data(url: str, response: httpx.Response) -> Any:
    """Return the envelope's data; raise RequestRefused, or Unreachable without an envelope."""
    try:
        envelope = response.json()
        if envelope["success"] and response.is_success:
            return envelope["data"]
    except (ValueError, TypeError, KeyError, RecursionError):
        moved = response.headers.get("Location", "")[:SHOWN_CHARACTERS_MAX]
        raise Unreachable(
            f"{url} answered {response.status_code} {response.reason_phrase}, but not as a Vecstow engine",
            hint=f"it redirects to {moved}" if moved else "check --url and VECSTOW_URL",
        ) from None
    details = envelope.get("details")
    details = details if isinstance(details, dict) else {}
    raise RequestRefused(
        str(envelope.get("message") or envelope.get("error") or response.reason_phrase),
        status=response.status_code,
        hint=KEY_HINT if response.status_code == UNAUTHENTICATED else details.get("hint"),
        details=details,
        retry_after_seconds=_retry_after(response),
    )


def _retry_after(response: httpx.Response) -> int | None:
    value = response.headers.get("Retry-After", "")
    return int(value) if value.isdecimal() else None


def _wait_seconds(error: VecstowError) -> float | None:
    """Return the seconds to wait before the same request is sent again; None when a repeat is useless."""
    if isinstance(error, Unreachable):
        return RETRY_SECONDS_DEFAULT
    if error.retry_after_seconds is not None:
        return float(error.retry_after_seconds)
    return None
