"""Vectors to measure with: a synthetic mixture of any size, and real embeddings from a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.figures import BenchmarkFailed

Rows = NDArray[np.float32]

CLUSTERS: Final = 2000
DECAY: Final = 0.5
"""The standard deviation falls with the direction's number to this power, as it does in embeddings."""
BLOCK_ROWS: Final = 50_000
SEED: Final = 20_240_101


class Mixture:
    """Rows of unit length from a mixture of gaussians, always the same ones.

    With 2,000 clusters that overlap, hnswlib finds about 0.97 of the ten nearest of 50,000 rows at ef 50, as
    it does on sentence embeddings; uniform noise would give far less, separate clusters would give all.
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        random = np.random.default_rng(SEED)
        self._scale = (np.arange(dimension) + 1.0) ** -DECAY
        self._rotation = np.linalg.qr(random.standard_normal((dimension, dimension)))[0]
        self._centers = random.standard_normal((CLUSTERS, dimension)) * self._scale

    def rows(self, count: int, start: int = 0) -> Rows:
        """Rows `start` to `start + count` of the endless sequence; both are rounded to blocks inside."""
        first, last = start // BLOCK_ROWS, (start + count - 1) // BLOCK_ROWS
        blocks = np.concatenate([self._block(number) for number in range(first, last + 1)])
        return blocks[start - first * BLOCK_ROWS :][:count]

    def queries(self, count: int) -> Rows:
        """Queries from the same mixture, none of them a row."""
        return self._draw(count, np.random.default_rng([SEED, 1]))

    def _block(self, number: int) -> Rows:
        return self._draw(BLOCK_ROWS, np.random.default_rng([SEED, 2, number]))

    def _draw(self, count: int, random: np.random.Generator) -> Rows:
        rows = self._centers[random.integers(0, CLUSTERS, count)]
        rows += random.standard_normal((count, self.dimension)) * self._scale
        rows = (rows @ self._rotation).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def with_equal(rows: Rows, share: float, spread: float = 0.0) -> Rows:
    """A copy of rows of unit length, this share of them, at random places, replaced by one of them.

    `spread`: the standard deviation of each replaced value around it; the length is one again afterwards.
    """
    random = np.random.default_rng([SEED, 3])
    places = random.permutation(len(rows))[: round(share * len(rows))]
    same = rows[0] + spread * random.standard_normal((len(places), rows.shape[1]))
    changed = rows.copy()
    changed[places] = same if spread == 0 else same / np.linalg.norm(same, axis=1, keepdims=True)
    return changed


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Real rows and queries, float32; distances of the exact nearest under Cosine if the folder has them."""

    rows: Rows
    queries: Rows
    cosine_distance: NDArray[np.float32] | None


def read_embeddings(folder: Path) -> Embeddings:
    """`packages.f16.npy`, `queries.f16.npy` (or `questions.f16.npy`) and, if there, `truth.cosine.npz`."""
    queries = next(
        (p for p in (folder / "queries.f16.npy", folder / "questions.f16.npy") if p.exists()), None
    )
    if queries is None or not (folder / "packages.f16.npy").exists():
        raise BenchmarkFailed(f"{folder} must hold packages.f16.npy and queries.f16.npy")
    truth = folder / "truth.cosine.npz"
    distance = None
    if truth.exists():
        with np.load(truth) as arrays:
            distance = arrays["distance"].astype(np.float32)
    return Embeddings(
        np.load(folder / "packages.f16.npy").astype(np.float32),
        np.load(queries).astype(np.float32),
        distance,
    )
