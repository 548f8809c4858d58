"""The points that match a filter: their labels, found before anything else of a query is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.payloads import decode_payload
from vecstow_engine.storage.view import View


@dataclass(frozen=True, slots=True)
class Source:
    """One incarnation of a collection that holds data."""

    manifest: Manifest
    view: View
    index: VectorIndex
    hide_withheld: Callable[[], None]
    """A callback that removes points that fail their checks from the index, so that a search finds others."""


def matching_labels(source: Source, filter: Filter | None) -> NDArray[np.uint64]:
    """Return the labels of the served points that match, shape (n,), in no particular order.

    A point that is written meanwhile counts with its old or its new payload. Without a filter every point
    matches.
    """
    if filter is None:
        return source.view.labels()
    matching = [
        label for label, point_id, payload in source.view.scan() if filter.matches(decoded(payload), point_id)
    ]
    return np.array(matching, np.uint64)


def decoded(payload: bytes | None) -> dict[str, object] | None:
    """Return a stored payload in the form that a filter reads."""
    return None if payload is None else decode_payload(payload)
