"""Discovery: which folders are collections, and what the log says of the others."""

import json

import pytest
from structlog.testing import capture_logs

from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.errors import Foreign, Quarantined
from vecstow_engine.storage.discovery import discover
from vecstow_engine.storage.layout import Layout

FIVE_KEYS = {
    "name": "notes",
    "dimension": 4,
    "distance_metric": "Euclidean",
    "vector_type": "Float32",
    "index_config": {"max_connections": 16, "ef_construction": 200, "ef_search": 50, "max_layer": 16},
}


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def declare(data, name="notes", **changes):
    folder = data / name
    folder.mkdir()
    (folder / "metadata.json").write_text(json.dumps(FIVE_KEYS | {"name": name} | changes))
    return folder


def lines(logs, level=None):
    return [
        (line["event"], line.get("collection") or line.get("folder"))
        for line in logs
        if level in (None, line["log_level"])
    ]


def test_files_dot_folders_logs_and_folders_of_illegal_names_are_skipped(data):
    declare(data)
    for name in ("lost+found", ".hidden", "wal", "deleted", "-x", "a b", "x" * 65, "päckchen", "restore"):
        (data / name).mkdir()
    (data / "readme").write_text("x")
    (data / "metadata.json").write_text("{}")
    assert [found.name for found in discover(Layout(data))] == ["notes"]


def test_folder_without_a_manifest_is_bare_and_a_broken_one_has_a_problem(data):
    (data / "bare").mkdir()
    declare(data, "broken", dimension=0)
    declare(data, "newer", schema_version=99)
    declare(data, "twin").joinpath("metadata.json").write_text(json.dumps(FIVE_KEYS))
    found = {item.name: item for item in discover(Layout(data))}
    assert found["bare"].bare
    assert "dimension is 0" in found["broken"].problem
    assert "schema_version 99" in found["newer"].problem
    assert "it names another collection than its folder, 'twin'" in found["twin"].problem
    assert not any(item.manifest for item in found.values())


def test_five_key_manifest_with_no_data_files_is_an_empty_collection(data):
    declare(data)
    with RunningEngine(data) as engine:
        assert engine.describe("notes")["state"] == "ready"
        assert engine.describe("notes")["vector_count"] == 0
        assert engine.describe("notes")["dimension"] == 4


@pytest.mark.parametrize("name", ["vectors.bin", "index.bin"])
def test_five_key_manifest_beside_empty_files_is_an_empty_collection(data, name):
    (declare(data) / name).touch()
    with RunningEngine(data) as engine:
        assert engine.describe("notes")["state"] == "ready"


async def test_folder_with_empty_files_and_no_manifest_holds_no_data_and_keeps_no_name(data):
    (data / "notes").mkdir()
    for name in ("vectors.bin", "points.db"):
        (data / "notes" / name).touch()
    with RunningEngine(data) as engine:
        assert engine.state_document()["collections"] == []
        engine.declare("notes")
        await engine.put(a=1)
        assert await engine.values("notes", "a") == [1]


def test_serving_an_empty_collection_changes_nothing_in_its_folder(data):
    folder = declare(data)
    before = (folder / "metadata.json").read_bytes()
    with RunningEngine(data):
        pass
    assert [path.name for path in folder.iterdir()] == ["metadata.json"]
    assert (folder / "metadata.json").read_bytes() == before


async def test_log_says_what_was_found_one_by_one_and_the_counts_at_the_end(data):
    declare(data, "docs", dimension=8, distance_metric="Cosine")
    declare(data, "notes")
    (data / "bare").mkdir()
    declare(data, "broken", distance_metric="cosine")
    with capture_logs() as logs, RunningEngine(data) as engine:
        assert engine.collection_names() == ["docs", "notes"]
    assert logs[0]["event"] == "scanning for collections"
    assert lines(logs, "warning") == [("folder without metadata.json is skipped", "bare")]
    assert lines(logs, "error") == [("collection failed to load", "broken")]
    loaded = [line for line in logs if line["event"] == "collection loaded"]
    assert {(line["collection"], line["dimension"], line["metric"]) for line in loaded} == {
        ("docs", 8, "Cosine"), ("notes", 4, "Euclidean"),
    }  # fmt: skip
    [counts] = [line for line in logs if line["event"] == "collections loaded"]
    assert (counts["ready"], counts["failed"], counts["total"]) == (2, 1, 3)


def test_counts_are_logged_for_an_empty_volume(data):
    with capture_logs() as logs, RunningEngine(data):
        pass
    [counts] = [line for line in logs if line["event"] == "collections loaded"]
    assert (counts["failed"], counts["total"]) == (0, 0)


async def test_broken_manifest_takes_its_name_and_hides_no_neighbour(data):
    declare(data, "broken").joinpath("metadata.json").write_text("{")
    declare(data)
    with RunningEngine(data) as engine:
        with pytest.raises(Quarantined, match="not valid JSON"):
            engine.collection("broken")
        assert await engine.put(a=1) == ["a"]
        assert engine.not_ready() == {}
        [row] = [row for row in engine.state_document()["collections"] if row["name"] == "broken"]
        assert (row["state"], "JSON" in row["reason"]) == ("quarantined", True)


async def test_broken_manifest_that_is_put_right_is_served_without_a_restart(data):
    folder = declare(data, "notes", dimension=0)
    with RunningEngine(data) as engine:
        (folder / "metadata.json").write_text(json.dumps(FIVE_KEYS))
        engine.refresh({})
        assert await engine.put(a=1) == ["a"]


def test_manifest_written_beside_a_running_engine_is_followed(data):
    with RunningEngine(data) as engine:
        assert engine.collection_names() == []
        declare(data)
        engine.refresh({})
        assert engine.describe("notes")["state"] == "ready"


def test_newer_manifest_is_refused_and_untouched(data):
    folder = declare(data, schema_version=3)
    before = (folder / "metadata.json").read_bytes()
    (folder / "vectors.bin").write_bytes(b"of a later release")
    with RunningEngine(data) as engine, pytest.raises(Quarantined, match="schema_version 3"):
        engine.collection("notes")
    assert (folder / "metadata.json").read_bytes() == before
    assert (folder / "vectors.bin").read_bytes() == b"of a later release"


async def test_data_file_without_our_magic_is_foreign_and_never_written(data):
    folder = declare(data)
    (folder / "vectors.bin").write_bytes(b"d-vecDB wrote this" * 100)
    with capture_logs() as logs, RunningEngine(data) as engine:
        assert engine.describe("notes")["state"] == "foreign"
        with pytest.raises(Foreign, match="not written by Vecstow"):
            await engine.put(a=1)
        assert engine.not_ready() == {}
    [line] = [line for line in logs if line["event"] == "collection is foreign"]
    assert line["next"].startswith("vecstow import notes --orphan ")
    assert (folder / "vectors.bin").read_bytes() == b"d-vecDB wrote this" * 100


def test_d_vecdbs_log_which_is_a_file_is_no_obstacle(data):
    declare(data)
    (data / "wal").write_bytes(b"d-vecDB's log")
    with RunningEngine(data) as engine:
        assert engine.describe("notes")["state"] == "ready"
    assert (data / "wal").read_bytes() == b"d-vecDB's log"


async def test_lost_and_found_disturbs_nothing(data):
    (data / "lost+found").mkdir(mode=0o700)
    (data / "lost+found" / "#12").write_bytes(b"x")
    declare(data)
    with capture_logs() as logs, RunningEngine(data) as engine:
        assert await engine.put(a=1) == ["a"]
    assert "lost+found" not in str(logs)
    assert (data / "lost+found" / "#12").read_bytes() == b"x"
