"""Searches by example: near stored points or vectors, and away from others.

    Example          a vector, or the id of a stored point whose vector is read later
    ExampleSearch    the options and the examples, checked
    BestScoreQuery   the options and the vectors of the examples, for the strategy `best_score`

For the strategy `average` the examples become one vector, and the search a `SearchQuery`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.errors import InvalidInput, TooLarge, refused
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import check_point_id
from vecstow_engine.model.points import check_query_vector
from vecstow_engine.model.searches import LIMIT_MAX, SearchOptions, SearchQuery

Vector: TypeAlias = NDArray[np.float32]
Example: TypeAlias = Vector | str
"""A vector, shape (d,), or the id of a stored point."""

EXAMPLES_MAX: Final = 100
"""The limit of examples of one search, positive and negative together."""


class Strategy(StrEnum):
    """The way from examples to an order of points."""

    AVERAGE = "average"
    """The distance to the mean of the positive examples, moved away from the mean of the negative ones."""
    BEST_SCORE = "best_score"
    """The distance to the nearest positive example; points nearer to a negative example come last."""


class BestScoreQuery(SearchOptions, frozen=True, eq=False, kw_only=True):
    """One checked search for the points near any positive example."""

    positive: NDArray[np.float32]
    """Shape (p, d), p at least 1."""
    negative: NDArray[np.float32]
    """Shape (n, d)."""
    excluded: frozenset[str]
    """Ids of points that are no hits: those of the examples."""


@dataclass(frozen=True, slots=True, eq=False)
class ExampleSearch:
    """One checked search by examples, some of whose vectors are not read yet."""

    options: SearchOptions
    positive: tuple[Example, ...]
    negative: tuple[Example, ...] = ()
    strategy: Strategy = Strategy.AVERAGE
    field: str = "average"
    """The name of the vector that the examples become, for errors about the vector."""

    @classmethod
    def near(cls, options: SearchOptions, point_id: str) -> ExampleSearch:
        """Return the search for the points near one stored point; raise InvalidInput for an illegal id."""
        return cls(options, (check_point_id(point_id),), field="id")

    @classmethod
    def checked(
        cls,
        options: SearchOptions,
        positive: Sequence[Example],
        negative: Sequence[Example] = (),
        strategy: Strategy = Strategy.AVERAGE,
    ) -> ExampleSearch:
        """Check the examples; raise InvalidInput, or TooLarge for too many."""
        count = len(positive) + len(negative)
        if not positive:
            raise InvalidInput(
                "positive is empty; at least one example is needed", details=refused("positive", 0, 1)
            )
        if count > EXAMPLES_MAX:
            name = "positive" if len(positive) > EXAMPLES_MAX else "negative"
            raise TooLarge(
                f"positive and negative have {count} examples; at most {EXAMPLES_MAX} are allowed",
                details=refused(name, count, EXAMPLES_MAX),
            )
        for name, examples in (("positive", positive), ("negative", negative)):
            for at, example in enumerate(examples):
                _check_example(options.manifest, example, f"{name}[{at}]")
        search = cls(options, tuple(positive), tuple(negative), strategy)
        if strategy is Strategy.BEST_SCORE and len(positive) * options.hits_read > LIMIT_MAX:
            raise InvalidInput(
                f"offset and limit are {options.hits_read} hits near each of {len(positive)} positive "
                f"examples; with best_score they are at most {LIMIT_MAX} together",
                details=refused("limit", options.limit, LIMIT_MAX // len(positive)),
            )
        return search

    @property
    def manifest(self) -> Manifest:
        """The manifest that the search was checked against."""
        return self.options.manifest

    @property
    def ids(self) -> list[str]:
        """The distinct ids of the stored points among the examples."""
        return list(dict.fromkeys(each for each in self.positive + self.negative if isinstance(each, str)))


def _check_example(manifest: Manifest, example: Example, place: str) -> None:
    if isinstance(example, str):
        check_point_id(example, place)
    else:
        check_query_vector(manifest, example, place)


NearSearch: TypeAlias = SearchQuery | ExampleSearch
"""A search near vectors, as it is asked for."""
NearQuery: TypeAlias = SearchQuery | BestScoreQuery
"""A search near vectors that are all known."""
