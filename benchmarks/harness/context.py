"""The context of a benchmark: how much to measure, where, and on which data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.harness.dataset import Mixture, Rows

K = 10
"""Neighbours asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured; the defaults are what the targets are about."""

    rows: int = 50_000
    dimension: int = 128
    queries: int = 1000
    search_seconds: float = 3.0
    collections: tuple[int, ...] = (1, 10, 100, 1000)
    creates: int = 200
    large_rows: int = 1_000_000
    recall_queries: int = 500


class Context:
    """One run of the whole program."""

    def __init__(
        self,
        *,
        folder: Path,
        data: Path,
        runs: int,
        sizes: Sizes,
        say: Callable[[str], None],
        against: Path | None = None,
    ) -> None:
        self.folder = folder
        self.data = data
        self.runs = runs
        self.sizes = sizes
        self.say = say
        """Tells a person what goes on."""
        self.against = against
        """Another checkout, to compare with."""
        self.mixture = Mixture(sizes.dimension)

    def volume(self) -> Path:
        """A new data directory, which does not exist yet."""
        return Path(tempfile.mkdtemp(prefix="volume-", dir=self.folder)) / "data"

    @cached_property
    def rows(self) -> Rows:
        """Synthetic rows of unit length."""
        return self.mixture.rows(self.sizes.rows)

    @cached_property
    def queries(self) -> Rows:
        """Synthetic queries of unit length."""
        return self.mixture.queries(self.sizes.queries)
