"""The power goes off before each step of a repair: the damaged collection is there, or the repaired one."""

import os
import shutil
from pathlib import Path

import pytest

from tests.property.lossy_disk import LossyDisk
from tests.unit.checked_volume import flip, zero
from tests.unit.damaged_store import DamagedStore, digests, without
from tests.unit.recorded_disk import PowerOff
from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.doctor.repair import repair_volume


class FolderDisk(LossyDisk):
    """Whole folders are renamed too: what was durable in them is so under both names."""

    def everything_is_durable(self):
        """Mark all that lies there from the beginning as durable."""
        for path in [self.root, *self.root.rglob("*")]:
            self.became_durable(path)

    def rename(self, source, target):
        folders = [p for p in self._names if p.is_relative_to(source)]
        super().rename(source, target)
        for folder in folders:
            self._names[Path(target) / folder.relative_to(source)] = self._names[folder]

    def mkdir(self, path, mode=0o777):
        os.mkdir(path, mode)
        self._names[Path(path)] = {}


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    store = DamagedStore(tmp_path_factory.mktemp("power") / "data")
    flip(store.rows, store.row_offset("p7"))
    zero(store.table, store.root("meta"))
    return store


def repaired_until(damaged, data, number):
    """Return the record of a disk that lost power before a step of a repair (None: after the last)."""
    shutil.copytree(damaged.data, data)
    with pytest.MonkeyPatch.context() as patch:
        disk = FolderDisk(patch, data)
        disk.everything_is_durable()
        disk.stop_before = number
        try:
            repair_volume(data, ["notes"])
        except PowerOff:
            assert number is not None
    return disk


@pytest.mark.slow
def test_power_loss_before_each_step_leaves_what_a_repair_finishes(damaged, tmp_path):
    """Only what was synced is left; what a kill leaves, where all of it is, is in the unit tests."""
    original = set(digests(damaged.data).values())
    steps = repaired_until(damaged, tmp_path / "whole", None).steps
    first = 1 + max(n for n, step in enumerate(steps) if "LOCK" in step)
    for number in [*range(first, len(steps)), None]:
        data = tmp_path / "data"
        disk = repaired_until(damaged, data, number)
        left = tmp_path / "left"
        disk.after_power_loss(left, None)
        what = "the end" if number is None else steps[number]
        assert original <= set(digests(left).values()), what
        repair_volume(left)
        notes = StoreOnDisk(left)
        assert notes.points() == without(damaged.points, "p7"), what
        notes.close()
        assert original <= set(digests(left).values()), what
        shutil.rmtree(data)
        shutil.rmtree(left)
