"""The importer of a `vectors.bin` that d-vecDB wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from vecstow_engine.importers.dvecdb.reader import read_batches, read_vectors
from vecstow_engine.importers.report import ForeignPoint, ImportReport
from vecstow_engine.model.batch import PointBatch
from vecstow_engine.model.errors import InvalidInput, TooLarge
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.creation import bulk_load
from vecstow_engine.storage.layout import ROWS, Layout
from vecstow_engine.storage.restoring import Settled

BATCH_POINTS: Final = 4096


class DvecdbFile:
    """An importer of d-vecDB's file; it skips and reports records that it cannot read."""

    def recognizes(self, rows: Path) -> bool:
        """Return True: the format has no magic, and the reader searches any file for records."""
        return True

    def build(
        self, layout: Layout, source: Path, staging: Path, wanted: Manifest
    ) -> tuple[Settled, ImportReport]:
        """Make the collection; see `Importer.build`."""
        report = ImportReport()
        made = bulk_load(staging, wanted, _batches(source / ROWS, wanted, report))
        return Settled(*made, remarks=report.remarks()), report


def _batches(path: Path, wanted: Manifest, report: ImportReport) -> Iterator[PointBatch]:
    for points in read_batches(read_vectors(path, wanted.dimension, report), BATCH_POINTS):
        try:
            yield _batch_of(wanted, points)
        except (InvalidInput, TooLarge):
            yield _batch_of(wanted, [point for point in points if _fits(wanted, point, report)])


def _fits(wanted: Manifest, point: ForeignPoint, report: ImportReport) -> bool:
    """Whether a point is within the limits; another one is reported as skipped."""
    try:
        _batch_of(wanted, [point])
    except (InvalidInput, TooLarge) as error:
        report.skip(point.offset, f"{point.id}: {error.message}")
        return False
    return True


def _batch_of(wanted: Manifest, points: list[ForeignPoint]) -> PointBatch:
    rows = np.stack([p.vector for p in points]) if points else np.zeros((0, wanted.dimension), np.float32)
    return PointBatch.build(wanted, [p.id for p in points], rows, [p.metadata for p in points])
