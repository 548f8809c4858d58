"""The contents of hits that are read after the choice of the hits: vectors, and payloads.

A point may be replaced, or fail its checks, after a search found it. Its label is then gone, and the caller
repeats the search.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from vecstow_engine.index.exact import Labels, Rows
from vecstow_engine.model.searches import Hit, SearchOptions
from vecstow_engine.query.search import RESOLVED_POINTS
from vecstow_engine.query.source import Source
from vecstow_engine.storage.view import View


def labels_of(hits: Sequence[Hit]) -> Labels:
    """Return the labels of hits, shape (n,)."""
    return np.fromiter((hit.label for hit in hits), np.uint64, len(hits))


def read_vectors(view: View, labels: Labels) -> tuple[Rows, NDArray[np.bool_]]:
    """Return the stored vectors of labels, shape (n, d), and which of the labels are not gone, shape (n,)."""
    rows = view.vectors(labels)
    return rows, view.are_served(labels) & ~np.isnan(rows[:, 0])


def with_contents(
    source: Source, hits: Sequence[Hit], options: SearchOptions, *, with_payloads: bool
) -> list[Hit | None]:
    """Return the hits with the contents that the search asks for, None for one whose label is gone.

    Reads payloads if `with_payloads`. Raises the errors of `options.weigh` before more memory is taken.
    """
    found: list[Hit | None] = list(hits)
    vector_bytes = len(hits) * options.manifest.dimension * 4 if options.with_vectors else 0
    if with_payloads:
        found = _with_payloads(source.view, hits, options, vector_bytes)
    elif vector_bytes:
        weigh(options, vector_bytes + sum(len(hit.payload or b"") for hit in hits))
    if vector_bytes:
        rows, present = read_vectors(source.view, labels_of(hits))
        found = [
            replace(hit, vector=row) if hit is not None and is_present else None
            for hit, row, is_present in zip(found, rows, present.tolist(), strict=True)
        ]
    return found


def _with_payloads(
    view: View, hits: Sequence[Hit], options: SearchOptions, held_bytes: int
) -> list[Hit | None]:
    found: list[Hit | None] = []
    weigh(options, held_bytes)
    for start in range(0, len(hits), RESOLVED_POINTS):
        part = hits[start : start + RESOLVED_POINTS]
        for hit, point in zip(part, view.resolve(labels_of(part)), strict=True):
            payload = None if point is None else options.payload.apply(point[1])
            held_bytes += len(payload or b"")
            found.append(None if point is None else replace(hit, payload=payload))
        weigh(options, held_bytes)
    return found


def weigh(options: SearchOptions, held_bytes: int) -> None:
    """Weigh the bytes that are held for a search; raise the errors of `options.weigh`."""
    if options.weigh is not None:
        options.weigh(held_bytes)
