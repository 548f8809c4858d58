"""The structures of the bodies of searches. Members of the type `Raw` are decoded later, one at a time."""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import astuple

from vecstow_engine.api.parsing import ABSENT

SEARCH_BYTES: Final = 512
"""Bytes of a search's struct and raw parts."""


class SentOptions(msgspec.Struct, forbid_unknown_fields=True):
    """The members that every search may have."""

    is_search: ClassVar = True
    limit: int | UnsetType | None = UNSET
    ef_search: int | UnsetType | None = UNSET
    filter: Raw = ABSENT
    offset: int | UnsetType | None = UNSET
    max_distance: float | UnsetType | None = UNSET
    with_vectors: bool | UnsetType | None = UNSET
    with_metadata: Raw = ABSENT
    explain: bool | UnsetType | None = UNSET

    def members(self) -> tuple[int, list[Raw]]:
        """Return how many members the object had, and those that may have members, or text with colons.

        A repeated key counts once.
        """
        given = [value for value in astuple(self) if value is not UNSET and value is not ABSENT]
        return len(given), [value for value in given if isinstance(value, Raw)]


class SentTarget(SentOptions):
    """A search near a vector or a stored point: `{vector}` or `{id}`.

    A vector is a list of numbers in JSON, and a bin of little-endian float32 in MessagePack.
    """

    vector: Raw = ABSENT
    id: Raw = ABSENT


class SentSearch(SentTarget):
    """`{vector, id or text, limit?, …}`; with text, a vector or an id may stand next to it."""

    diversity: float | UnsetType | None = UNSET
    text: Raw = ABSENT
    fusion: Raw = ABSENT


class SentFusion(msgspec.Struct, forbid_unknown_fields=True):
    """`{vector?, text?, k?}`."""

    vector: float | UnsetType | None = UNSET
    text: float | UnsetType | None = UNSET
    k: float | UnsetType | None = UNSET

    @property
    def given(self) -> int:
        """Return the number of members that the object had; a repeated key counts once."""
        return sum(value is not UNSET for value in astuple(self))


class SentGroups(SentTarget, kw_only=True):
    """`{vector or id, group_by, group_size?, limit?, …}`."""

    group_by: str
    group_size: int | UnsetType | None = UNSET


class SentRecommendation(SentOptions, kw_only=True):
    """`{positive: [id or vector, …], negative?, strategy?, limit?, …}`."""

    positive: Raw
    negative: Raw = ABSENT
    strategy: str | UnsetType | None = UNSET


class JsonSearches(msgspec.Struct, forbid_unknown_fields=True):
    """`{searches: [search, …]}`."""

    Entry: ClassVar = SentSearch
    is_search: ClassVar = True
    searches: list[SentSearch]


class PackedSearches(msgspec.Struct, forbid_unknown_fields=True):
    """`{searches: [search, …]}`, whose entries are counted before they are decoded."""

    is_search: ClassVar = True
    searches: Raw
