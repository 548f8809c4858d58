"""Any sequence of writes, checkpoints, compactions and restarts equals a dictionary."""

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.property.conftest import memory
from tests.unit.store_on_disk import StoreOnDisk, upsert
from vecstow_engine.model.labels import slots_of
from vecstow_engine.storage.records import Delete

IDS = st.sampled_from([f"p{number}" for number in range(8)])
VALUES = st.integers(0, 1000)
POINTS = st.dictionaries(IDS, VALUES, min_size=1, max_size=6)
EFFECTS = st.lists(st.one_of(POINTS, st.sets(IDS, min_size=1, max_size=4)), min_size=1, max_size=4)


class StoreMachine(RuleBasedStateMachine):
    """`model` has the points that the store must have."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(dir=memory()))
        self.notes = StoreOnDisk(self.folder / "data")
        self.model = {}
        self.copies = 0

    @rule(effects=EFFECTS)
    def write(self, effects):
        """One group of upserts and deletes, in one append."""
        made = [upsert(**e) if isinstance(e, dict) else Delete(sorted(e)) for e in effects]
        answers = self.notes.store.commit(made)
        for effect, answer in zip(effects, answers, strict=True):
            ids = list(effect) if isinstance(effect, dict) else sorted(effect)
            assert answer.existed == [point_id in self.model for point_id in ids]
            if isinstance(effect, dict):
                self.model |= effect
            else:
                self.model = {point_id: v for point_id, v in self.model.items() if point_id not in effect}

    @precondition(lambda self: self.model)
    @rule()
    def checkpoint(self):
        self.notes.store.checkpoint()

    @precondition(lambda self: self.model)
    @rule(count=st.integers(1, 5))
    def compact(self, count):
        while self.notes.store.relocate(count) is not None:
            self.notes.store.checkpoint()
        self.notes.store.truncate()

    @rule()
    def restart(self):
        self.notes = self.notes.reopened()

    @rule()
    def kill_and_restart(self):
        self.copies += 1
        killed, self.notes = self.notes, self.notes.copied(str(self.copies))
        killed.close()

    @invariant()
    def equals_the_model(self):
        assert self.notes.points() == self.model
        if self.model:
            store = self.notes.store
            labels = store.view.labels()
            assert store.count == len(self.model) == len(labels)
            resolved = [point for point in store.view.resolve(labels) if point is not None]
            assert {point_id for point_id, _ in resolved} == self.model.keys()
            assert sorted(store.view.vectors(labels)[:, 0]) == sorted(self.model.values())
            assert len(set(slots_of(labels).tolist())) == len(labels)

    def teardown(self):
        if hasattr(self, "notes"):
            self.notes.close()
            shutil.rmtree(self.folder)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=40, stateful_step_count=20, deadline=None, derandomize=True)
