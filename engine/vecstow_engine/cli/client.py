"""The REST client of the commands: one request, one answer; errors keep the engine's message.

httpx can read the proxies from the environment itself, but fails on values that other programs accept, for
example a range of IPv6 addresses in NO_PROXY.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import time
from contextlib import suppress
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlsplit
from urllib.request import getproxies_environment

import certifi
import httpx

from vecstow_engine.model.errors import InvalidInput, Unavailable, VecstowError
from vecstow_engine.model.key_source import KEY_VARIABLE

ANSWER_SECONDS: Final = 600.0
"""The longest wait for an answer: compaction and imports answer only at their end."""
CONNECT_SECONDS: Final = 5.0
RETRY_SECONDS_DEFAULT: Final = 1
UNAUTHENTICATED: Final = 401
KEY_HINT: Final = f"put the key into the environment as {KEY_VARIABLE}, or into a file: --key-file FILE"
EXAMPLE: Final = "http://127.0.0.1:3030"
SHOWN_CHARACTERS_MAX: Final = 200

_OTHER: Final = "another program may listen there, or one that speaks TLS: https://"
_HINTS: Final = (
    ("CERTIFICATE_VERIFY_FAILED", "SSL_CERT_FILE=ca.pem names the authority that signed its certificate"),
    ("WRONG_VERSION_NUMBER", "what listens there speaks no TLS: does the address begin with http://?"),
    ("disconnected", _OTHER),
    ("reset by peer", _OTHER),
)
"""Pairs of a part of an error's text and a hint."""
_HINT: Final = "is an engine running there? Start one with: vecstow serve --data ./data"


class Unreachable(Unavailable):
    """Raised when no engine answers at the address, or another program answers."""


class RequestRefused(VecstowError):
    """Raised when the engine answers with an error; carries the error's message, hint and HTTP status."""

    def __init__(self, response: httpx.Response, envelope: dict[str, Any]) -> None:
        details = envelope.get("details")
        details = details if isinstance(details, dict) else {}
        retry_after = response.headers.get("Retry-After", "")
        self.status = response.status_code
        super().__init__(
            str(envelope.get("message") or envelope.get("error") or response.reason_phrase),
            hint=KEY_HINT if self.status == UNAUTHENTICATED else details.get("hint"),
            details=details,
            retry_after_seconds=int(retry_after) if retry_after.isdecimal() else None,
        )


class Client:
    """A connection to one engine; use it as a context manager. `key` is sent with each request.

    `answer_seconds` limits the time of an answer; None: no limit. A call is repeated for `patience_seconds`
    while the engine does not answer, or answers with Retry-After; each call must then be idempotent. The
    calls raise Unreachable and RequestRefused. Raises InvalidInput for an address, a proxy or certificates
    that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        answer_seconds: float | None = ANSWER_SECONDS,
        patience_seconds: float = 0.0,
    ) -> None:
        self.url = url.rstrip("/")
        self.patience_seconds = patience_seconds
        parts = _checked(self.url)
        self._proxy_variable, proxy = _find_proxy(parts.scheme, parts.hostname or "")
        try:
            self._http = httpx.Client(
                base_url=self.url,
                headers={} if key is None else {"Authorization": f"Bearer {key}"},
                timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS),
                # Certificates are read for https only: reading them takes longer than most requests.
                verify=_certificates() if parts.scheme == "https" else False,
                trust_env=False,
                proxy=proxy,
            )
        except (httpx.InvalidURL, ValueError, ImportError):
            # The message does not quote the address of the proxy, which may hold a password.
            raise InvalidInput(
                f"{self._proxy_variable or 'a variable'} names a proxy that cannot be used; it must be like "
                "http://proxy.example:3128",
                hint="NO_PROXY=HOST asks that host without a proxy",
            ) from None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
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

    def put(self, *segments: str, document: object) -> Any:
        """Return the data of a PUT with `document` as the JSON body."""
        headers = {"Content-Type": "application/json"}
        return self._patiently("PUT", segments, content=json.dumps(document).encode(), headers=headers)

    def post_messagepack(self, *segments: str, body: bytes) -> Any:
        """Return the data of a POST whose body is MessagePack already."""
        return self._patiently(
            "POST", segments, content=body, headers={"Content-Type": "application/msgpack"}
        )

    def delete(self, *segments: str) -> Any:
        """Return the data of a DELETE."""
        return self._patiently("DELETE", segments)

    def _patiently(self, method: str, segments: tuple[str, ...], **request: Any) -> Any:
        path = "/" + "/".join(quote(segment, safe="") for segment in segments)
        deadline = time.monotonic() + self.patience_seconds
        while True:
            try:
                return self._once(method, path, **request)
            except (Unreachable, RequestRefused) as error:
                is_away = isinstance(error, Unreachable)
                wait = RETRY_SECONDS_DEFAULT if is_away else error.retry_after_seconds
                if wait is None or time.monotonic() + wait > deadline:
                    raise
            time.sleep(wait)

    def _once(self, method: str, path: str, **request: Any) -> Any:
        """Return the data of the envelope; raise RequestRefused, or Unreachable without an envelope."""
        try:
            response = self._http.request(method, path, **request)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            problem = str(error) or type(error).__name__
            through = f" through {self._proxy_variable}" if self._proxy_variable else ""
            hint = next((hint for part, hint in _HINTS if part in problem), _HINT)
            raise Unreachable(f"no answer from {self.url}{through}: {problem}", hint=hint) from error
        try:
            envelope = response.json()
            if envelope["success"] and response.is_success:
                return envelope["data"]
        except (ValueError, TypeError, KeyError, RecursionError):
            moved = response.headers.get("Location", "")[:SHOWN_CHARACTERS_MAX]
            raise Unreachable(
                f"{self.url} answered {response.status_code} {response.reason_phrase}, "
                "but not as a Vecstow engine",
                hint=f"it redirects to {moved}" if moved else "check --url and VECSTOW_URL",
            ) from None
        raise RequestRefused(response, envelope)


def _checked(url: str) -> SplitResult:
    """Return the parts of an address; raise InvalidInput, without a password in the message."""
    shown = repr(re.sub(r"//.*@", "//…@", url)[:SHOWN_CHARACTERS_MAX])
    problem = None
    try:
        parts = urlsplit(url)
        _ = parts.port, httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as wrong:
        problem = str(wrong)
    else:
        if parts.scheme not in ("http", "https") or not parts.hostname:
            problem = "it has no http:// or https://, or no host"
        elif "@" in parts.netloc:
            raise InvalidInput(
                f"--url {shown} has a user name or a password; an engine takes an API key",
                hint="--key-file FILE, or VECSTOW_API_KEY",
            )
        elif parts.query or parts.fragment or " " in url:
            problem = "it has a space, a ? or a #"
        else:
            return parts
    raise InvalidInput(f"--url {shown} is no address: {problem}; it must be like {EXAMPLE}")


def _find_proxy(scheme: str, host: str) -> tuple[str | None, str | None]:
    """Return the variable that names the proxy for a host, and the proxy's address; twice None for none."""
    proxies = getproxies_environment()
    if not _is_excepted(host, proxies.get("no", "")):
        for name in (scheme, "all"):
            if address := proxies.get(name):
                return f"{name.upper()}_PROXY", address if "://" in address else f"http://{address}"
    return None, None


def _is_excepted(host: str, no_proxy: str) -> bool:
    """Whether the host needs no proxy: it is this machine, or an entry of NO_PROXY names it.

    An entry is `*`, a domain, an address or a range of addresses.
    """
    entries = re.split(r"[,\s]+", no_proxy.lower())
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        domains = [entry.lstrip("*.").partition(":")[0] for entry in entries]
        named = any(domain and f".{host}".endswith(f".{domain}") for domain in domains)
        return named or host == "localhost" or "*" in entries
    for entry in entries:
        with suppress(ValueError):
            if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                return True
    return address.is_loopback or "*" in entries


def _certificates() -> ssl.SSLContext:
    """Return the authorities that OpenSSL's variables name, else those of certifi; raise InvalidInput."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)
    except OSError as error:
        raise InvalidInput(f"SSL_CERT_FILE {file} cannot be used: {error.strerror or error}") from error
