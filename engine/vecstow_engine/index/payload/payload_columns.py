"""The columns of all declared fields of one collection, their writers and their file."""

from __future__ import annotations

import itertools
import struct
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.payload.coders import Mask
from vecstow_engine.index.payload.column import Bounds, Column
from vecstow_engine.index.payload.evaluation import Evaluation, unindexed
from vecstow_engine.index.payload.fields import FieldReader, text_of
from vecstow_engine.index.text.text_index import TextIndex
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.points import epochs_of, slots_of

TEXT: Final = "text"
FILE_VERSION: Final = 1
_EPOCH_BYTES: Final = 4
_HEAD_LENGTH: Final = struct.Struct("<I")
_TEXT_BYTES: Final = 200
"""About the bytes of memory of a text of 25 words, apart from distinct words."""

Labels = NDArray[np.uint64]
Payloads = Sequence[bytes | None]


class PayloadColumns:
    """The columns and text indexes of one declaration. Writers take turns; readers take no lock.

    `is_complete`: whether every live slot is in the columns. Until then no filter is answered.
    """

    def __init__(self, declared: tuple[PayloadIndex, ...]) -> None:
        """Make empty columns; a text field has a text index in place of a column."""
        self.declared = declared
        self.columns = {each.field: Column(each.type) for each in declared if each.type != TEXT}
        self.texts = {each.field: TextIndex() for each in declared if each.type == TEXT}
        self.is_complete = False
        self.changes = 0
        """The number of slots written since the columns were made or loaded."""
        self._reader = FieldReader([*self.columns, *self.texts])
        self._epochs: NDArray[np.uint32] = np.zeros(0, np.uint32)
        """The epoch of the point whose values a slot has; 0 without one."""
        self._lock = threading.Lock()

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that columns and text indexes take."""
        texts = sum(text.bytes for text in self.texts.values())
        return self._epochs.nbytes + texts + sum(column.memory_bytes for column in self.columns.values())

    @property
    def filled(self) -> int:
        """The number of slots that have values, those of points that are gone included."""
        return int(np.count_nonzero(self._epochs))

    @property
    def slot_bytes(self) -> int:
        """Bytes of memory of one slot, apart from distinct keywords and words, and elements of arrays."""
        columns = sum(1 + column.coder.dtype.itemsize for column in self.columns.values())
        return _EPOCH_BYTES + columns + _TEXT_BYTES * len(self.texts)

    def put(self, labels: Labels, payloads: Payloads) -> None:
        """Write the values of new points, before these become live."""
        with self._lock:
            self._put(labels, payloads)

    def fill(self, labels: Labels, payloads: Payloads) -> None:
        """Write the values of points that were read a while ago; leave slots that have a newer point."""
        with self._lock:
            self._grow(labels)
            older = np.flatnonzero(self._epochs[slots_of(labels)] < epochs_of(labels))
            self._put(labels[older], [payloads[line] for line in older.tolist()])

    def remove(self, labels: Labels) -> None:
        """Remove the texts of points that are gone. Columns keep values until the slot is used again."""
        if not self.texts or not len(labels):
            return
        with self._lock:
            self._grow(labels)
            slots, epochs = slots_of(labels), epochs_of(labels)
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
        with self._lock:
            slots, epochs = slots_of(labels), epochs_of(labels)
            known = slots < len(self._epochs)
            known[known] = self._epochs[slots[known]] == epochs[known]
        return labels[~known]

    def match(self, filter: Filter, size: int, slots_of_ids: Callable[[tuple[Any, ...]], Mask]) -> Bounds:
        """Return which of the slots below `size` match; the caller took the live slots before.

        `slots_of_ids` returns the mask, shape (size,), of the slots of some ids.
        """
        return Evaluation(self.columns, size, slots_of_ids).bounds(filter.root)

    def unindexed(self, filter: Filter) -> list[str]:
        """Return the fields of the filter that have no column, sorted."""
        return sorted(set(unindexed(filter.root, self.columns)))

    def _put(self, labels: Labels, payloads: Payloads) -> None:
        slots = slots_of(labels)
        if not len(slots):
            return
        self._grow(labels)
        listed = slots.tolist()
        values = iter(self._reader.read(payloads))
        for field, column in self.columns.items():
            column.put(listed, next(values))
            if "." in field and not column.has_dotted_key:
                column.has_dotted_key = self._reader.has_key(payloads, field)
        for text in self.texts.values():
            text.put(slots, list(map(text_of, next(values))))
        self._epochs[slots] = epochs_of(labels)
        self.changes += len(slots)

    def _grow(self, labels: Labels) -> None:
        size = int(slots_of(labels).max(initial=-1)) + 1
        if size > len(self._epochs):
            for column in self.columns.values():
                column.grow(size)
            room = max(size, len(self._epochs) * 3 // 2)
            self._epochs = np.concatenate([self._epochs, np.zeros(room - len(self._epochs), np.uint32)])

    def parts(self) -> tuple[list[bytes | memoryview], int]:
        """Return the parts of the file with the columns as they are at one moment, and `changes` then."""
        with self._lock:
            changes = self.changes
            arrays: dict[str, NDArray[Any]] = {"epochs": self._epochs.copy()}
            described = []
            for number, (each, column) in enumerate(zip(self._indexed, self.columns.values(), strict=True)):
                described.append([each.field, each.type, column.has_dotted_key])
                arrays |= {f"{number}.{name}": array for name, array in column.arrays().items()}
            texts = [text.save() for text in self.texts.values()]
        listed = [[name, array.dtype.str, len(array)] for name, array in arrays.items()]
        sizes = [[field, sum(map(len, saved))] for field, saved in zip(self.texts, texts, strict=True)]
        head = msgspec.json.encode(
            {"version": FILE_VERSION, "columns": described, "arrays": listed, "texts": sizes}
        )
        parts: list[bytes | memoryview] = [_HEAD_LENGTH.pack(len(head)), head]
        parts += [array.data for array in arrays.values()]
        return [*parts, *itertools.chain.from_iterable(texts)], changes

    @classmethod
    def load(cls, path: Path, declared: tuple[PayloadIndex, ...]) -> PayloadColumns:
        """Read a file whose checksum was verified; raise ValueError for columns of another declaration."""
        found = cls(declared)
        with path.open("rb") as stream:
            head = msgspec.json.decode(stream.read(_HEAD_LENGTH.unpack(stream.read(_HEAD_LENGTH.size))[0]))
            described = [[each.field, each.type] for each in found._indexed]
            is_other = [each[:2] for each in head["columns"]] != described
            if head["version"] != FILE_VERSION or is_other or [f for f, _ in head["texts"]] != [*found.texts]:
                raise ValueError("it has other columns than the manifest declares")
            arrays = {name: np.fromfile(stream, kind, count) for name, kind, count in head["arrays"]}
            for field, size in head["texts"]:
                found.texts[field] = TextIndex.load(stream.read(size), str(path))
        for number, (field, kind, has_dotted_key) in enumerate(head["columns"]):
            prefix = f"{number}."
            own = {
                name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)
            }
            found.columns[field] = Column.from_arrays(kind, own)
            found.columns[field].has_dotted_key = has_dotted_key
        found._epochs = arrays["epochs"]
        return found

    @property
    def _indexed(self) -> list[PayloadIndex]:
        return [each for each in self.declared if each.field in self.columns]
