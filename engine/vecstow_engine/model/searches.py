"""Searches: their options and vectors, checked once against a collection's manifest, and their hits.

    SearchOptions   everything that a search asks for apart from its vector
    SearchQuery     the options and a vector
    Hit             one answer

Every error names the field, the value and the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from vecstow_engine.model.errors import InvalidInput, NotFound, TooLarge, refused
from vecstow_engine.model.explanation import Explanation
from vecstow_engine.model.fields import integer
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.manifest import INDEX_BOUNDS, Manifest
from vecstow_engine.model.payloads import PayloadChoice
from vecstow_engine.model.points import check_query_vector

LIMIT_DEFAULT: Final = 10
LIMIT_MAX: Final = 10_000
"""The limit of hits of one search, those that `offset` skips included."""
EF_SEARCH_MAX: Final = INDEX_BOUNDS["ef_search"][1]
DIVERSE_HITS_MAX: Final = 250
"""The limit of `offset` + `limit` with `diversity`: each hit is compared with all candidates."""
VECTOR_VALUES_MAX: Final = 4_000_000
"""The most numbers of vectors in one answer: about 80 MB of JSON."""
WHOLE_PAYLOAD: Final = PayloadChoice()
NO_PAYLOAD: Final = PayloadChoice(())


class Hit(msgspec.Struct, frozen=True, eq=False):
    """One answer of a search; smaller distances come first."""

    id: str
    distance: float
    payload: bytes | None
    """The part of the payload that the search asks for."""
    label: int = 0
    """The label of the point that the search compared; 0 for none."""
    vector: NDArray[np.float32] | None = None
    """Decoded from the stored bytes, shape (d,); None for a search that does not ask for vectors."""


class SearchOptions(msgspec.Struct, frozen=True, eq=False):
    """One checked search without its vector."""

    manifest: Manifest
    """The manifest that the search was checked against."""
    limit: int = LIMIT_DEFAULT
    ef_search: int | None = None
    """The size of the candidate list; None for the collection's setting."""
    filter: Filter | None = None
    weigh: Callable[[int], None] | None = None
    """A callback that gets the bytes of the hits found so far, and raises when they exceed the limit."""
    offset: int = 0
    """The number of the nearest hits that are left out."""
    max_distance: float | None = None
    """The distance beyond which a point is no hit."""
    diversity: float = 0.0
    """The weight of the distance between hits, 0 to 1, in their choice; 0 for the nearest points."""
    with_vectors: bool = False
    payload: PayloadChoice = WHOLE_PAYLOAD
    explanation: Explanation | None = None
    """The record of plan and steps, filled while the search runs; None for a search without one."""

    @classmethod
    def checked(
        cls,
        manifest: Manifest,
        limit: int = LIMIT_DEFAULT,
        ef_search: int | None = None,
        filter: Filter | None = None,
        weigh: Callable[[int], None] | None = None,
        *,
        offset: int = 0,
        max_distance: float | None = None,
        diversity: float = 0.0,
        with_vectors: bool = False,
        payload: PayloadChoice = WHOLE_PAYLOAD,
        explanation: Explanation | None = None,
    ) -> SearchOptions:
        """Check the options; raise InvalidInput, or TooLarge for more vectors than an answer may have."""
        integer(limit, "limit", 1, LIMIT_MAX)
        integer(offset, "offset", 0, LIMIT_MAX - 1)
        if ef_search is not None:
            integer(ef_search, "ef_search", 1, EF_SEARCH_MAX)
        if not 0 <= diversity <= 1:
            raise InvalidInput(
                f"diversity is {diversity}; it must be from 0 to 1",
                details=refused("diversity", diversity, 0 if diversity < 0 else 1),
            )
        if max_distance is not None and not math.isfinite(max_distance):
            raise InvalidInput(
                f"max_distance is {max_distance}; it must be a finite number",
                details=refused("max_distance", max_distance),
            )
        _check_last(limit, offset, is_diverse=diversity > 0)
        if with_vectors:
            check_vector_count(limit, manifest)
        return cls(
            manifest,
            limit,
            ef_search,
            filter,
            weigh,
            offset,
            max_distance,
            diversity,
            with_vectors,
            payload,
            explanation,
        )

    @property
    def hits_read(self) -> int:
        """The number of hits that are found before those of `offset` are left out."""
        return self.offset + self.limit

    def query(
        self, vector: NDArray[np.float32], place: str = "vector", excluded: frozenset[str] = frozenset()
    ) -> SearchQuery:
        """Return the search for a vector (d,), without the points of the ids `excluded`.

        Raises InvalidInput, which names the vector's place.
        """
        check_query_vector(self.manifest, vector, place)
        return SearchQuery(*astuple(self), vector=vector, excluded=excluded)


class SearchQuery(SearchOptions, frozen=True, eq=False, kw_only=True):
    """One checked search."""

    vector: NDArray[np.float32]
    """Shape (d,)."""
    excluded: frozenset[str] = frozenset()
    """Ids of points that are no hits: those that the vector comes from."""

    @classmethod
    def build(
        cls,
        manifest: Manifest,
        vector: NDArray[np.float32],
        limit: int = LIMIT_DEFAULT,
        ef_search: int | None = None,
        filter: Filter | None = None,
        weigh: Callable[[int], None] | None = None,
    ) -> SearchQuery:
        """Check a search without further options; raise InvalidInput or WrongShape."""
        return SearchOptions.checked(manifest, limit, ef_search, filter, weigh).query(vector)


def _check_last(limit: int, offset: int, *, is_diverse: bool) -> None:
    """Raise InvalidInput when the last hit is beyond the hits of one search."""
    most = DIVERSE_HITS_MAX if is_diverse else LIMIT_MAX
    if offset + limit > most:
        field, value, other = ("offset", offset, limit) if offset else ("limit", limit, offset)
        raise InvalidInput(
            f"offset is {offset} and limit is {limit}; together they are at most {most}"
            + (" with diversity" if is_diverse else ""),
            details=refused(field, value, max(0, most - other)),
        )


def check_vector_count(vectors: int, manifest: Manifest, field: str = "limit") -> None:
    """Raise TooLarge, which names `field`, when an answer with so many vectors has too many numbers."""
    values = vectors * manifest.dimension
    if values > VECTOR_VALUES_MAX:
        raise TooLarge(
            f"{vectors} vectors have {values} values; at most {VECTOR_VALUES_MAX} are answered",
            hint="ask for fewer at a time",
            collection=manifest.name,
            details=refused(field, values, VECTOR_VALUES_MAX),
        )


def no_such_point(collection: str, point_id: str) -> NotFound:
    """Return the error for an id that names no point of the collection."""
    return NotFound(
        f"collection {collection!r} has no point with id {point_id!r}",
        collection=collection,
        details={"id": point_id},
    )
