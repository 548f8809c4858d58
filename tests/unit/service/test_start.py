"""A start waits for the engine that has the volume, as long as its settings say."""

import threading

import pytest
import structlog

from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.model.errors import VolumeHeld
from vecstow_engine.service import loader


@pytest.fixture(autouse=True)
def pause(monkeypatch):
    monkeypatch.setattr(loader, "LOCK_PAUSE_SECONDS", 0.002)


@pytest.fixture
def before(tmp_path):
    """An engine on the volume, with a collection."""
    with RunningEngine(tmp_path / "data") as running:
        running.declare()
        yield running


def starting(engine):
    """Start it in another thread, which is given back; `failed` gets what it raised."""
    failed = []

    def start():
        try:
            engine.start()
        except VolumeHeld as held:
            failed.append(held)

    thread = threading.Thread(target=start, daemon=True)
    with structlog.testing.capture_logs() as logs:
        thread.start()
        wait_until(lambda: logs or not thread.is_alive())
    assert [line["event"] for line in logs] == ["waiting for the volume"]
    assert "is held: another engine" in logs[0]["reason"]
    return thread, failed


async def test_start_waits_until_the_engine_before_it_has_left(before):
    await before.put(a=1)
    after = RunningEngine(before.layout.data, lock_wait_seconds=20)
    thread, failed = starting(after)
    assert not after.discovered
    before.stop()
    thread.join(20)
    try:
        wait_until(after.registry.all_opened)
        assert await after.values("notes", "a") == [1]
        assert failed == []
    finally:
        after.stop()


def test_start_that_waits_for_too_long_is_refused(before):
    thread, failed = starting(RunningEngine(before.layout.data, lock_wait_seconds=0.05))
    thread.join(20)
    assert len(failed) == 1
    assert before.discovered


def test_start_that_waits_is_given_up_at_a_signal(before):
    after = RunningEngine(before.layout.data, lock_wait_seconds=1e9)
    thread, failed = starting(after)
    after.leaving = True
    thread.join(20)
    assert (failed, after.discovered, after.volume) == ([], False, None)
    after.stop()


def test_start_is_refused_at_once_unless_told_to_wait(before):
    with structlog.testing.capture_logs() as logs, pytest.raises(VolumeHeld):
        RunningEngine(before.layout.data).start()
    assert logs == []
