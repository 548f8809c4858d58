"""An engine that is to end while it starts discovers, replays and loads no further."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.unit.checked_volume import flip
from tests.unit.running_engine import RunningEngine, wait_until
from tests.unit.store_on_disk import MANIFEST
from vecstow_engine.model.errors import Busy
from vecstow_engine.service import loader, snapshotter
from vecstow_engine.service.lifecycle import State
from vecstow_engine.storage import discovery


@pytest.fixture
async def killed(tmp_path):
    """An engine for a volume with three collections, each of them with a log that no checkpoint has."""
    with RunningEngine(tmp_path / "data") as engine:
        for name in ("first", "second", "third"):
            engine.declare(name)
            await engine.put(name, a=1)
            await engine.put(name, b=2)
        return engine.copied()


def leave_at(engine, monkeypatch, module, name, call):
    """Tell the engine to end when a function is called for the `call`-th time; returns the calls."""
    calls = []
    original = getattr(module, name)

    def counted(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            engine.leaving = True
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


def counts(engine):
    return {collection.name: collection.count for collection in engine.registry.collections()}


def test_discovery_ends_at_the_folder_at_hand(killed, monkeypatch):
    looked_at = leave_at(killed, monkeypatch, discovery, "_look_at", 2)
    killed.start()
    killed.stop()
    assert (len(looked_at), killed.discovered) == (2, False)
    with RunningEngine(killed.settings.data) as after:
        assert counts(after) == {"first": 2, "second": 2, "third": 2}


def test_replay_ends_at_the_record_at_hand(killed, monkeypatch):
    leave_at(killed, monkeypatch, loader, "open_store", 1)
    killed.start()
    killed.stop()
    assert {collection.state for collection in killed.registry.collections()} == {State.RECOVERING}
    with RunningEngine(killed.settings.data) as after:
        assert counts(after) == {"first": 2, "second": 2, "third": 2}


def test_a_signal_ends_the_child_that_saves_a_graph(tmp_path, monkeypatch):
    """The engine's handlers only note a signal, and no thread of the child reads the note."""

    class Endless:
        def save(self, path):
            while True:
                signal.pause()

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        child = snapshotter._fork(Endless(), tmp_path / "index.bin")
    finally:
        signal.signal(signal.SIGTERM, before)
    caught = 1 << (signal.SIGTERM - 1)
    status = Path(f"/proc/{child}/status")
    wait_until(lambda: not int(status.read_text().split("SigCgt:")[1].split()[0], 16) & caught)
    os.kill(child, signal.SIGTERM)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM


def repair(engine):
    engine.checkpoint("first")
    flip(engine.layout.collection("first") / "vectors.bin", 4096)
    engine.repair("first")


def import_copy(engine):
    engine.import_orphan(
        orphaned_path=engine.backup_path + "/first", collection_name="copy", dimension=4,
        distance_metric=MANIFEST.distance_metric, vector_type=MANIFEST.vector_type,
    )  # fmt: skip


def compact(engine):
    asyncio.run(engine.put("second", c=1))
    asyncio.run(engine.delete_points("second", ["a"]))
    engine.compact("second")


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("backup", lambda engine: engine.backup("second")),
        ("restore", lambda engine: engine.catalog.restore(engine.backup_path, "copy")),
        ("import", import_copy),
        ("repair", repair),
        ("check", lambda engine: engine.check("first")),
        ("compact", compact),
    ],
)
def test_long_work_on_files_is_given_up_when_the_engine_stops(killed, name, operation):
    """However large the files are; the stop waits for the step at hand only."""
    with killed:
        killed.backup_path = killed.backup("first")
        killed.leaving = True
        with pytest.raises(Busy, match=r"is stopping; \w+ was given up") as refused:
            operation(killed)
        assert f"; {name} was" in str(refused.value)
        assert len(list(killed.layout.backups.iterdir())) == 1
        assert not list(killed.layout.staging.glob("*"))
    with RunningEngine(killed.settings.data) as after:
        assert counts(after) == {"first": 2, "second": 2, "third": 2}
