"""The payload indexes of one collection: the columns in use, and those of a newer declaration."""

from __future__ import annotations

import threading

from vecstow_engine.index.exact import Labels
from vecstow_engine.index.payload.payload_columns import MayTake, PayloadColumns, Payloads
from vecstow_engine.model.manifest import PayloadIndex


class PayloadIndexes:
    """The columns of a collection. Writers put each new point into all of them; one thread completes them.

    A change of the declaration makes new columns, while complete old ones stay in use. `may_take` limits the
    memory of all of them.
    """

    def __init__(self, declared: tuple[PayloadIndex, ...]) -> None:
        self.may_take: MayTake = lambda size: True
        self._newest = self._made(declared)
        self._in_use: PayloadColumns | None = None
        self._lock = threading.Lock()
        """Held over each write, and each change of the columns that are written."""

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

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that all columns and text indexes take."""
        return sum(columns.memory_bytes for columns in self._all)

    def bytes_of(self, field: str) -> int:
        """Return the bytes of memory that one field takes."""
        return sum(columns.bytes_of(field) for columns in self._all)

    def answers(self, index: PayloadIndex) -> bool:
        """Whether a declared field answers filters, or searches of texts."""
        complete = self.complete
        return complete is not None and index in complete.declared

    def declare(self, declared: tuple[PayloadIndex, ...]) -> None:
        """Follow a declaration: leave out the columns that it does not have, or make new ones.

        No file is made of the columns meanwhile.
        """
        with self._lock:
            if declared == self._newest.declared:
                return
            for columns in self._all:
                if (narrowed := columns.narrowed(declared)) is not None:
                    self._newest = narrowed
                    if columns is self._in_use:
                        self._in_use = narrowed
                    break
            else:
                self._newest = self._made(declared)
            if not self._newest.declared:
                self._in_use = None

    def adopt(self, columns: PayloadColumns) -> None:
        """Take loaded columns of the present declaration, which may lack points."""
        with self._lock:
            self._newest = columns

    def put(self, labels: Labels, payloads: Payloads) -> None:
        """Write the values of new points, before these become live.

        Columns that cannot be written, for example for want of memory, answer no filter until they are
        completed. The error is raised when all others are written.
        """
        failed: Exception | None = None
        with self._lock:
            for columns in self._all:
                try:
                    columns.put(labels, payloads)
                except Exception as error:  # noqa: BLE001  # Raised below.
                    failed = error
                    self._lacks(columns)
        if failed is not None:
            raise failed

    def remove(self, labels: Labels) -> None:
        """Remove the texts of points that are gone."""
        for columns in self._all:
            columns.remove(labels)

    def fill(self, columns: PayloadColumns, labels: Labels, payloads: Payloads) -> None:
        """Write the values of points that columns lack; raise the errors of `PayloadColumns.put`."""
        try:
            columns.fill(labels, payloads)
        except Exception:
            with self._lock:
                self._lacks(columns)
            raise

    def confirm(self, labels: Labels) -> None:
        """Make columns that lack one of these points incomplete; the points became live after `put`.

        Columns can be completed or declared between the two.
        """
        for columns in self._all:
            if columns.is_complete and len(columns.missing(labels)):
                with self._lock:
                    self._lacks(columns)

    def finish(self, columns: PayloadColumns) -> None:
        """Use these columns, which have every point, unless there is a newer declaration."""
        with self._lock:
            if columns is self._newest:
                columns.is_complete = True
                self._in_use = columns

    def _lacks(self, columns: PayloadColumns) -> None:
        columns.is_complete = False
        if columns is self._in_use and (columns is not self._newest or columns.is_torn):
            self._in_use = None
        if columns is self._newest and columns.is_torn:
            self._newest = self._made(columns.declared)

    def _made(self, declared: tuple[PayloadIndex, ...]) -> PayloadColumns:
        return PayloadColumns(declared, lambda size: self.may_take(size))

    @property
    def _all(self) -> list[PayloadColumns]:
        """The columns that are written, those in use first."""
        found = dict.fromkeys((self._in_use, self._newest))
        return [columns for columns in found if columns is not None and columns.declared]
