"""Requests for many points at a time: scroll, count, facet, delete, and changes of payloads.

Reads run in the threads of searches; those that may look at every point, in the threads of long searches.
A change goes in batches, each of them atomic. Its guards keep points that another request writes meanwhile:
such points are looked at again. An interrupted change leaves whole batches, and goes on when it is repeated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.errors import Conflict
from vecstow_engine.model.filters import Filter, Scalar
from vecstow_engine.model.scrolls import ScrollQuery
from vecstow_engine.model.selections import PayloadChange, Selection
from vecstow_engine.query.changes import Batch, deletion, payload_change, selected_labels
from vecstow_engine.query.facet import Weigh, facet
from vecstow_engine.query.reading import matching_count
from vecstow_engine.query.scroll import Scroll, ScrolledPoint, begin_scroll
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.registry import Bound
from vecstow_engine.service.searcher import Searcher
from vecstow_engine.storage.layers import Applied
from vecstow_engine.storage.log.segment import Delete, Effect

ROUNDS_MAX: Final = 10
"""The most looks at the points of one change. Points that are written during each of them end the request."""
DELETED_POINTS: Final = 4_096
"""The number of points of one record: other writes of the collection wait for less than a second."""
CHANGED_POINTS: Final = 256
CHANGED_ROW_BYTES: Final = 4 << 20
"""A record of changed payloads has at most so many points, with so many bytes of rows: 36 MiB in all."""

Write: TypeAlias = Callable[[Collection, Effect], Awaitable[Applied]]
_Labels: TypeAlias = NDArray[np.uint64]
_Read: TypeAlias = Callable[[Collection, _Labels], Batch]


class Selections:
    """The requests for many points of all collections; used from one event loop.

    The methods raise Conflict when the collection is replaced meanwhile, and Busy when too many calls wait.
    """

    def __init__(self, bound: Callable[[Collection], Bound], searcher: Searcher, write: Write) -> None:
        self._bound = bound
        self._searcher = searcher
        self._write = write

    def scroll(self, collection: Collection, query: ScrollQuery) -> PageReader:
        """Return the reader of one page."""
        return PageReader(self._bound, self._searcher, collection, query)

    async def count(self, collection: Collection, filter: Filter | None) -> int:
        """Return the number of served points that match."""
        with self._bound(collection):
            run = self._searcher.run if filter is None else self._searcher.run_alone
            return await run(_count, collection, filter)

    async def facet(
        self, collection: Collection, field: str, filter: Filter | None, limit: int, weigh: Weigh
    ) -> list[tuple[Scalar, int]]:
        """Return the values of a field and how many of the matching points have them, most frequent first."""
        with self._bound(collection):
            return await self._searcher.run_alone(_facet, collection, field, filter, limit, weigh)

    async def delete(self, collection: Collection, selection: Selection) -> int:
        """Delete the selected points; return how many were deleted."""
        with self._bound(collection):
            collection.writable()
            if selection.ids is None:
                return await self._change(collection, selection, "delete", DELETED_POINTS, _deletion)
            if not selection.ids or collection.store is None:
                return 0
            return sum((await self._write(collection, Delete(selection.ids))).existed)

    async def change_payloads(
        self, collection: Collection, selection: Selection, change: PayloadChange, weigh: Weigh
    ) -> int:
        """Change the payloads of the selected points; return how many were changed, or had the result before.

        `weigh` gets the bytes of the batch in memory. Raises InvalidInput or TooLarge, which name the point,
        for a payload that cannot be stored; the batches before it are changed.
        """

        def read(collection: Collection, labels: _Labels) -> Batch:
            source = collection.source()
            return Batch() if source is None else payload_change(source, labels, change, weigh)

        manifest = collection.manifest
        points = CHANGED_ROW_BYTES // manifest.vector_type.row_bytes(manifest.dimension)
        step = max(1, min(CHANGED_POINTS, points))
        with self._bound(collection):
            collection.writable()
            return await self._change(collection, selection, "payload", step, read)

    async def _change(
        self, collection: Collection, selection: Selection, task: str, step: int, read: _Read
    ) -> int:
        """Change the selected points batch by batch, until no other request writes one of them meanwhile."""
        run = self._searcher.run_alone if selection.ids is None else self._searcher.run
        tally = _Tally()
        for _ in range(ROUNDS_MAX):
            labels = tally.left(await run(_select, collection, selection))
            try:
                for start in range(0, len(labels), step):
                    if len(labels) > step:
                        collection.progress = {"task": task, "done": start, "total": len(labels)}
                    batch = await self._searcher.run(read, collection, labels[start : start + step])
                    applied = None if batch.effect is None else await self._write(collection, batch.effect)
                    tally.add(batch, applied)
            finally:
                collection.progress = None
            if tally.ends_round():
                return tally.changed
        raise Conflict(
            f"other requests wrote points of the selection in each of {ROUNDS_MAX} rounds; "
            f"{tally.changed} points were changed",
            collection=collection.name,
            operation=task,
            hint="send the request again: it goes on with the points that are left",
            retry_after_seconds=1,
        )


class _Tally:
    """The result of the batches of a change so far."""

    def __init__(self) -> None:
        self.changed = 0
        self._missed = 0
        self._is_first_round = True
        self._done: list[_Labels] = []

    def left(self, labels: _Labels) -> _Labels:
        """Return the labels of points that are not done."""
        return labels[~np.isin(labels, np.concatenate(self._done))] if self._done else labels

    def add(self, batch: Batch, applied: Applied | None) -> None:
        """Count a batch and its effect. An unchanged point counts in the first round only."""
        self._missed += batch.missed
        self._done.append(batch.unchanged)
        if self._is_first_round:
            self.changed += len(batch.unchanged)
        if batch.effect is not None and applied is not None:
            self._missed += len(applied.rejected)
            self._done.append(applied.added)
            self.changed += len(batch.effect.ids) - len(applied.rejected)

    def ends_round(self) -> bool:
        """Return whether the round missed no point; begin the next one."""
        missed, self._missed, self._is_first_round = self._missed, 0, False
        return not missed


class PageReader:
    """The points of one page of a scroll; used from one event loop."""

    def __init__(
        self,
        bound: Callable[[Collection], Bound],
        searcher: Searcher,
        collection: Collection,
        query: ScrollQuery,
    ) -> None:
        is_quick = query.filter is None and query.order is None
        self._run = searcher.run if is_quick else searcher.run_alone
        self._bound = bound
        self._collection = collection
        self._query = query
        self._scroll: Scroll | None = None
        self.is_done = False
        """Whether no point follows those that were read."""

    async def read(self, count: int) -> list[ScrolledPoint]:
        """Return the next points, at most `count`; fewer, or none, while others follow."""
        with self._bound(self._collection):
            return await self._run(self._read, self._collection, count)

    def _read(self, collection: Collection, count: int) -> list[ScrolledPoint]:
        if self._scroll is None:
            source = collection.source()
            if source is None:
                self.is_done = True
                return []
            self._scroll = begin_scroll(source, self._query)
        points = self._scroll.read(count)
        self.is_done = self._scroll.is_done
        return points


def _count(collection: Collection, filter: Filter | None) -> int:
    source = collection.source()
    return 0 if source is None else matching_count(source, filter)


def _facet(
    collection: Collection, field: str, filter: Filter | None, limit: int, weigh: Weigh
) -> list[tuple[Scalar, int]]:
    source = collection.source()
    return [] if source is None else facet(source, field, filter, limit, weigh)


def _select(collection: Collection, selection: Selection) -> _Labels:
    source = collection.source()
    return np.zeros(0, np.uint64) if source is None else selected_labels(source, selection)


def _deletion(collection: Collection, labels: _Labels) -> Batch:
    source = collection.source()
    return Batch() if source is None else deletion(source, labels)
