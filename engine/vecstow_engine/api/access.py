"""API keys and their roles, the one table of routes, and the check of a request against both.

A key has a name, a role, optionally some collections, and only the digest of the key itself.

A route outside the table does not exist: the application raises LookupError when it loads such a route. A
request is authorised for one route of the table, and afterwards FastAPI must choose the same route.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final

from vecstow_engine.api.errors import Forbidden, Unauthenticated
from vecstow_engine.api.request import BodyLimit

KEY_CHARACTERS_MIN: Final = 16
KEY_CHARACTERS_MAX: Final = 256


class Role(StrEnum):
    """The permissions of a key."""

    ADMIN = "admin"
    """Everything."""
    WRITE = "write"
    """The permissions of `read`, and to store and delete points, create collections and change aliases."""
    READ = "read"
    """The permissions of `monitor`, and to search, get and describe."""
    MONITOR = "monitor"
    """State and figures, no point: for the manager and Prometheus."""
    SIDECAR = "sidecar"
    """Only `POST /state/refresh`."""


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One entry of the file of keys. Logs and answers may contain its name."""

    name: str
    role: Role
    digest: bytes = field(repr=False)
    """SHA-256 of the key."""
    patterns: tuple[str, ...] = ()
    """Patterns of collection names, with * and ?; empty: all collections."""
    _names: re.Pattern[str] | None = field(default=None, repr=False)

    def reaches(self, collection: str) -> bool:
        """Whether the key is for that collection."""
        return self._names is None or self._names.fullmatch(collection) is not None


class KeyRing:
    """The keys of one version of the file."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys: Final = tuple(keys)

    def find(self, presented: bytes) -> Key | None:
        """Return the key with these bytes, None without one. The time does not depend on the keys' values."""
        if len(presented) > KEY_CHARACTERS_MAX:
            return None
        digest = hashlib.sha256(presented).digest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


class Reach(Enum):
    """The use of a route by a key that is limited to some collections."""

    PATH = "when the collection that the name in the path leads to is one of its own"
    OWN = "the route's answer, or its body, is held to the collections of the key"
    ALL = "nothing: the route is about the volume as a whole"


KIB: Final = 1024
MIB: Final = 1024 * KIB
SMALL: Final = BodyLimit(64 * KIB)
"""A body of a few names and numbers; also the limit of routes without a body."""
_CREATE: Final = BodyLimit(512 * KIB, "declare fewer payload_indexes")
"""64 payload indexes whose names have 1,024 characters."""
_SEARCH: Final = BodyLimit(4 * MIB, "shorten the numbers of the vector, or the filter")
"""A vector of 65,536 numbers of 24 bytes, and a filter of 1 MiB."""
_SEARCHES: Final = BodyLimit(16 * MIB, "send fewer searches or examples at a time, or shorten their numbers")
"""100 vectors of 8,000 numbers of 20 bytes."""
_POINT: Final = BodyLimit(4 * MIB, "shorten the numbers of the vector, or the metadata")
"""A vector of 65,536 numbers of 24 bytes, and a payload of 256 KiB."""
_IDS: Final = BodyLimit(12 * MIB, "ask for fewer ids at a time")
"""10,000 ids of 256 characters of four bytes."""
_FILTER: Final = BodyLimit(4 * MIB, "shorten the filter")
"""A filter of 1 MiB, a cursor of 1 MiB, and 65 names of fields."""
_PAYLOADS: Final = BodyLimit(13 * MIB, "name fewer ids at a time, or shorten the metadata")
"""10,000 ids as above, and two payloads of 256 KiB."""


@dataclass(frozen=True, slots=True)
class Access:
    """The access that a route requires, and the largest body that it takes."""

    role: Role | None
    """The least role that suffices; None: the route needs no key."""
    reach: Reach = Reach.ALL
    body: BodyLimit = SMALL
    """The longest text of the largest allowed values. For batches and the refresh settings apply."""


LIMITABLE: Final = (Role.ADMIN, Role.WRITE, Role.READ)
"""The roles whose keys may be limited to some collections."""
SUFFICIENT: Final[Mapping[Role, frozenset[Role]]] = {
    Role.MONITOR: frozenset({Role.MONITOR, Role.READ, Role.WRITE, Role.ADMIN}),
    Role.READ: frozenset({Role.READ, Role.WRITE, Role.ADMIN}),
    Role.WRITE: frozenset({Role.WRITE, Role.ADMIN}),
    Role.SIDECAR: frozenset({Role.SIDECAR, Role.ADMIN}),
    Role.ADMIN: frozenset({Role.ADMIN}),
}
"""For each role, the roles that include its permissions."""

_OPEN: Final = Access(None)
_ROOT: Final = "/collections/{collection}"
_ALIAS: Final = "/aliases/{alias}"
ACCESS: Final[Mapping[tuple[str, str], Access]] = {
    ("GET", "/health/live"): _OPEN,
    ("GET", "/ready"): _OPEN,
    ("GET", "/health/ready"): _OPEN,
    ("GET", "/health"): _OPEN,
    ("GET", "/health/check"): _OPEN,
    ("GET", "/metrics"): Access(Role.MONITOR),
    ("GET", "/stats"): Access(Role.MONITOR),
    ("GET", "/state"): Access(Role.MONITOR, Reach.OWN),
    ("GET", "/openapi.json"): Access(Role.MONITOR, Reach.OWN),
    ("POST", "/state/refresh"): Access(Role.SIDECAR),
    ("GET", "/collections"): Access(Role.READ, Reach.OWN),
    ("GET", "/collections/deleted"): Access(Role.READ, Reach.OWN),
    ("GET", "/aliases"): Access(Role.READ, Reach.OWN),
    ("GET", _ALIAS): Access(Role.READ, Reach.PATH),
    ("GET", _ROOT): Access(Role.READ, Reach.PATH),
    ("GET", f"{_ROOT}/stats"): Access(Role.READ, Reach.PATH),
    ("POST", f"{_ROOT}/search"): Access(Role.READ, Reach.PATH, _SEARCH),
    ("POST", f"{_ROOT}/search/batch"): Access(Role.READ, Reach.PATH, _SEARCHES),
    ("POST", f"{_ROOT}/search/groups"): Access(Role.READ, Reach.PATH, _SEARCH),
    ("POST", f"{_ROOT}/recommend"): Access(Role.READ, Reach.PATH, _SEARCHES),
    ("POST", f"{_ROOT}/vectors/get"): Access(Role.READ, Reach.PATH, _IDS),
    ("GET", f"{_ROOT}/vectors/{{id}}"): Access(Role.READ, Reach.PATH),
    ("POST", f"{_ROOT}/points/scroll"): Access(Role.READ, Reach.PATH, _FILTER),
    ("POST", f"{_ROOT}/points/count"): Access(Role.READ, Reach.PATH, _FILTER),
    ("POST", f"{_ROOT}/points/facet"): Access(Role.READ, Reach.PATH, _FILTER),
    ("POST", "/collections"): Access(Role.WRITE, Reach.OWN, _CREATE),
    ("PUT", _ALIAS): Access(Role.WRITE, Reach.PATH),
    ("DELETE", _ALIAS): Access(Role.WRITE, Reach.PATH),
    ("POST", f"{_ROOT}/vectors"): Access(Role.WRITE, Reach.PATH, _POINT),
    ("POST", f"{_ROOT}/vectors/batch"): Access(Role.WRITE, Reach.PATH),
    ("POST", f"{_ROOT}/vectors/delete"): Access(Role.WRITE, Reach.PATH, _IDS),
    ("PUT", f"{_ROOT}/vectors/{{id}}"): Access(Role.WRITE, Reach.PATH, _POINT),
    ("DELETE", f"{_ROOT}/vectors/{{id}}"): Access(Role.WRITE, Reach.PATH),
    ("POST", f"{_ROOT}/points/delete"): Access(Role.WRITE, Reach.PATH, _IDS),
    ("POST", f"{_ROOT}/points/payload"): Access(Role.WRITE, Reach.PATH, _PAYLOADS),
    ("PUT", f"{_ROOT}/payload-indexes"): Access(Role.WRITE, Reach.PATH, _CREATE),
    ("DELETE", _ROOT): Access(Role.ADMIN, Reach.PATH),
    ("DELETE", f"{_ROOT}/hard-delete"): Access(Role.ADMIN, Reach.PATH),
    ("POST", f"{_ROOT}/backup"): Access(Role.ADMIN, Reach.PATH),
    ("POST", f"{_ROOT}/check"): Access(Role.ADMIN, Reach.PATH),
    ("POST", f"{_ROOT}/compact"): Access(Role.ADMIN, Reach.PATH),
    ("POST", f"{_ROOT}/repair"): Access(Role.ADMIN, Reach.PATH),
    ("POST", "/collections/restore"): Access(Role.ADMIN),
    ("POST", "/collections/import"): Access(Role.ADMIN),
    ("POST", "/collections/cleanup"): Access(Role.ADMIN),
    ("POST", "/hold"): Access(Role.ADMIN),
    ("DELETE", "/hold"): Access(Role.ADMIN),
}
"""The access of each route by method and template; HEAD counts as GET. The least roles come first."""

BATCH: Final = ("POST", f"{_ROOT}/vectors/batch")
REFRESH: Final = ("POST", "/state/refresh")
_TEMPLATES: Final = frozenset(template for _, template in ACCESS)

KEY_IN_SCOPE: Final = "vecstow.key"
ROUTE_IN_SCOPE: Final = "vecstow.route"
COLLECTION_IN_SCOPE: Final = "vecstow.collection"
"""The collection that the name in the path leads to."""
_BEARER: Final = b"bearer "


def access_of(method: str, template: str) -> Access:
    """Return the access that a route requires; raise LookupError for a route outside the table."""
    try:
        return ACCESS[method, template]
    except KeyError:
        raise LookupError(f"{method} {template} has no role: give it one in ACCESS") from None


@dataclass(frozen=True, slots=True)
class Place:
    """The templates that match a raw path, the most literal first, and the raw name in the path."""

    templates: tuple[str, ...]
    collection: str = ""

    def template(self, method: str) -> str | None:
        """Return the template of the route with this method; None without one."""
        return next((template for template in self.templates if (method, template) in ACCESS), None)

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Return method and template of every route of the path, the least role first."""
        return [(method, template) for method, template in ACCESS if template in self.templates]

    @property
    def allow(self) -> str:
        """Return the methods that the path serves, in the form of the header Allow."""
        methods = {method for method, _ in self.routes}
        return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def find_place(path: str) -> Place | None:
    """Return the place of a raw path; None when no route has the path.

    A fixed part of a route cannot be a collection's name, but can be an id. `refuse_another_route` compares
    the route that FastAPI chooses with this place.
    """
    if "{" in path:
        return None
    if path in _TEMPLATES:
        return Place((path,))
    match path.split("/"):
        case ["", "collections", collection, *rest] if collection:
            candidates = ["/".join([_ROOT, *rest])]
            if len(rest) == 2 and rest[1]:
                candidates.append(f"{_ROOT}/{rest[0]}/{{id}}")
            templates = tuple(template for template in candidates if template in _TEMPLATES)
            return Place(templates, collection) if templates else None
        case ["", "aliases", alias] if alias:
            return Place((_ALIAS,), alias)
    return None


def identify(ring: KeyRing, headers: Iterable[tuple[bytes, bytes]]) -> Key:
    """Return the key of a request, from the header `api-key`, or else `Authorization: Bearer`.

    Raises Unauthenticated without a known key. A repeated header counts as an unknown key, because readers
    differ in which of the values they take.
    """
    presented = presented_key(headers)
    if presented is None:
        raise Unauthenticated(
            "a key is needed", hint="send it as the header Authorization: Bearer KEY, or api-key: KEY"
        )
    key = ring.find(presented)
    if key is None:
        raise Unauthenticated("the key is not known here")
    return key


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the bytes that a request sends as its key; None without such a header."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (b"api-key", b"authorization"):
            found[name] = b"" if name in found else value
    if (api_key := found.get(b"api-key")) is not None:
        return api_key
    authorization = found.get(b"authorization")
    if authorization is None:
        return None
    # Another scheme, for example of a proxy, holds no API key.
    return authorization[len(_BEARER) :].strip() if authorization[:7].lower() == _BEARER else b""


def authorise(key: Key, method: str, template: str, collection: str = "", given: str = "") -> None:
    """Raise Forbidden when `key` lacks the role that a route requires, or is not for the collection.

    `given` is the name in the path, which may be an alias of the collection.
    """
    access = ACCESS[method, template]
    if access.role is not None and key.role not in SUFFICIENT[access.role]:
        raise Forbidden(
            f"{method} {template} needs the role {access.role}; the key {key.name!r} has {key.role}",
            details={"role": access.role.value, "name": key.name},
        )
    if not key.patterns or access.reach is Reach.OWN:
        return
    if access.reach is Reach.PATH:
        authorise_collection(key, collection, given)
        return
    raise Forbidden(
        f"{method} {template} is about the whole volume; the key {key.name!r} is limited to "
        f"{', '.join(key.patterns)}",
        details={"role": key.role.value, "name": key.name},
    )


def authorise_collection(key: Key, collection: str, given: str = "") -> None:
    """Raise Forbidden when `key` is not for that collection. The message has the name that was given alone.

    `given` is an alias of the collection, or empty for the collection's own name.
    """
    if not key.reaches(collection):
        name = (given or collection)[:80]
        raise Forbidden(
            f"the key {key.name!r} is limited to {', '.join(key.patterns)}; {name!r} is not among these",
            collection=name,
            details={"role": key.role.value, "name": key.name},
        )
