"""The rows of the chosen points, read and proven."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from vecstow_engine.doctor.check.content import content_problem
from vecstow_engine.doctor.check.table import BLOCK_POINTS
from vecstow_engine.doctor.repair.evidence import Evidence
from vecstow_engine.model.vectors import decode_rows
from vecstow_engine.storage.collection_identity import Identity
from vecstow_engine.storage.rows import RowsFile, row_checksums

Tell = Callable[[int, int], None]
"""Gets how many points are done, and of how many."""

_CHOSEN = (
    "SELECT c.n, c.slot, s.row_checksum, c.id, s.payload FROM chosen AS c JOIN sightings AS s ON s.n = c.n"
    " WHERE c.slot > ? ORDER BY c.slot LIMIT ?"
)


def mark_flaws(evidence: Evidence, path: Path, identity: Identity, tell: Tell) -> None:
    """Mark each chosen point whose row or content cannot be kept."""
    total = evidence.count("SELECT 1 FROM chosen")
    done = 0
    is_there = path.exists()
    for block in _blocks(evidence):
        if is_there:
            evidence.mark(_flaws(block, path, identity))
        else:
            evidence.mark((f"{path.name} is missing", n) for n, *_ in block)
        done += len(block)
        tell(done, total)


def _blocks(evidence: Evidence) -> Iterator[list[tuple[int, int, int, str, bytes | None]]]:
    after = -1
    while block := evidence.rows(_CHOSEN, (after, BLOCK_POINTS)):
        yield block
        after = block[-1][1]


def _flaws(
    block: list[tuple[int, int, int, str, bytes | None]], path: Path, identity: Identity
) -> Iterator[tuple[str, int]]:
    slots = np.fromiter((slot for _, slot, *_ in block), np.int64, len(block))
    with closing(RowsFile(path, identity.stride, read_only=True)) as file:
        rows = file.read(slots)
    wanted = np.fromiter((checksum for _, _, checksum, *_ in block), np.int64, len(block))
    right = np.asarray(row_checksums(rows) == wanted).tolist()
    finite = np.asarray(np.isfinite(decode_rows(rows, identity.vector_type)).all(axis=1)).tolist()
    for (n, _, _, point_id, payload), is_right, is_finite in zip(block, right, finite, strict=True):
        if not is_right:
            yield "its row fails its checksum", n
        elif not is_finite:
            yield "its row holds values that are not finite", n
        elif (problem := content_problem(point_id, payload)) is not None:
            yield problem, n
