"""The source of queries: one incarnation of a collection that holds data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.query.candidates import CandidateCache
from vecstow_engine.storage.view import View

ATTEMPTS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Source:
    """One incarnation of a collection that holds data."""

    manifest: Manifest
    view: View
    index: VectorIndex
    columns: PayloadColumns | None
    """The payload indexes; None without any, and until they are complete."""
    candidates: CandidateCache
    writes_paused: Callable[[], AbstractContextManager[object]]
    hide_withheld: Callable[[], None]
    """A callback that removes points that fail their checks from the index, so that a search finds others."""

    def attempts(self) -> Iterator[AbstractContextManager[object]]:
        """Yield a context for each attempt of a read that a write can disturb; the last one pauses writes.

        A reader ends the loop after an attempt that no write disturbed.
        """
        for _ in range(ATTEMPTS_MAX - 1):
            yield nullcontext()
        yield self.writes_paused()
