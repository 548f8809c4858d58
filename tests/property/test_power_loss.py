"""The power goes off before each step of a collection's life: nothing that was acknowledged is lost."""

import random
import shutil

import pytest

from tests.property.lossy_disk import LossyDisk
from tests.unit.recorded_disk import PowerOff
from tests.unit.store_on_disk import MANIFEST, StoreOnDisk
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import update_manifest


class Life:
    """A collection's life, and what its clients were told."""

    def __init__(self, data):
        self.data = data
        self.acknowledged = {}
        self.in_flight = {}
        self.notes = None

    def run(self):
        """Each kind of change, checkpointed and not, over two processes."""
        files.make_folders(self.data)
        self.notes = StoreOnDisk(self.data)
        self._put(a=1, b=2)
        self._put(c=3)
        self.notes.checkpoint()
        self._put(a=4, d=5)
        self._delete("b")
        self.notes.checkpoint()
        self._put(e=6)
        self._delete("c", "d")
        self.notes = self.notes.reopened()
        self._put(f=7, a=8)
        self.notes.checkpoint()
        self._put(b=9)

    def _put(self, **values):
        self.in_flight = dict(values)
        self.notes.put(**values)
        self.acknowledged |= values
        self.in_flight = {}

    def _delete(self, *ids):
        self.in_flight = dict.fromkeys(ids)
        self.notes.delete(*ids)
        self.acknowledged |= dict.fromkeys(ids)
        self.in_flight = {}

    def outcomes(self):
        """The two sets of points that a restart may show: with the batch in flight, and without."""
        return [
            {point_id: value for point_id, value in points.items() if value is not None}
            for points in (self.acknowledged, self.acknowledged | self.in_flight)
        ]

    def end(self):
        if self.notes is not None:
            self.notes.close()


def lives(tmp_path, monkeypatch):
    """One life for each step at which it may end."""
    stop = 0
    while True:
        data = tmp_path / "data"
        shutil.rmtree(data, ignore_errors=True)
        with monkeypatch.context() as patch:
            disk = LossyDisk(patch, data)
            disk.stop_before = stop
            life = Life(data)
            try:
                life.run()
            except PowerOff:
                ended = False
            else:
                ended = True
            disk.stop_before = None
            yield life, disk
            life.end()
        if ended:
            return
        stop += 1


CHANCES = {"nothing that was not synced": None, "some of it, by chance": 1, "other parts of it": 2}


@pytest.mark.parametrize("seed", CHANCES.values(), ids=CHANCES)
def test_what_was_acknowledged_survives_a_loss_of_power_at_any_step(tmp_path, monkeypatch, seed):
    steps = 0
    for life, disk in lives(tmp_path, monkeypatch):
        left = tmp_path / f"left-{steps}"
        disk.after_power_loss(left, None if seed is None else random.Random(seed * 1000 + steps))
        found = StoreOnDisk(left)
        try:
            assert found.points() in life.outcomes(), disk.steps[-3:]
            found.put(after=1)
            assert found.points()["after"] == 1
        finally:
            found.close()
        shutil.rmtree(left)
        steps += 1
    assert steps > 80


def test_the_disk_above_loses_what_was_not_synced(tmp_path, monkeypatch):
    """A sync left out anywhere would be seen: here, that of the log."""
    data = tmp_path / "data"
    disk = LossyDisk(monkeypatch, data)
    life = Life(data)
    monkeypatch.setattr(files, "data_sync", lambda fd: None)
    life.run()
    disk.after_power_loss(tmp_path / "left", None)
    life.end()
    update_manifest(Layout(tmp_path / "left"), "notes", lambda found: None if found else MANIFEST)
    found = StoreOnDisk(tmp_path / "left")
    assert found.points() not in life.outcomes()
    found.close()
