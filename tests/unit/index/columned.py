"""Columns with the points that they describe, and the filters' answers from both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from vecstow_engine.index.payload.columns_file import file_parts, load_columns
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.points import make_labels

Payload = dict[str, Any] | None


def declared(**fields: str) -> tuple[PayloadIndex, ...]:
    """Payload indexes by field, with `_` for a dot."""
    return tuple(PayloadIndex(field.replace("_", "."), kind) for field, kind in fields.items())


class Columned:
    """Live points by slot, written to columns as a collection does: a slot that is used again has a higher
    epoch.
    """

    def __init__(self, indexes: tuple[PayloadIndex, ...]) -> None:
        self.columns = PayloadColumns(indexes)
        self.points: dict[int, Payload] = {}
        self.epochs: dict[int, int] = {}
        self.epoch = 0

    def put(self, payloads: Mapping[int, Payload]) -> None:
        """Write points of these slots, all of one new epoch."""
        self.epoch += 1
        labels = make_labels(list(payloads), self.epoch)
        raw = [None if each is None else msgspec.json.encode(each) for each in payloads.values()]
        self.columns.put(labels, raw)
        self.points |= payloads
        self.epochs |= dict.fromkeys(payloads, self.epoch)

    def delete(self, slots: Sequence[int]) -> None:
        """Delete points, which changes no column."""
        for slot in slots:
            self.points.pop(slot, None)
            self.epochs.pop(slot, None)

    def save_and_load(self, path: Path) -> None:
        """Take the columns of a file in place of the present ones."""
        path.write_bytes(b"".join(map(bytes, file_parts(self.columns))))
        self.columns = load_columns(path, self.columns.declared, self.columns.may_take)

    def live_epochs(self, size: int | None = None) -> np.ndarray:
        """The epochs by slot, as a view has them."""
        epochs = np.zeros(max(self.epochs, default=-1) + 1 if size is None else size, np.uint32)
        epochs[list(self.epochs)] = list(self.epochs.values())
        return epochs

    def bounds(
        self, document: dict[str, Any], ids: Mapping[int, str] | None = None
    ) -> tuple[set[int], set[int]]:
        """The slots that match for certain, and those that may match; `ids` by slot."""
        epochs = self.live_epochs()

        def mask(wanted: tuple[Any, ...]) -> np.ndarray:
            return np.array([(ids or {}).get(slot) in wanted for slot in range(len(epochs))], np.bool_)

        found = self.columns.match(parse_filter(document), epochs, mask)
        return set(np.flatnonzero(found.sure).tolist()), set(np.flatnonzero(found.possible).tolist())


def matching(indexes: tuple[PayloadIndex, ...], document: dict[str, Any], *payloads: Payload) -> Any:
    """True, False or None (may match) for each payload, by the columns."""
    points = Columned(indexes)
    points.put(dict(enumerate(payloads)))
    sure, possible = points.bounds(document)
    return [True if slot in sure else None if slot in possible else False for slot in range(len(payloads))]
