"""`apply`, `ls` and `show` on a volume without an engine: its manifests, and nothing else touched."""

import dataclasses
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from vecstow_engine.cli.main import main
from vecstow_engine.storage.files import locked
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import mark_dropped, read_manifest, update_manifest
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.points.writer import create_points

RESOURCE = """\
apiVersion: vecstow.dev/v1alpha1
kind: VectorCollection
metadata: {name: packages}
spec:
  dimension: 4
  distanceMetric: Cosine
"""
SAMPLE = Path(__file__).parents[3] / "examples" / "packages"
UID = "0123456789abcdef" * 2


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data directory that does not exist yet, in VECSTOW_DATA."""
    monkeypatch.delenv("VECSTOW_URL", raising=False)
    monkeypatch.setenv("VECSTOW_DATA", str(tmp_path / "deep" / "data"))
    return tmp_path / "deep" / "data"


@pytest.fixture
def apply(vecstow, tmp_path):
    """Applies one text."""

    def apply(text=RESOURCE, *options):
        (tmp_path / "c.yaml").write_text(text)
        return vecstow("apply", "-f", tmp_path / "c.yaml", *options)

    return apply


def with_points(data, count):
    """Give `packages` a point table that counts `count` points."""
    folder = data / "packages"
    create_points(folder / "points.db", Meta(UID, "packages", points=count))
    update_manifest(Layout(data), "packages", lambda found: dataclasses.replace(found, collection_uid=UID))


def test_apply_writes_a_manifest_that_says_a_file_declared_it(data, apply):
    assert apply()[:2] == (0, "vectorcollection/packages created\n")
    manifest = read_manifest(data / "packages")
    assert (manifest.dimension, manifest.managed_by.value) == (4, "file")
    assert manifest.created_at == manifest.updated_at
    assert list(json.loads((data / "packages" / "metadata.json").read_text()))[:5] == [
        "name",
        "dimension",
        "distance_metric",
        "vector_type",
        "index_config",
    ]


def test_applying_again_leaves_the_file_untouched(data, apply):
    apply()
    before = os.stat(data / "packages" / "metadata.json")
    assert apply()[:2] == (0, "vectorcollection/packages unchanged\n")
    after = os.stat(data / "packages" / "metadata.json")
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_changed_setting_is_configured_and_keeps_the_uid(data, apply):
    apply()
    with_points(data, 3)
    assert apply(RESOURCE + "  index: {efSearch: 99}\n")[:2] == (0, "vectorcollection/packages configured\n")
    manifest = read_manifest(data / "packages")
    assert (manifest.index_config.ef_search, manifest.collection_uid) == (99, UID)


def test_another_shape_is_refused_and_changes_nothing(data, apply):
    apply()
    before = (data / "packages" / "metadata.json").read_bytes()
    code, out, err = apply(RESOURCE.replace("dimension: 4", "dimension: 5"))
    assert (code, out) == (1, "")
    assert "spec.dimension is 5, but it has 4" in err
    assert (data / "packages" / "metadata.json").read_bytes() == before


def test_a_broken_manifest_is_refused_and_not_overwritten(data, apply):
    (data / "packages").mkdir(parents=True)
    (data / "packages" / "metadata.json").write_text("{")
    code, _, err = apply()
    assert code == 1
    assert "not valid JSON" in err
    assert (data / "packages" / "metadata.json").read_text() == "{"


def test_apply_waits_for_whoever_holds_the_manifests_lock(data, apply):
    apply()
    done = threading.Event()

    def later():
        with pytest.raises(SystemExit):
            main(["apply", "-f", str(data.parents[1] / "c.yaml"), "--data", str(data)])
        done.set()

    with locked(Layout(data).manifests_lock):
        waiting = threading.Thread(target=later)
        waiting.start()
        assert not done.wait(0.2)
    waiting.join(10)
    assert done.is_set()


def test_ls_and_show_read_the_count_of_the_last_checkpoint(data, apply, vecstow):
    apply()
    with_points(data, 12_345)
    code, out, _ = vecstow("ls")
    assert code == 0
    row = ["packages", "12,345", "4", "Cosine", "Float32", "file", "offline", "-"]
    assert out.splitlines()[1].split() == row
    assert json.loads(vecstow("show", "packages", "--json")[1])["vector_count"] == 12_345


def test_payload_indexes_of_a_stopped_volume_have_no_state(data, apply, vecstow):
    apply(RESOURCE + "  payloadIndexes: [{field: tenant, type: keyword}]\n")
    [line] = [line for line in vecstow("show", "packages")[1].splitlines() if line.startswith("payload")]
    assert line.partition(":")[2].strip() == "tenant (keyword)"


def test_looking_at_a_point_table_writes_nothing(data, apply, vecstow):
    """A crashed engine's -wal must be found by recovery as it was left."""
    apply()
    with_points(data, 1)
    folder = data / "packages"
    (folder / "points.db-wal").write_bytes(b"left by a crash")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert vecstow("ls")[0] == 0
    assert vecstow("show", "packages")[0] == 0
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("damage", ["missing", "garbage", "changed"])
def test_a_damaged_point_table_has_an_unknown_count_and_a_reason(data, apply, vecstow, damage):
    apply()
    with_points(data, 1)
    path = data / "packages" / "points.db"
    if damage == "missing":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"\x00" * 8192)
    else:
        raw = path.read_bytes()
        path.write_bytes(raw.replace(bytes.fromhex(UID), bytes.fromhex(UID[::-1])))
    [entry] = json.loads(vecstow("ls", "--json")[1])
    assert entry["vector_count"] is None
    assert "points.db" in entry["reason"]


@pytest.mark.parametrize("path", [".backups/nope", "elsewhere"])
def test_restore_on_a_volume_names_the_places_of_what_it_takes(data, apply, vecstow, path):
    apply()
    code, _, err = vecstow("restore", path, "--data", data)
    assert code == 1
    assert err.splitlines()[1] == (
        f"hint: vecstow ls --deleted --data {data} lists what was dropped; "
        f"backups lie in {data}/.backups; a relative path is taken from {data}"
    )


FOREIGN = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {}}


def test_another_kind_is_named_before_its_fields(data, apply):
    code, _, err = apply(json.dumps(FOREIGN))
    assert code == 1
    assert "apiVersion 'v1' with kind 'ConfigMap' is not known; it must be apiVersion vecstow.dev" in err


def test_the_sample_folder_is_applied_whole(data, vecstow):
    """It also has lists in JSON, which are no resources."""
    code, out, err = vecstow("apply", "-f", SAMPLE)
    assert (code, out) == (0, "vectorcollection/packages created\n")
    lists = [SAMPLE / "questions.json", SAMPLE / "typed.json"]
    assert err == "".join(f"{each} is skipped: it is no resource but a list\n" for each in lists)


def test_a_list_that_is_named_is_refused(data, vecstow):
    code, out, err = vecstow("apply", "-f", SAMPLE / "questions.json")
    assert (code, out) == (1, "")
    assert "the document is list; it must be a mapping" in err


def test_broken_dropped_and_foreign_folders_are_told_apart(data, apply, vecstow):
    apply()
    apply(RESOURCE.replace("packages", "gone"))
    mark_dropped(Layout(data), "gone")
    for name in ("lost+found", "bare", "broken", ".deleted", "wal"):
        (data / name).mkdir()
    (data / "broken" / "metadata.json").write_text("[]")
    states = {entry["name"]: entry["state"] for entry in json.loads(vecstow("ls", "--json")[1])}
    assert states == {"broken": "broken", "gone": "dropped", "packages": "offline"}
    assert "broken" in vecstow("ls")[1]


def test_show_of_what_is_not_there_says_what_to_type(data, apply, vecstow):
    apply()
    code, _, err = vecstow("show", "nothing")
    assert code == 1
    assert err == f"vecstow: {data} has no collection 'nothing'\nhint: vecstow ls --data {data} lists them\n"


def test_a_data_directory_that_is_none_is_named(data, vecstow):
    code, _, err = vecstow("ls")
    assert code == 1
    assert f"{data} is no folder" in err


PLACED = {
    "check": ("check",),
    "repair": ("check", "--repair", "--dry-run"),
    "list": ("ls",),
    "what was dropped": ("ls", "--deleted"),
    "show": ("show", "packages"),
    "restore": ("restore", ".deleted/x"),
    "apply": ("apply", "-f", str(SAMPLE / "collection.yaml")),
}


@pytest.mark.parametrize("command", PLACED.values(), ids=PLACED)
def test_folder_of_a_collection_is_no_data_directory(data, apply, vecstow, command):
    apply()
    code, out, err = vecstow(*command, "--data", data / "packages")
    assert (code, out) == (1, "")
    assert f"{data}/packages holds the files of a collection: it is no data directory" in err
    assert [path.name for path in (data / "packages").iterdir()] == ["metadata.json"]


@pytest.mark.parametrize("mark", ["VOLUME", "LOCK"])
@pytest.mark.parametrize("command", PLACED.values(), ids=PLACED)
def test_folder_that_contains_a_volume_is_no_data_directory(data, apply, vecstow, command, mark):
    apply()
    (data / mark).touch()
    code, out, err = vecstow(*command, "--data", data.parent)
    assert (code, out) == (1, "")
    assert f"{data.parent} is no data directory, but contains one: {data}\nhint: --data {data}\n" in err
    assert list(data.parent.iterdir()) == [data]


@pytest.mark.parametrize("command", PLACED.values(), ids=PLACED)
def test_file_is_no_data_directory(tmp_path, vecstow, command):
    (tmp_path / "file").touch()
    assert vecstow(*command, "--data", tmp_path / "file")[2].startswith(
        f"vecstow: {tmp_path}/file is no folder\nhint: --data names"
    )


def test_maintenance_stays_on_a_new_volume_and_says_that_it_has_no_data(data, vecstow, monkeypatch):
    """A pod in maintenance takes the copy of another volume; a pod that ends is started again and again."""
    waited = []
    monkeypatch.setattr(signal, "sigwait", waited.append)
    monkeypatch.setattr(signal, "pthread_sigmask", lambda *_: None)
    code, out, _ = vecstow("maintenance", "--data", data)
    assert (code, len(waited)) == (0, 1)
    assert f"{data} does not exist yet" in out


def test_maintenance_of_a_file_is_refused(tmp_path, vecstow):
    (tmp_path / "file").touch()
    code, out, err = vecstow("maintenance", "--data", tmp_path / "file")
    assert (code, out) == (1, "")
    assert f"{tmp_path}/file is no folder" in err


def test_an_address_in_the_environment_wins_over_a_volume_there(data, vecstow, monkeypatch):
    """A running engine knows more than its volume shows; an option wins over both."""
    monkeypatch.setenv("VECSTOW_URL", "http://127.0.0.1:1")
    assert "no answer from http://127.0.0.1:1" in vecstow("ls")[2]
    data.mkdir(parents=True)
    assert vecstow("ls", "--data", data)[:2] == (0, "no collections\n")


def test_an_empty_address_in_the_environment_counts_as_unset(data, vecstow, monkeypatch):
    monkeypatch.setenv("VECSTOW_URL", "")
    data.mkdir(parents=True)
    assert vecstow("ls")[:2] == (0, "no collections\n")
