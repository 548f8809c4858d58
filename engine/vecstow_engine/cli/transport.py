"""The HTTP transport to an engine: address, proxy, certificates, and explanations of errors.

httpx can read the proxies from the environment itself, but fails on values that other programs accept, for
example a range of IPv6 addresses in NO_PROXY.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from typing import Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies_environment

import certifi
import httpx

from vecstow_engine.model.errors import InvalidInput

CONNECT_SECONDS: Final = 5.0
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


def open_http(url: str, headers: dict[str, str], answer_seconds: float | None) -> httpx.Client:
    """Return an HTTP client for the engine at `url`; `answer_seconds` limits an answer, None: no limit.

    Raises InvalidInput for an address, a proxy or certificates that cannot be used.
    """
    parts = _checked(url)
    proxy = _proxy(parts.scheme, parts.hostname or "")
    try:
        return httpx.Client(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS),
            # Certificates are read for https only: reading them takes longer than most requests.
            verify=_certificates() if parts.scheme == "https" else False,
            trust_env=False,
            proxy=None if proxy is None else proxy[1],
        )
    except (httpx.InvalidURL, ValueError, ImportError):
        # The message does not quote the address of the proxy, which may hold a password.
        variable = "a variable" if proxy is None else proxy[0]
        raise InvalidInput(
            f"{variable} names a proxy that cannot be used; it must be like http://proxy.example:3128",
            hint="NO_PROXY=HOST asks that host without a proxy",
        ) from None


def route(url: str) -> str:
    """Return the address for messages, with the variable that names the proxy, if there is one."""
    parts = urlsplit(url)
    proxy = _proxy(parts.scheme, parts.hostname or "")
    return url if proxy is None else f"{url} through {proxy[0]}"


def explain(error: Exception) -> tuple[str, str]:
    """Return the text of a request's error, and a hint."""
    text = str(error) or type(error).__name__
    return text, next((hint for part, hint in _HINTS if part in text), _HINT)


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port, httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as wrong:
        raise _no_address(url, str(wrong)) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _no_address(url, "it has no http:// or https://, or no host")
    if "@" in parts.netloc:
        raise InvalidInput(
            f"--url {_shown(url)} has a user name or a password; an engine takes an API key",
            hint="--key-file FILE, or VECSTOW_API_KEY",
        )
    if parts.query or parts.fragment or " " in url:
        raise _no_address(url, "it has a space, a ? or a #")
    return parts


def _no_address(url: str, problem: str) -> InvalidInput:
    return InvalidInput(f"--url {_shown(url)} is no address: {problem}; it must be like {EXAMPLE}")


def _shown(url: str) -> str:
    """Return the address for messages, without a password."""
    return repr(re.sub(r"//.*@", "//…@", url)[:SHOWN_CHARACTERS_MAX])


def _proxy(scheme: str, host: str) -> tuple[str, str] | None:
    """Return the variable that names the proxy for a host, and the proxy's address; None for no proxy."""
    proxies = getproxies_environment()
    if _is_excepted(host, proxies.get("no", "")):
        return None
    for name in (scheme, "all"):
        if address := proxies.get(name):
            return f"{name.upper()}_PROXY", address if "://" in address else f"http://{address}"
    return None


def _is_excepted(host: str, no_proxy: str) -> bool:
    """Whether the host needs no proxy: NO_PROXY names it, or it is this machine, which no proxy reaches."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_matches(entry, host, address) for entry in re.split(r"[,\s]+", no_proxy.lower()))


def _matches(entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    """Whether an entry of NO_PROXY (`*`, a domain, an address, a range of addresses) names the host."""
    if entry == "*":
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            return False
    domain = entry.lstrip("*.").partition(":")[0]
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _certificates() -> ssl.SSLContext:
    """Return the authorities that OpenSSL's variables name, else those of certifi; raise InvalidInput."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    try:
        return ssl.create_default_context(cafile=file or (None if folder else certifi.where()), capath=folder)
    except OSError as error:
        raise InvalidInput(f"SSL_CERT_FILE {file} cannot be used: {error.strerror or error}") from error
