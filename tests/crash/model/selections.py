"""Deletes and changes of payloads by ids or by a filter, also when a write of another client comes first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import hypothesis.strategies as st
from hypothesis.stateful import rule

from tests.crash.ledger import Points
from tests.crash.model.draws import PICK, SOME_IDS, VALUE, has_collections
from tests.crash.model.machine import Machine
from tests.crash.model.world import VALUES, stored, with_even
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.selections import PayloadChange, Selection
from vecstow_engine.storage.layers import Applied
from vecstow_engine.storage.log.segment import Effect, Upsert

MARK = st.integers(0, 3)


class SelectionRules(Machine):
    """Writes of many points at once."""

    @has_collections
    @rule(pick=PICK, even=st.booleans())
    def delete_matching(self, pick: int, even: bool) -> None:
        name = self.named(pick)
        self.deletes(name, even)

    @has_collections
    @rule(pick=PICK, even=st.booleans(), shift=VALUE, count=st.integers(1, 4))
    def delete_matching_overtaken(self, pick: int, even: bool, shift: int, count: int) -> None:
        """Other values come under some of the ids, after these were read and before they are deleted."""
        name = self.named(pick)
        doomed = sorted(with_even(self.live[name].points, even=even))[:count]
        values = {point_id: (shift + place) % VALUES for place, point_id in enumerate(doomed)}
        points = self.live[name].points | {point_id: stored(value) for point_id, value in values.items()}
        if values:
            with self.overtaken(name, values):
                self.deletes(name, even, points)

    @has_collections
    @rule(pick=PICK, ids=SOME_IDS, mark=MARK)
    def mark_some(self, pick: int, ids: set[str], mark: int) -> None:
        name = self.named(pick)
        selection = Selection(ids=sorted(ids))
        self.changes(name, selection, PayloadChange(merged={"mark": mark}), ids)

    @has_collections
    @rule(pick=PICK, even=st.booleans(), mark=MARK)
    def mark_matching(self, pick: int, even: bool, mark: int) -> None:
        name = self.named(pick)
        chosen = with_even(self.live[name].points, even=even)
        selection = Selection(filter=parse_filter({"even": even}))
        self.changes(name, selection, PayloadChange(merged={"mark": mark}), chosen)

    @has_collections
    @rule(pick=PICK)
    def unmark_all(self, pick: int) -> None:
        name = self.named(pick)
        self.changes(name, Selection(), PayloadChange(removed=("mark",)), self.live[name].points)

    def deletes(self, name: str, even: bool, points: Points | None = None) -> None:
        """`points` are those that there are by the time of the deletion."""
        points = self.live[name].points if points is None else points
        matching = with_even(points, even=even)
        selection = Selection(filter=parse_filter({"even": even}))
        deleted = self.site.do(self.site.engine.selections.delete(self.collection(name), selection))
        assert deleted == len(matching)
        left = {point_id: point for point_id, point in points.items() if point_id not in matching}
        self.live[name].became(left, self.sequence(name))

    def changes(
        self, name: str, selection: Selection, change: PayloadChange, chosen: Points | set[str]
    ) -> None:
        points = self.live[name].points
        call = self.site.engine.selections.change_payloads(
            self.collection(name), selection, change, lambda _: None
        )
        assert self.site.do(call) == len(points.keys() & set(chosen))
        after = {
            point_id: (row, changed(payload, change) if point_id in chosen else payload)
            for point_id, (row, payload) in points.items()
        }
        self.live[name].became(after, self.sequence(name))

    @contextmanager
    def overtaken(self, name: str, values: dict[str, int]) -> Iterator[None]:
        """Let a write come before the next guarded effect, which has read its points already."""
        collection = self.collection(name)
        commit, batch = collection.commit, self.batch(name, values)
        other = Upsert(batch.ids, batch.rows, batch.payloads)
        came = False

        def first_other(effects: Sequence[Effect]) -> list[Applied]:
            nonlocal came
            if not came and any(effect.guards is not None for effect in effects):
                came = True
                commit([other])
            return commit(effects)

        with mock.patch.object(collection, "commit", first_other):
            yield
        assert came


def changed(payload: dict[str, Any] | None, change: PayloadChange) -> dict[str, Any] | None:
    """The payload that a change leaves; an empty one is none."""
    merged = (payload or {}) | dict(change.merged or {})
    return {key: value for key, value in merged.items() if key not in change.removed} or None
