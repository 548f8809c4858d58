"""Writes, deletes and searches."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import rule

from tests.crash.model.draws import PICK, POINTS, SOME_IDS, VALUE, has_collections
from tests.crash.model.machine import Machine
from tests.crash.model.world import VALUES, stored, vector_of, with_even
from vecstow_engine.model.errors import Busy
from vecstow_engine.model.filter_parser import parse_filter


class PointRules(Machine):
    """The most frequent operations of clients."""

    @has_collections
    @rule(pick=PICK, values=POINTS)
    def put(self, pick: int, values: dict[str, int]) -> None:
        name = self.named(pick)
        points = {point_id: stored(value) for point_id, value in values.items()}
        if self.held and self.collection(name).store is None:
            self.refused(Busy, lambda: self.write(name, values))
            return
        self.write(name, values)
        self.live[name].became(self.live[name].points | points, self.sequence(name))

    @has_collections
    @rule(pick=PICK, values=POINTS)
    def put_more(self, pick: int, values: dict[str, int]) -> None:
        """A second time, so that it is chosen more often."""
        self.put(pick, values)

    @has_collections
    @rule(pick=PICK, shift=VALUE)
    def update_all(self, pick: int, shift: int) -> None:
        """Every point gets another vector, in one batch."""
        values = {point_id: (shift + place) % VALUES for place, point_id in enumerate(self.points(pick))}
        if values:
            self.put(pick, values)

    @has_collections
    @rule(pick=PICK, ids=SOME_IDS)
    def delete(self, pick: int, ids: set[str]) -> None:
        name = self.named(pick)
        points = self.live[name].points
        existed = self.site.do(self.remove(name, ids))
        assert existed == [point_id in points for point_id in sorted(ids)]
        left = {point_id: point for point_id, point in points.items() if point_id not in ids}
        self.live[name].became(left, self.sequence(name))

    @has_collections
    @rule(pick=PICK, changes=st.lists(POINTS | SOME_IDS, min_size=2, max_size=4))
    def write_together(self, pick: int, changes: list[dict[str, int] | set[str]]) -> None:
        """One group of writes and deletes, which share a sync; a delete of absent points logs nothing."""
        name = self.named(pick)
        if self.collection(name).store is None:
            return
        kept, sequence = self.live[name], self.sequence(name)
        calls = [self.upsert(name, c) if isinstance(c, dict) else self.remove(name, c) for c in changes]
        self.site.do(together(calls))
        for change in changes:
            sequence += isinstance(change, dict) or not change.isdisjoint(kept.points)
            points = {i: point for i, point in kept.points.items() if i not in change}
            if isinstance(change, dict):
                points |= {point_id: stored(value) for point_id, value in change.items()}
            kept.became(points, sequence)
        assert self.sequence(name) == sequence

    @has_collections
    @rule(pick=PICK, value=VALUE, limit=st.integers(1, 30), even=st.none() | st.booleans())
    def search(self, pick: int, value: int, limit: int, even: bool | None) -> None:
        name = self.named(pick)
        points = self.live[name].points
        matching = points if even is None else with_even(points, even=even)
        condition = None if even is None else parse_filter({"even": even})
        self.finds(name, vector_of(value), limit, matching, condition)


async def together(calls: list[Coroutine[Any, Any, Any]]) -> None:
    """All at once, in this order."""
    await asyncio.gather(*calls)
