"""The payload indexes of one collection: the columns in use, and those of a newer declaration."""

from __future__ import annotations

from collections.abc import Sequence

from vecstow_engine.index.exact import Labels
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.model.manifest import PayloadIndex


class PayloadIndexes:
    """The columns of a collection. Writers put each new point into all of them; one thread completes them.

    A change of the declaration makes new columns, while complete old ones stay in use.
    """

    def __init__(self, declared: tuple[PayloadIndex, ...]) -> None:
        self._newest = PayloadColumns(declared)
        self._in_use: PayloadColumns | None = None

    @property
    def complete(self) -> PayloadColumns | None:
        """The columns that answer filters; None while there are none."""
        in_use = self._in_use
        return in_use if in_use is not None and in_use.is_complete else None

    @property
    def unfinished(self) -> PayloadColumns | None:
        """The columns that lack points; None when all points are in their columns."""
        newest = self._newest
        return newest if newest.declared and not newest.is_complete else None

    def declare(self, declared: tuple[PayloadIndex, ...]) -> None:
        """Follow a declaration: drop the columns that it does not have, or make new ones."""
        if declared != self._newest.declared:
            self._replace(PayloadColumns(declared))

    def adopt(self, columns: PayloadColumns) -> None:
        """Take loaded columns of the present declaration, which may lack points."""
        self._newest = columns

    def put(self, labels: Labels, payloads: Sequence[bytes | None]) -> None:
        """Write the values of new points, before these become live."""
        for columns in self._all:
            columns.put(labels, payloads)

    def remove(self, labels: Labels) -> None:
        """Remove the texts of points that are gone."""
        for columns in self._all:
            columns.remove(labels)

    def lack(self) -> None:
        """Record that points could not be written: the columns answer no filter until they are completed."""
        for columns in self._all:
            columns.is_complete = False

    def finish(self, columns: PayloadColumns) -> None:
        """Use these columns, which have every point, unless there is a newer declaration."""
        if columns is self._newest:
            columns.is_complete = True
            self._in_use = columns

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that all columns take."""
        return sum(columns.memory_bytes for columns in self._all)

    def _replace(self, columns: PayloadColumns) -> None:
        self._newest = columns
        if not columns.declared:
            self._in_use = None

    @property
    def _all(self) -> list[PayloadColumns]:
        found = [
            columns for columns in (self._in_use, self._newest) if columns is not None and columns.declared
        ]
        return list(dict.fromkeys(found))
