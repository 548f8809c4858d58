"""The decoding of requests for many points: scroll, count, facet, delete, and changes of payloads.

The members of such a body are decoded one at a time, after the lease holds the memory for each.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from vecstow_engine.api.answers import Media
from vecstow_engine.api.decoding import decode_filter, decode_ids, decode_object
from vecstow_engine.api.parsing import (
    ABSENT,
    Decoder,
    Text,
    check_block,
    check_entries,
    check_members,
    check_text,
    decode,
    weigh_json,
    weigh_packed,
)
from vecstow_engine.model.errors import InvalidInput, WrongShape, refused
from vecstow_engine.model.fields import boolean, integer, string
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.filters import ID_FIELD, Filter
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.payloads import PayloadChoice, check_field
from vecstow_engine.model.points import check_ids
from vecstow_engine.model.scrolls import (
    LIMIT_DEFAULT,
    LIMIT_MAX,
    Order,
    ScrollQuery,
    decode_cursor,
    fingerprint,
)
from vecstow_engine.model.searches import check_vector_count
from vecstow_engine.model.selections import PayloadChange, Selection, parse_unset
from vecstow_engine.query import facet
from vecstow_engine.service.request_memory import Lease, Part

_NULLS: Final = (b"null", b"\xc0")
_EMPTY: Final = {Media.JSON: b"{}", Media.MSGPACK: b"\x80"}
_json: Final[Decoder[Any]] = msgspec.json.Decoder()
_packed: Final[Decoder[Any]] = msgspec.msgpack.Decoder()


class _Sent(msgspec.Struct, forbid_unknown_fields=True):
    """A body whose members are all optional."""

    @property
    def members(self) -> list[Raw]:
        """Return the values of the members that the object had; a repeated key counts once."""
        values = [getattr(self, name) for name in self.__struct_fields__]
        return [value for value in values if value is not ABSENT]


class SentCount(_Sent):
    """`{filter?}`."""

    filter: Raw = ABSENT


class SentScroll(_Sent):
    """`{filter?, limit?, cursor?, order_by?, with_vectors?, with_metadata?}`."""

    filter: Raw = ABSENT
    limit: Raw = ABSENT
    cursor: Raw = ABSENT
    order_by: Raw = ABSENT
    with_vectors: Raw = ABSENT
    with_metadata: Raw = ABSENT


class SentFacet(_Sent):
    """`{field, filter?, limit?}`."""

    field: Raw = ABSENT
    filter: Raw = ABSENT
    limit: Raw = ABSENT


class SentDeletion(_Sent):
    """`{ids}`, `{filter}` or `{all: true}`."""

    ids: Raw = ABSENT
    filter: Raw = ABSENT
    all: Raw = ABSENT


class SentPayloadChange(_Sent):
    """`{ids}` or `{filter}`, with `set`, or with `merge`, `unset` or both."""

    ids: Raw = ABSENT
    filter: Raw = ABSENT
    set: Raw = ABSENT
    merge: Raw = ABSENT
    unset: Raw = ABSENT


S = TypeVar("S", bound=_Sent)
_DECODERS: Final[dict[type[_Sent], dict[Media, Decoder[Any]]]] = {
    kind: {Media.JSON: msgspec.json.Decoder(kind), Media.MSGPACK: msgspec.msgpack.Decoder(kind)}
    for kind in (SentCount, SentScroll, SentFacet, SentDeletion, SentPayloadChange)
}


@dataclass(frozen=True, slots=True)
class FacetQuery:
    """One checked facet."""

    field: str
    filter: Filter | None
    limit: int


def read_count(body: Text, media: Media, lease: Lease) -> Filter | None:
    """Return the filter in `body`, None without one; raise the errors of `_Body`."""
    return _Body(SentCount, body, media, lease).filter()


def read_scroll(body: Text, media: Media, lease: Lease, manifest: Manifest) -> ScrollQuery:
    """Return the page that `body` asks for; raise the errors of `_Body`, or InvalidInput for its cursor."""
    sent = _Body(SentScroll, body, media, lease)
    document = sent.filter_document()
    by = sent.value("order_by")
    order = None if by is None else Order.parse(by)
    limit = sent.integer("limit", LIMIT_DEFAULT, LIMIT_MAX)
    with_vectors = boolean(sent.value("with_vectors", default=False), "with_vectors")
    if with_vectors:
        check_vector_count(limit, manifest)
    # A filter that is no JSON has no fingerprint.
    wanted = None if document is None else parse_filter(document)
    mark = fingerprint(document, order)
    cursor = sent.value("cursor")
    return ScrollQuery(
        mark,
        limit,
        wanted,
        order,
        None if cursor is None else decode_cursor(string(cursor, "cursor"), mark, order),
        with_vectors,
        PayloadChoice.parse(sent.value("with_metadata")),
        functools.partial(lease.grow, Part.DECODED),
    )


def read_facet(body: Text, media: Media, lease: Lease) -> FacetQuery:
    """Return the facet in `body`; raise the errors of `_Body`."""
    sent = _Body(SentFacet, body, media, lease)
    if not sent.has("field"):
        raise WrongShape("the body has no field 'field'", details={"field": "field"})
    field = check_field(sent.value("field"), "field")
    if field == ID_FIELD:
        raise InvalidInput(f"field is {field!r}; each id is one point", details=refused("field", field))
    return FacetQuery(field, sent.filter(), sent.integer("limit", facet.LIMIT_DEFAULT, facet.LIMIT_MAX))


def read_deletion(body: Text, media: Media, lease: Lease, ids_max: int) -> Selection:
    """Return the points that `body` deletes; raise the errors of `_Body`."""
    sent = _Body(SentDeletion, body, media, lease)
    if sent.only_of("ids", "filter", "all") == "all":
        if boolean(sent.value("all"), "all"):
            return Selection()
        raise InvalidInput(
            "all is false", hint="name the points by ids or filter", details=refused("all", False, True)
        )
    if sent.filter_document() == {}:
        raise InvalidInput(
            "filter is empty, so it matches every point",
            hint='write {"all": true} to delete every point',
            details=refused("filter", {}, "one condition or more"),
        )
    return sent.selection(ids_max)


def read_payload_change(
    body: Text, media: Media, lease: Lease, ids_max: int
) -> tuple[Selection, PayloadChange]:
    """Return the points whose payload `body` changes, and the change; raise the errors of `_Body`."""
    sent = _Body(SentPayloadChange, body, media, lease)
    sent.only_of("ids", "filter")
    given = [name for name in ("set", "merge", "unset") if sent.has(name)]
    if not given:
        raise WrongShape("the body has none of set, merge, unset", details={"field": "body"})
    if "set" in given and len(given) > 1:
        raise InvalidInput(
            f"set replaces the payload, and does not go with {' and '.join(given[1:])}",
            hint="send two requests",
            details=refused(given[1], None, "not with set"),
        )
    unset = sent.value("unset")
    change = PayloadChange(
        sent.object("set"), sent.object("merge"), () if unset is None else parse_unset(unset)
    )
    return sent.selection(ids_max), change


class _Body:
    """A decoded body. Members that are null count as absent.

    Raises Malformed, WrongShape, InvalidInput, TooLarge and Busy.
    """

    def __init__(self, kind: type[_Sent], body: Text, media: Media, lease: Lease) -> None:
        text = body or _EMPTY[media]
        sent: _Sent = decode(_DECODERS[kind][media], text)
        members = sent.members
        if media is Media.JSON:
            check_members(text, len(members), members)
        else:
            check_entries(text, len(members))
        self._sent = sent
        self._media = media
        self._lease = lease

    def has(self, name: str) -> bool:
        """Whether the body has a member."""
        return bytes(self._raw(name)) not in _NULLS

    def only_of(self, *names: str) -> str:
        """Return the only one of these members that the body has; raise WrongShape or InvalidInput."""
        given = [name for name in names if self.has(name)]
        if not given:
            raise WrongShape(f"the body has none of {', '.join(names)}", details={"field": "body"})
        if len(given) > 1:
            raise InvalidInput(
                f"{given[0]} and {given[1]} are given; only one of {', '.join(names)} is taken",
                details=refused(given[1], None, f"not with {given[0]}"),
            )
        return given[0]

    def value(self, name: str, default: object = None) -> Any:
        """Return the decoded value of a member."""
        if not self.has(name):
            return default
        text = bytes(self._raw(name))
        is_json = self._media is Media.JSON
        self._lease.take(Part.DECODED, weigh_json(text) if is_json else weigh_packed(text))
        value = decode(_json if is_json else _packed, text, name)
        if isinstance(value, dict | list):
            (check_text if is_json else check_block)(text, value, name)
        return value

    def integer(self, name: str, default: int, most: int) -> int:
        """Return the value of a member that is an integer from 1 to `most`."""
        return integer(self.value(name, default), name, 1, most)

    def object(self, name: str) -> dict[str, Any] | None:
        """Return the value of a member that is a payload, or a part of one."""
        return decode_object(self._raw(name), self._media, name)

    def filter_document(self) -> dict[str, Any] | None:
        """Return the decoded filter, not parsed."""
        return decode_filter(self._raw("filter"), self._media, self._lease)

    def filter(self) -> Filter | None:
        """Return the filter."""
        document = self.filter_document()
        return None if document is None else parse_filter(document)

    def selection(self, ids_max: int) -> Selection:
        """Return the points that `ids` or `filter` select."""
        if not self.has("ids"):
            return Selection(filter=self.filter())
        ids = decode_ids(self._raw("ids"), self._media, self._lease, ids_max)
        return Selection(check_ids(ids, "ids[{}]"))

    def _raw(self, name: str) -> Raw:
        raw: Raw = getattr(self._sent, name)
        return raw
