"""The engine's periodic work, here done when an example says so."""

from __future__ import annotations

import contextlib

import hypothesis.strategies as st
from hypothesis.stateful import precondition, rule

from tests.crash.model.draws import PICK, has_collections, is_free
from tests.crash.model.machine import Machine
from tests.crash.model.world import CONFIG
from tests.crash.reading import HOLD_SECONDS
from vecstow_engine.model.errors import DiskFull
from vecstow_engine.service.snapshotter import take_snapshot


class UpkeepRules(Machine):
    """Checkpoints, graphs, snapshots, compaction, the hold."""

    @is_free
    @has_collections
    @rule(pick=PICK)
    def checkpoint(self, pick: int) -> None:
        name = self.named(pick)
        if self.collection(name).store is not None:
            self.site.engine.checkpoint(name)

    @is_free
    @has_collections
    @rule(pick=PICK)
    def checkpoint_without_room(self, pick: int) -> None:
        """Fail a checkpoint, so that later writes come to a second layer, and to a second segment."""
        name = self.named(pick)
        store = self.collection(name).store
        if store is not None and (store.layers.frozen is not None or store.layers.active.last_sequence):
            with self.site.without_room(), contextlib.suppress(DiskFull):
                # The engine tries again by itself, and may just have done it.
                assert not self.site.engine.checkpoint(name)

    @is_free
    @has_collections
    @rule(pick=PICK)
    def compact(self, pick: int) -> None:
        name = self.named(pick)
        self.site.engine.compact(name)
        self.live[name].became(self.live[name].points, self.sequence(name))

    @has_collections
    @rule(pick=PICK, rebuilds=st.booleans())
    def move_to_graph(self, pick: int, rebuilds: bool) -> None:
        collection = self.collection(self.named(pick))
        if collection.index is not None:
            if rebuilds:
                collection.index.start_rebuild(CONFIG)
                self.site.engine._indexer.notify(collection)
            self.site.engine.indexed(collection.name)

    @is_free
    @has_collections
    @rule(pick=PICK)
    def snapshot(self, pick: int) -> None:
        name = self.named(pick)
        if self.collection(name).store is not None:
            collection = self.site.engine.indexed(name)
            with collection.upkeep_lock:
                take_snapshot(collection, lambda: self.site.engine._upkeep.checkpoint(collection))

    @is_free
    @has_collections
    @rule()
    def hold(self) -> None:
        self.site.engine.hold.begin(HOLD_SECONDS)
        self.held = True

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        self.site.engine.hold.end()
        self.held = False
