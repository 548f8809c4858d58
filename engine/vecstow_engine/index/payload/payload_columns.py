"""The columns and text indexes of all declared fields of a collection, and the points that they have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.payload.arrays import Slots, grown, room_for
from vecstow_engine.index.payload.coders import Mask
from vecstow_engine.index.payload.column import Bounds, Column, ValueCounts
from vecstow_engine.index.payload.evaluation import Evaluation, unindexed
from vecstow_engine.index.payload.fields import FieldReader, text_of
from vecstow_engine.index.text.text_index import TextIndex
from vecstow_engine.model.errors import OutOfMemory
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.points import epochs_of, slots_of

TEXT: Final = "text"
TEXT_BYTES: Final = 200
"""About the bytes of memory of a text of 25 words, apart from distinct words."""
SLOTS_MIN: Final = 1024
EPOCH_BYTES: Final = 4
WORD_FACTOR_MAX: Final = 64
"""The most memory of new keywords for each byte of a payload: `"ab",` takes five bytes, and the word 162."""

Labels = NDArray[np.uint64]
Epochs = NDArray[np.uint32]
Payloads = Sequence[bytes | None]
MayTake = Callable[[int], bool]
"""A function that gets the bytes that columns are about to take, and returns whether there is memory for
them."""


class PayloadColumns:
    """The columns and text indexes of one declaration. Writers take turns; readers take no lock.

    `is_complete`: whether every live slot is in the columns. Until then no filter is answered.
    """

    def __init__(
        self,
        declared: tuple[PayloadIndex, ...],
        may_take: MayTake = lambda size: True,
        fields: Mapping[str, Column | TextIndex] | None = None,
        epochs: Epochs | None = None,
    ) -> None:
        """Make empty columns, or take those of each field, for slots that have points of these epochs.

        A text field has a text index in place of a column.
        """
        self.declared = declared
        self.may_take = may_take
        if fields is None:
            fields = {
                each.field: TextIndex() if each.type == TEXT else Column(each.type) for each in declared
            }
        self.columns = {name: field for name, field in fields.items() if isinstance(field, Column)}
        self.texts = {name: field for name, field in fields.items() if isinstance(field, TextIndex)}
        self.is_complete = False
        self.is_torn = False
        """Whether an error left a point half written: the columns must not be used any more."""
        self._is_replaced = False
        """Whether other columns share those of this object, and its own ones get no more values."""
        self.changes = 0
        """The number of slots written since the columns were made, loaded or saved."""
        self._reader = FieldReader([*self.columns, *self.texts])
        self._epochs: Epochs = np.zeros(0, np.uint32) if epochs is None else epochs
        """The epoch of the point whose values a slot has; 0 without one, and while they are written."""
        self._lock = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that columns and text indexes take."""
        return self._epochs.nbytes + sum(map(self.bytes_of, [*self.columns, *self.texts]))

    @property
    def filled(self) -> int:
        """The number of slots that have values, those of points that are gone included."""
        return int(np.count_nonzero(self._epochs))

    @property
    def slot_bytes(self) -> int:
        """Bytes of memory of one slot, apart from distinct keywords and words, and elements of arrays."""
        columns = sum(column.slot_bytes for column in self.columns.values())
        return EPOCH_BYTES + columns + TEXT_BYTES * len(self.texts)

    def bytes_of(self, field: str) -> int:
        """Return the bytes of memory that one field takes; 0 for a field that is not declared."""
        if (text := self.texts.get(field)) is not None:
            return text.bytes
        return column.memory_bytes if (column := self.columns.get(field)) is not None else 0

    def put(self, labels: Labels, payloads: Payloads) -> None:
        """Write the values of new points, before these become live.

        Raises OutOfMemory, with nothing written, when there is no memory for them. Another error leaves the
        columns torn.
        """
        with self._lock:
            if not self._is_replaced:
                self._put(labels, payloads)

    def fill(self, labels: Labels, payloads: Payloads) -> None:
        """Write the values of points that were read a while ago; leave slots that have a newer point.

        Raises the errors of `put`.
        """
        with self._lock:
            if self._is_replaced:
                return
            slots, epochs = slots_of(labels), epochs_of(labels)
            older = slots >= len(self._epochs)
            older[~older] = self._epochs[slots[~older]] < epochs[~older]
            lines = np.flatnonzero(older)
            self._put(labels[lines], [payloads[line] for line in lines.tolist()])

    def remove(self, labels: Labels) -> None:
        """Remove the texts of points that are gone. Columns keep values until the slot is used again."""
        if not self.texts or not len(labels):
            return
        with self._lock:
            if self._is_replaced:
                return
            slots, epochs = slots_of(labels), epochs_of(labels)
            self._grow(self._size_for(int(slots.max()) + 1))
            current = self._epochs[slots] <= epochs
            slots = slots[current]
            for text in self.texts.values():
                text.remove(slots)
            # A payload that was read before the removal is not filled in after it.
            self._epochs[slots] = epochs[current]

    def remove_others(self, live: Labels) -> None:
        """Remove the texts of all points that are not among the labels `live`."""
        with self._lock:
            gone = self._epochs != 0
            known = live[slots_of(live) < len(gone)]
            gone[slots_of(known)] = self._epochs[slots_of(known)] != epochs_of(known)
            for text in self.texts.values():
                text.remove(np.flatnonzero(gone))

    def missing(self, labels: Labels) -> Labels:
        """Return the labels, of live points, that the columns lack, shape (m,)."""
        slots, epochs = slots_of(labels), epochs_of(labels)
        held = self._epochs
        known = slots < len(held)
        known[known] = held[slots[known]] == epochs[known]
        return labels[~known]

    def match(
        self, filter: Filter, epochs: Epochs, slots_of_ids: Callable[[tuple[Any, ...]], Mask]
    ) -> Bounds:
        """Return which live slots match; `epochs` (slots,) are those of the live points, 0 for other slots.

        `slots_of_ids` returns the mask, shape (slots,), of the slots of some ids. A point whose slot was used
        again meanwhile, or that the columns lack, may match.
        """
        # The length comes first: no column is shorter.
        size = min(len(epochs), len(self._epochs))
        found = Evaluation(self.columns, size, lambda ids: slots_of_ids(ids)[:size]).bounds(filter.root)
        # The epochs come last: a slot that was used again during the evaluation has another one by now.
        held = (self._epochs[:size] == epochs[:size]) & (not self._is_replaced)
        sure, possible = np.zeros(len(epochs), np.bool_), epochs != 0
        sure[:size] = found.sure & held & possible[:size]
        possible[:size] &= found.possible | ~held
        return Bounds(sure, possible)

    def count_values(self, field: str, epochs: Epochs, slots: Mask) -> ValueCounts | None:
        """Return how many of the slots in a mask have each value of a field, as `Column.count_values`.

        `epochs` and `slots` (slots,) are of one moment. None for a field without a column, and when a slot
        was used again since that moment.
        """
        column = self.columns.get(field)
        if column is None or len(epochs) > len(self._epochs):
            return None
        found = column.count_values(slots)
        return found if self._holds(epochs, slots) else None

    def first_in_order(
        self, field: str, epochs: Epochs, slots: Mask, start: Any, count: int, *, is_descending: bool
    ) -> Mask | None:
        """Return slots that contain the first `count` values of a field, as `Column.first_in_order`.

        `epochs` and `slots` (slots,) are of one moment. None for a field without a column, and when a slot
        was used again since that moment.
        """
        column = self.columns.get(field)
        if column is None or len(epochs) > len(self._epochs):
            return None
        found = column.first_in_order(slots, start, count, is_descending=is_descending)
        return found if self._holds(epochs, slots) else None

    def _holds(self, epochs: Epochs, slots: Mask) -> bool:
        """Whether no slot in a mask was used again since the moment of the epochs."""
        return bool((self._epochs[: len(epochs)] == epochs)[slots].all()) and not self._is_replaced

    def unindexed(self, filter: Filter) -> list[str]:
        """Return the fields of the filter that have no column, sorted."""
        return sorted(set(unindexed(filter.root, self.columns)))

    def narrowed(self, declared: tuple[PayloadIndex, ...]) -> PayloadColumns | None:
        """Return the columns of a declaration that adds no field to this one; None for another declaration.

        They take the place of these ones, which are not written any more.
        """
        if self.is_torn or not set(declared) <= set(self.declared):
            return None
        with self._lock:
            fields: dict[str, Column | TextIndex] = {**self.columns, **self.texts}
            kept = {each.field: fields[each.field] for each in declared}
            found = PayloadColumns(declared, self.may_take, kept, self._epochs)
            found.is_complete, found.changes = self.is_complete, self.changes + 1
            found._lock = self._lock
            self._is_replaced = True
            return found

    def parts(self) -> Iterator[tuple[PayloadIndex | None, dict[str, NDArray[Any]]]]:
        """Yield for a file the arrays of each field, and at last, with None, the epochs.

        A writer waits for the copy of one field at most. A point that is written meanwhile has a higher epoch
        than the file has for its slot: the file lacks the point.
        """
        with self._lock:
            epochs = self._epochs.copy()
        for each in self.declared:
            if (text := self.texts.get(each.field)) is not None:
                yield each, {TEXT: np.frombuffer(b"".join(text.save()), np.uint8)}
                continue
            column = self.columns[each.field]
            with self._lock:
                copied = column.copied(len(epochs))
            yield each, column.packed(copied)
        yield None, {"epochs": epochs}

    def saved(self, changes: int) -> None:
        """Count the changes that a file contains no more."""
        with self._lock:
            self.changes -= changes

    def _put(self, labels: Labels, payloads: Payloads) -> None:
        if not len(labels):
            return
        slots = slots_of(labels)
        values = self._reader.read(payloads)
        size = self._size_for(int(slots.max()) + 1)
        self._refuse_without_room(size, payloads, values)
        try:
            self._write(slots, size, values, payloads)
            self._epochs[slots] = epochs_of(labels)
        except BaseException:
            self.is_torn = True
            raise
        self.changes += len(slots)

    def _size_for(self, slots: int) -> int:
        """Return the number of slots to make room for."""
        return room_for(slots, len(self._epochs), SLOTS_MIN)

    def _refuse_without_room(self, size: int, payloads: Payloads, values: Sequence[Sequence[Any]]) -> None:
        """Raise OutOfMemory unless there is memory for columns and text indexes with these values."""
        pairs = list(zip(self.columns.values(), values, strict=False))
        need = (size - len(self._epochs)) * self.slot_bytes
        need += sum(column.growth_bytes(size, of_field) for column, of_field in pairs)
        # New keywords and words are counted only where memory is short.
        if self.may_take(need + WORD_FACTOR_MAX * sum(len(payload) for payload in payloads if payload)):
            return
        need += sum(column.new_word_bytes(of_field) for column, of_field in pairs)
        texts = zip(self.texts.values(), values[len(pairs) :], strict=True)
        need += sum(text.growth_bytes(list(map(text_of, of_field))) for text, of_field in texts)
        if not self.may_take(need):
            raise OutOfMemory(
                f"payload indexes take {need} bytes more with {len(payloads)} more points, and there is no "
                "memory for them",
                hint="declare fewer payload indexes, or raise --memory-limit (docs/sizing.md)",
            )

    def _write(self, slots: Slots, size: int, values: list[list[Any]], payloads: Payloads) -> None:
        self._grow(size)
        # Readers that evaluate a slot while it is written find this 0 afterwards.
        self._epochs[slots] = 0
        of_fields = iter(values)
        for field, column in self.columns.items():
            column.put(slots, next(of_fields))
            if "." in field and not column.has_dotted_key:
                column.has_dotted_key = self._reader.has_key(payloads, field)
        for text in self.texts.values():
            text.put(slots, list(map(text_of, next(of_fields))))

    def _grow(self, size: int) -> None:
        for column in self.columns.values():
            column.grow(size)
        # No column is shorter than the epochs.
        self._epochs = grown(self._epochs, size)
