"""Damage and lost files of one collection, while the engine serves it and others."""

import shutil

import pytest
from structlog.testing import capture_logs

from tests.unit.running_engine import RunningEngine, fill
from vecstow_engine.model.errors import (
    Quarantined,
    ReadOnly,
    StorageError,
)
from vecstow_engine.storage import recovery_plan
from vecstow_engine.storage.identity import HEADER_BYTES
from vecstow_engine.storage.manifests import read_manifest


async def test_damage_that_comes_while_it_is_served_is_told_and_a_check_reports_it(tmp_path):
    with RunningEngine(tmp_path / "data", handles_max=1) as engine:
        engine.declare()
        await engine.put(**fill("p", 300))
        engine.checkpoint()
        engine.declare("other")
        await engine.put("other", a=1)  # closes the table, and with it SQLite's cache
        path = engine.layout.collection("notes") / "points.db"
        raw = bytearray(path.read_bytes())
        raw[4096:] = bytes(len(raw) - 4096)
        path.write_bytes(raw)
        with pytest.raises(StorageError):
            await engine.values("notes", "p1")
        facts = engine.describe("notes")
        assert facts["state"] == "degraded"
        assert "points.db" in facts["reason"]
        assert not engine.check("notes")["clean"]
        assert await engine.values("other", "a") == [1]


@pytest.mark.parametrize("file", ["vectors.bin", "points.db"])
async def test_what_a_check_finds_damaged_is_withheld_at_once(engine, file):
    await engine.put(**fill("p", 3))
    engine.checkpoint()
    path = engine.layout.collection("notes") / file
    raw = bytearray(path.read_bytes())
    raw[HEADER_BYTES + 1 if file == "vectors.bin" else raw.index(b'{"v"')] ^= 1
    path.write_bytes(raw)
    assert not engine.check("notes")["clean"]
    assert engine.describe("notes")["state"] == "degraded"
    assert len(engine.describe("notes")["withheld"]) == 1


async def test_log_that_is_removed_under_a_running_engine_ends_its_writes(tmp_path):
    with RunningEngine(tmp_path / "data", handles_max=1) as engine:
        engine.declare()
        await engine.put(a=1)
        engine.declare("other")
        await engine.put("other", a=1)
        shutil.rmtree(engine.layout.log(engine.collection("notes").manifest.collection_uid))
        with pytest.raises(ReadOnly, match=r"log segment .* is gone"):
            await engine.put(b=2)
        assert engine.describe("notes")["state"] == "read_only"
        assert await engine.values("notes", "a") == [1]


async def test_folder_with_data_that_lost_its_manifest_is_told_of(engine):
    await engine.put(a=1)
    (engine.layout.collection("notes") / "metadata.json").unlink()
    with engine.copied() as restarted:
        [row] = restarted.state_document()["collections"]
        assert (row["name"], row["state"]) == ("notes", "quarantined")
        assert row["reason"] == "metadata.json is missing next to data files"
        with pytest.raises(Quarantined, match=r"metadata\.json is missing"):
            restarted.collection("notes")


async def test_collections_of_a_lost_collection_leave_the_others_alone(engine):
    """Damage stays inside the one collection it hit."""
    engine.declare("other")
    await engine.put(a=1)
    await engine.put("other", a=2)
    engine.stop()
    (engine.layout.collection("notes") / "vectors.bin").unlink()
    with RunningEngine(engine.settings.data) as again:
        with pytest.raises(Quarantined, match=r"vectors\.bin: it is missing"):
            await again.values("notes", "a")
        assert await again.values("other", "a") == [2]
        assert again.not_ready() == {}


async def test_unexpected_error_while_opening_one_collection_quarantines_that_one(engine, monkeypatch):
    """Not even a mistake of ours leaves a collection in recovery for ever."""
    engine.declare("other")
    await engine.put(a=1)
    await engine.put("other", a=2)
    engine.stop()
    real = recovery_plan.read_log

    def broken(folder):
        if folder.name == engine_uid:
            raise ValueError("a mistake")
        return real(folder)

    engine_uid = read_manifest(engine.layout.collection("notes")).collection_uid
    monkeypatch.setattr(recovery_plan, "read_log", broken)
    with capture_logs() as logs, RunningEngine(engine.settings.data) as again:
        assert again.describe("notes")["state"] == "quarantined"
        assert await again.values("other", "a") == [2]
    assert any(line["log_level"] == "error" and "notes" in str(line) for line in logs)


async def test_withheld_points_are_told_in_the_log_once(engine):
    await engine.put(a=1, b=2)
    collection = engine.collection("notes")
    collection.store.layers.withhold(0, 1, "a bad row")
    with capture_logs() as lines:
        collection.log_withheld()
        collection.log_withheld()
    assert [(line["event"], line["withheld"]) for line in lines] == [("collection is degraded", 1)]
