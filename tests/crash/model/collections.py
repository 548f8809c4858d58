"""Collections made, dropped, brought back, purged, and backed up."""

from __future__ import annotations

from functools import partial

import hypothesis.strategies as st
from hypothesis.stateful import precondition, rule

from tests.crash.model.draws import KIND, METRIC, NAME, PICK, has_collections, is_free
from tests.crash.model.machine import Machine
from tests.crash.model.world import CONFIG, DIMENSION, NAMES, Kept, Rested
from vecstow_engine.model.errors import Conflict
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType


class CollectionRules(Machine):
    """How collections come and go."""

    @precondition(lambda self: len(self.live) < len(NAMES))
    @rule(name=NAME, metric=METRIC, kind=KIND)
    def create(self, name: str, metric: DistanceMetric, kind: VectorType) -> None:
        manifest = Manifest(name, DIMENSION, metric, kind, CONFIG)
        if name in self.live:
            self.refused(Conflict, lambda: self.site.engine.catalog.create(manifest))
        else:
            self.site.engine.catalog.create(manifest)
            self.live[name] = Kept(metric, kind)

    @has_collections
    @rule(pick=PICK)
    def drop(self, pick: int) -> None:
        name = self.named(pick)
        if self.held:
            self.refused(Conflict, lambda: self.site.engine.drop(name))
            return
        before = {str(row["path"]) for row in self.site.engine.catalog.deleted()}
        self.site.engine.drop(name)
        [path] = {str(row["path"]) for row in self.site.engine.catalog.deleted()} - before
        self.dropped.append(Rested(path, name, self.live.pop(name)))

    @precondition(lambda self: self.dropped)
    @rule(pick=PICK, new_name=st.none() | NAME)
    def restore(self, pick: int, new_name: str | None) -> None:
        rested = self.dropped[pick % len(self.dropped)]
        name = new_name or rested.name
        restore = partial(self.site.engine.catalog.restore, rested.path, new_name)
        if self.held or name in self.live:
            self.refused(Conflict, restore)
            return
        assert restore() == name
        self.dropped.remove(rested)
        self.live[name] = rested.kept

    @is_free
    @has_collections
    @rule(pick=PICK)
    def hard_delete(self, pick: int) -> None:
        name = self.named(pick)
        self.site.engine.hard_delete(name)
        del self.live[name]

    @is_free
    @precondition(lambda self: self.dropped)
    @rule()
    def cleanup(self) -> None:
        purged = self.site.engine.catalog.cleanup(0)
        assert sorted(purged) == sorted(rested.name for rested in self.dropped)
        self.dropped = []

    @has_collections
    @rule(pick=PICK)
    def backup(self, pick: int) -> None:
        name = self.named(pick)
        try:
            path = self.site.engine.backup(name)
        except Conflict as error:  # a backup is named by the second
            if "wait a second" in (error.hint or ""):
                return
            raise
        kept = self.live[name]
        self.backups.append(Rested(path, name, Kept(kept.metric, kept.vector_type, kept.points)))

    @precondition(lambda self: self.backups)
    @rule(pick=PICK, name=NAME)
    def restore_backup(self, pick: int, name: str) -> None:
        rested = self.backups[pick % len(self.backups)]
        restore = partial(self.site.engine.catalog.restore, rested.path, name)
        if self.held or name in self.live:
            self.refused(Conflict, restore)
            return
        restore()
        self.live[name] = kept = Kept(rested.kept.metric, rested.kept.vector_type, rested.kept.points)
        kept.history = {self.sequence(name): kept.points}
