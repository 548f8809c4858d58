"""The decoding of searches: from the bytes of a body to checked searches, within the limits of `decoding`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, UnsetType

from vecstow_engine.api.answers import Media
from vecstow_engine.api.decoding import (
    NULLS,
    Rows,
    json_row,
    packed_rows,
    read_filter,
    read_id,
    row_of,
)
from vecstow_engine.api.parsing import (
    Decoder,
    Text,
    check_entries,
    check_members,
    decode,
    packed_entries,
    weigh_json,
    weigh_json_examples,
    weigh_packed,
)
from vecstow_engine.api.search_bodies import (
    SEARCH_BYTES,
    JsonSearches,
    PackedSearches,
    SentGroups,
    SentOptions,
    SentRecommendation,
    SentSearch,
    SentTarget,
)
from vecstow_engine.api.text_decoding import read_fusion, read_text
from vecstow_engine.model.errors import InvalidInput, TooLarge, WrongShape, refused
from vecstow_engine.model.examples import EXAMPLES_MAX, Example, ExampleSearch, NearSearch, Strategy
from vecstow_engine.model.explanation import Explanation
from vecstow_engine.model.fields import member
from vecstow_engine.model.groups import GROUP_SIZE_DEFAULT, GroupSearch
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.payloads import PayloadChoice
from vecstow_engine.model.queries import Search, options_of
from vecstow_engine.model.searches import (
    LIMIT_DEFAULT,
    LIMIT_MAX,
    WHOLE_PAYLOAD,
    SearchOptions,
    check_vector_count,
)
from vecstow_engine.model.text_searches import TextSearch
from vecstow_engine.service.request_memory import Lease, Part

S = TypeVar("S", bound=SentOptions)
T = TypeVar("T")
D = TypeVar("D")

Query = Mapping[str, int | None]
"""The parameters of the URL."""
_NO_QUERY: Final[Query] = MappingProxyType({})
SEARCHES_MAX: Final = 100
"""The limit of searches in one batch."""
_BINS: Final = (b"\xc4", b"\xc5", b"\xc6")
"""First bytes of a bin in MessagePack."""

_json_search: Decoder[SentSearch] = msgspec.json.Decoder(SentSearch)
_json_searches: Decoder[JsonSearches] = msgspec.json.Decoder(JsonSearches)
_json_groups: Decoder[SentGroups] = msgspec.json.Decoder(SentGroups)
_json_recommendation: Decoder[SentRecommendation] = msgspec.json.Decoder(SentRecommendation)
_json_examples: Decoder[list[str | list[float]] | None] = msgspec.json.Decoder(list[str | list[float]] | None)
_json_any: Decoder[Any] = msgspec.json.Decoder()
_packed_search: Decoder[SentSearch] = msgspec.msgpack.Decoder(SentSearch)
_packed_searches: Decoder[PackedSearches] = msgspec.msgpack.Decoder(PackedSearches)
_packed_groups: Decoder[SentGroups] = msgspec.msgpack.Decoder(SentGroups)
_packed_recommendation: Decoder[SentRecommendation] = msgspec.msgpack.Decoder(SentRecommendation)
_packed_raws: Decoder[list[Raw] | None] = msgspec.msgpack.Decoder(list[Raw] | None)
_packed_bin: Decoder[memoryview] = msgspec.msgpack.Decoder(memoryview)
_packed_any: Decoder[Any] = msgspec.msgpack.Decoder()


def read_search(body: Text, media: Media, lease: Lease, manifest: Manifest, query: Query) -> Search:
    """Return the search in `body`; `query` (of the URL) gives the fields that the body leaves out.

    Raises InvalidInput, WrongShape, Malformed, TooLarge and Busy.
    """
    sent = _decode_one(_json_search, _packed_search, body, media)
    return _Reader(media, lease, manifest, _grow(lease)).search(sent, query)


def read_searches(body: Text, media: Media, lease: Lease, manifest: Manifest) -> list[Search]:
    """Return the searches in `body`; raise the errors of `read_search`, which name the search's position."""
    searches = []
    for at, sent in enumerate(_decode_searches(body, media, lease)):
        with _within(f"searches[{at}]"):
            _refuse_explanation(sent)
            searches.append(_Reader(media, lease, manifest, _Share(lease)).search(sent))
    _check_together(searches, manifest)
    return searches


def read_groups(body: Text, media: Media, lease: Lease, manifest: Manifest) -> GroupSearch:
    """Return the grouped search in `body`; raise the errors of `read_search`."""
    sent = _decode_one(_json_groups, _packed_groups, body, media)
    search = _Reader(media, lease, manifest, _grow(lease)).near(sent)
    group_size = _or(sent.group_size, GROUP_SIZE_DEFAULT)
    return GroupSearch.checked(search, sent.group_by, group_size)


def read_recommendation(body: Text, media: Media, lease: Lease, manifest: Manifest) -> ExampleSearch:
    """Return the search by examples in `body`; raise the errors of `read_search`."""
    sent = _decode_one(_json_recommendation, _packed_recommendation, body, media)
    reader = _Reader(media, lease, manifest, _grow(lease))
    positive, negative = (
        reader.examples(raw, name) for raw, name in ((sent.positive, "positive"), (sent.negative, "negative"))
    )
    strategy = member(Strategy, _or(sent.strategy, Strategy.AVERAGE), "strategy")
    return ExampleSearch.checked(reader.options(sent), positive, negative, strategy)


@dataclass(slots=True, eq=False)
class _Reader:
    """The reading of one search: its target, its text, its examples and its options."""

    media: Media
    lease: Lease
    manifest: Manifest
    weigh: Callable[[int], None]

    def search(self, sent: SentSearch, query: Query = _NO_QUERY) -> Search:
        """Return the search near a vector or a stored point, for a text, or for both."""
        text, fusion = read_text(sent.text, self.media), read_fusion(sent.fusion, self.media)
        if text is None:
            if fusion is not None:
                raise WrongShape("the search has fusion and no text", details={"field": "fusion"})
            return self.near(sent, query, "vector, the id of a stored point, or text")
        near = self.near(sent, query) if _is_given(sent.vector) or _is_given(sent.id) else None
        options = self.options(sent, query) if near is None else options_of(near)
        return TextSearch.checked(options, text, near, fusion)

    def near(
        self, sent: SentTarget, query: Query = _NO_QUERY, targets: str = "vector, or the id of a stored point"
    ) -> NearSearch:
        """Return the search near a vector or a stored point; `targets` names what may be sent."""
        has_vector, has_id = _is_given(sent.vector), _is_given(sent.id)
        if has_vector and has_id:
            raise WrongShape("the search has both vector and id; send one of them", details={"field": "id"})
        if has_vector:
            vector = self._vector(sent.vector, "vector")
            return self.options(sent, query).query(vector)
        point_id = read_id(sent.id, self.media, "id")
        if point_id is None:
            raise WrongShape(
                "the search has no field 'vector'",
                hint=f"send {targets}",
                details={"field": "vector"},
            )
        return ExampleSearch.near(self.options(sent, query), point_id)

    def options(self, sent: SentOptions, query: Query = _NO_QUERY) -> SearchOptions:
        """Return the checked options; `query` has the values of those that are absent."""
        limit = _or(sent.limit, query.get("limit"))
        diversity = sent.diversity if isinstance(sent, SentSearch) else None
        return SearchOptions.checked(
            self.manifest,
            LIMIT_DEFAULT if limit is None else limit,
            _or(sent.ef_search, query.get("ef_search")),
            read_filter(sent.filter, self.media, self.lease),
            self.weigh,
            offset=_or(sent.offset, 0),
            max_distance=_or(sent.max_distance, None),
            diversity=_or(diversity, 0.0),
            with_vectors=_or(sent.with_vectors, False),
            payload=self._choice(sent.with_metadata),
            explanation=Explanation() if _or(sent.explain, query.get("explain")) else None,
        )

    def examples(self, raw: Raw, name: str) -> list[Example]:
        """Return the examples of a list, none for an absent one."""
        if not _is_given(raw):
            return []
        if self.media is Media.JSON:
            text = bytes(raw)
            self.lease.take(Part.DECODED, weigh_json_examples(text))
            found = decode(_json_examples, text, name)
            return [
                each if isinstance(each, str) else row_of(each, self.manifest, f"{name}[{at}]")
                for at, each in enumerate(found or ())
            ]
        entries = packed_entries(bytes(memoryview(raw)[:5])) or 0
        if entries > EXAMPLES_MAX:
            raise _too_many(name, entries, EXAMPLES_MAX)
        raws = decode(_packed_raws, raw, name)
        return [self._packed_example(each, f"{name}[{at}]") for at, each in enumerate(raws or ())]

    def _packed_example(self, raw: Raw, place: str) -> Example:
        if bytes(memoryview(raw)[:1]) in _BINS:
            return self._vector(raw, place)
        point_id = read_id(raw, self.media, place)
        if point_id is None:
            raise WrongShape(f"{place} is null; it must be an id or a vector", details={"field": place})
        return point_id

    def _vector(self, raw: Raw, place: str) -> Rows:
        """Return a vector, float32 (d,)."""
        if self.media is Media.JSON:
            return json_row(raw, self.manifest, place)
        row: Rows = packed_rows(decode(_packed_bin, raw, place), self.manifest, place, 1)[0]
        return row

    def _choice(self, raw: Raw) -> PayloadChoice:
        if not _is_given(raw):
            return WHOLE_PAYLOAD
        is_json = self.media is Media.JSON
        text = bytes(raw)
        self.lease.take(Part.DECODED, weigh_json(text) if is_json else weigh_packed(text))
        return PayloadChoice.parse(decode(_json_any if is_json else _packed_any, text, "with_metadata"))


class _Share:
    """The weigher of one search of a batch: the lease holds the sum of all."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._held_bytes = 0

    def __call__(self, held_bytes: int) -> None:
        """Hold at least these bytes for the search; raise TooLarge or Busy."""
        if held_bytes > self._held_bytes:
            self._lease.take(Part.ANSWERS, held_bytes - self._held_bytes)
            self._held_bytes = held_bytes


def _decode_one(json: Decoder[S], packed: Decoder[S], body: Text, media: Media) -> S:
    if media is Media.JSON:
        sent = decode(json, body)
        check_members(body, *sent.members())
    else:
        sent = decode(packed, body)
        check_entries(body, sent.members()[0])
    return sent


def _refuse_explanation(sent: SentSearch) -> None:
    """Raise InvalidInput for a search that asks to be explained: a header has room for one explanation."""
    if _or(sent.explain, None):
        message = "explain is true; only a search of its own is explained"
        raise InvalidInput(message, details=refused("explain", True, False))


def _decode_searches(body: Text, media: Media, lease: Lease) -> list[SentSearch]:
    if media is Media.JSON:
        lease.take(Part.DECODED, body.count(b"{") * SEARCH_BYTES)
        searches = decode(_json_searches, body).searches
        members = [sent.members() for sent in searches]
        check_members(body, 1 + sum(given for given, _ in members), chain(*(parts for _, parts in members)))
        if len(searches) > SEARCHES_MAX:
            raise _too_many("searches", len(searches), SEARCHES_MAX)
        return searches
    raw = decode(_packed_searches, body).searches
    check_entries(body, 1)
    entries = packed_entries(bytes(memoryview(raw)[:5])) or 0
    if entries > SEARCHES_MAX:
        raise _too_many("searches", entries, SEARCHES_MAX)
    searches = []
    raws = decode(_packed_raws, raw, "searches")
    for at, each in enumerate(raws or ()):
        searches.append(decode(_packed_search, each, f"searches[{at}]"))
        check_entries(bytes(each), searches[-1].members()[0])
    return searches


def _check_together(searches: Sequence[Search], manifest: Manifest) -> None:
    """Raise InvalidInput or TooLarge when the answers of a batch are too many together."""
    options = [options_of(search) for search in searches]
    hits = sum(each.hits_read for each in options)
    if hits > LIMIT_MAX:
        raise InvalidInput(
            f"searches ask for {hits} hits together; at most {LIMIT_MAX}",
            hint="send fewer searches at a time",
            details=refused("searches", hits, LIMIT_MAX),
        )
    check_vector_count(sum(each.limit for each in options if each.with_vectors), manifest, "searches")


@contextlib.contextmanager
def _within(place: str) -> Iterator[None]:
    """Name `place` in the errors about one search of several."""
    try:
        yield
    except (InvalidInput, TooLarge) as error:
        field = error.details.get("field", "body")
        if field == "body":
            raise
        path = f"{place}.{field}"
        details = error.details | {name: path for name in ("field", "path") if name in error.details}
        raise type(error)(f"{place}: {error.message}", hint=error.hint, details=details) from None


def _grow(lease: Lease) -> Callable[[int], None]:
    return functools.partial(lease.grow, Part.ANSWERS)


def _is_given(raw: Raw) -> bool:
    return bytes(memoryview(raw)[:5]) not in NULLS


def _or(value: T | UnsetType | None, default: D) -> T | D:
    """Return the value of a member, `default` for an absent one or null."""
    return default if value is None or isinstance(value, UnsetType) else value


def _too_many(name: str, count: int, most: int) -> TooLarge:
    return TooLarge(f"{name} has {count} entries; at most {most}", details=refused(name, count, most))
