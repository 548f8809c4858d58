"""One batch of a change of many points: the effect that makes it, with a guard for each point.

A guard names the label that was read. A point that is written before the effect is committed keeps what was
written.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.selections import PayloadChange, Selection
from vecstow_engine.query.facet import Weigh
from vecstow_engine.query.matching import matching_labels
from vecstow_engine.query.search import RESOLVED_POINTS
from vecstow_engine.query.source import Source
from vecstow_engine.storage.log.segment import Delete, Effect

_Labels = NDArray[np.uint64]
_NONE: Final = np.zeros(0, np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step of a change: the effect for the points of some labels."""

    effect: Effect | None = None
    """None when there is nothing to write."""
    unchanged: _Labels = field(default_factory=lambda: _NONE)
    """The labels of points that are already as they should be."""
    missed: int = 0
    """The number of labels whose points were written or deleted meanwhile, or are withheld."""


def selected_labels(source: Source, selection: Selection) -> _Labels:
    """Return the labels of the selected points, shape (n,); raise Unavailable for a withheld id."""
    if selection.ids is None:
        return matching_labels(source, selection.filter)
    parts = (selection.ids[at : at + RESOLVED_POINTS] for at in range(0, len(selection.ids), RESOLVED_POINTS))
    return np.concatenate([_NONE, *map(source.view.labels_of, parts)])


def deletion(source: Source, labels: _Labels) -> Batch:
    """Return the batch that deletes the points of labels."""
    found: list[str | None] = []
    for start in range(0, len(labels), RESOLVED_POINTS):
        points = source.view.resolve(labels[start : start + RESOLVED_POINTS])
        found += [point and point[0] for point in points]
    there = np.array([point_id is not None for point_id in found], bool)
    ids = [point_id for point_id in found if point_id is not None]
    effect = Delete(ids, labels[there].tolist()) if ids else None
    return Batch(effect, missed=len(labels) - len(ids))


def payload_change(source: Source, labels: _Labels, change: PayloadChange, weigh: Weigh) -> Batch:
    """Return the batch that changes the payloads of the points of labels; their rows stay as they are.

    `weigh` gets the bytes of rows and payloads. Raises the errors of `weigh` and of `PayloadChange.apply`.
    """
    found = source.view.as_upsert(labels)
    payload_bytes = sum(len(payload) for payload in found.payloads if payload is not None)
    weigh(2 * (found.rows.nbytes + payload_bytes))
    payloads = [change.apply(p, i) for p, i in zip(found.payloads, found.ids, strict=True)]
    is_changed = np.array([a != b for a, b in zip(payloads, found.payloads, strict=True)], bool)
    guards = np.array(found.guards, np.uint64)
    lines = np.flatnonzero(is_changed).tolist()
    effect = replace(
        found,
        ids=[found.ids[line] for line in lines],
        rows=found.rows[lines],
        payloads=[payloads[line] for line in lines],
        guards=guards[is_changed].tolist(),
    )
    return Batch(effect if lines else None, guards[~is_changed], len(labels) - len(found.ids))
