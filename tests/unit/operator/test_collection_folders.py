"""The sidecar's eyes and hands on a real volume: folders as decisions see them, changes under the lock."""

import dataclasses
import fcntl
import os

import pytest

from tests.unit.declared import OTHER_UID, UID, VOLUME, claim, manifest_of
from tests.unit.recorded_disk import RecordedDisk
from vecstow_engine.model.errors import StorageError
from vecstow_engine.model.manifest import parse_manifest
from vecstow_engine.storage.files import locked
from vecstow_engine.storage.identity import encode_header, identity_of
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import write_manifest
from vecstow_operator.observed import Report
from vecstow_operator.sidecar import collection_folders as volume_module
from vecstow_operator.sidecar.collection_folders import CollectionFolders
from vecstow_operator.sidecar.decision import Decision, Folder
from vecstow_operator.vocabulary import Reason

EMPTY = manifest_of(claim())
FILLED = manifest_of(claim(), UID)
MISSED = Report("notes", "r-1", Reason.DATA_MISSING, "gone")
RIVAL = Report("notes", "r-2", Reason.CONFLICT, "it belongs to another")


@pytest.fixture
def volume(tmp_path):
    return CollectionFolders(Layout(tmp_path))


@pytest.fixture
def reads(monkeypatch):
    """The names of the manifests that were read."""
    names = []
    real = volume_module.read_manifest

    def read_manifest(folder):
        names.append(folder.name)
        return real(folder)

    monkeypatch.setattr(volume_module, "read_manifest", read_manifest)
    return names


def place(volume, manifest=EMPTY, **files):
    """Write a collection's folder, with files of this content next to the manifest."""
    folder = volume.layout.collection(manifest.name)
    write_manifest(folder, manifest)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder


def damage(volume, raw=b"{"):
    (volume.layout.collection("notes") / "metadata.json").write_bytes(raw)


def there(volume):
    return parse_manifest((volume.layout.collection("notes") / "metadata.json").read_bytes())


def always(decision):
    return lambda folder: decision


# Looking ---------------------------------------------------------------------------------------------------


def test_volume_without_an_engine_yet_has_nothing(tmp_path):
    volume = CollectionFolders(Layout(tmp_path / "data"))
    assert not volume.is_there
    assert volume.volume_id() is None
    assert volume.evidence() == {}


def test_id_of_the_volume_is_what_the_engine_wrote(volume):
    volume.layout.volume_id.write_text(f"{VOLUME}\n")
    assert (volume.is_there, volume.volume_id()) == (True, VOLUME)


def test_only_folders_of_legal_names_are_collections(volume):
    place(volume)
    for name in ("lost+found", ".deleted", ".quarantine", ".staging", "wal", "restore", "a" * 65):
        (volume.layout.data / name).mkdir()
    for name in ("VOLUME", "LOCK", "RESERVE", "afile"):
        (volume.layout.data / name).write_bytes(b"x")
    (volume.layout.data / "alink").symlink_to(volume.layout.collection("notes"))
    assert volume.look() == {"notes": Folder(EMPTY)}


@pytest.mark.parametrize(
    ("files", "has_data"),
    [
        pytest.param({"vectors_bin": b"x"}, True, id="rows"),
        pytest.param({"points_db": b"x"}, True, id="the table"),
        pytest.param({"vectors_bin": b"", "points_db": b""}, False, id="empty files"),
        pytest.param({"index_bin": b"x"}, False, id="a graph alone"),
    ],
)
def test_data_is_what_holds_anything(volume, files, has_data):
    place(volume, **files)
    assert volume.look()["notes"].has_data is has_data


def test_folder_without_a_manifest_is_looked_at_too(volume):
    (volume.layout.data / "notes").mkdir()
    (volume.layout.data / "notes" / "points.db").write_bytes(b"x")
    assert volume.look() == {"notes": Folder(has_data=True)}


@pytest.mark.parametrize(
    ("raw", "is_newer", "problem"),
    [
        pytest.param(b"{", False, "not valid JSON", id="no JSON"),
        pytest.param(b'{"name": "notes"}', False, "'dimension' is missing", id="keys missing"),
        pytest.param(b'{"schema_version": 3}', True, "reads up to 2", id="a newer release's"),
    ],
)
def test_manifest_that_cannot_be_read_is_a_problem_and_no_error(volume, raw, is_newer, problem):
    place(volume, vectors_bin=b"x")
    damage(volume, raw)
    found = volume.look()["notes"]
    assert (found.manifest, found.is_newer, found.has_data) == (None, is_newer, True)
    assert problem in found.problem


@pytest.mark.parametrize("raw", [b"{", None], ids=["damaged", "gone"])
def test_data_tells_its_shape_where_no_manifest_does(volume, raw):
    rows = encode_header(identity_of(FILLED, UID))
    path = place(volume, FILLED, vectors_bin=rows) / "metadata.json"
    assert volume.look()["notes"].shape is None
    path.write_bytes(raw) if raw else path.unlink()
    for _ in range(2):
        assert volume.look()["notes"].shape == FILLED.shape


def test_data_that_is_not_ours_tells_no_shape(volume):
    place(volume, vectors_bin=b"x" * 5000)
    damage(volume)
    assert volume.look()["notes"].shape is None


def test_manifest_of_another_name_is_a_problem(volume):
    place(volume).rename(volume.layout.data / "copy")
    assert "it names another collection than its folder, 'copy'" in volume.look()["copy"].problem


def test_manifest_is_read_again_only_when_it_changed(volume, reads):
    place(volume)
    other = dataclasses.replace(EMPTY, name="other")
    place(volume, other)
    volume.look()
    reads.clear()
    assert volume.look().keys() == {"notes", "other"}
    assert reads == []
    place(volume, dataclasses.replace(other, owner="me"))
    assert volume.look()["other"].manifest.owner == "me"
    assert reads == ["other"]


def test_edit_in_place_of_the_same_length_is_seen(volume, reads):
    path = place(volume, dataclasses.replace(EMPTY, owner="a")) / "metadata.json"
    volume.look()
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"b"'))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert volume.look()["notes"].manifest.owner == "b"


def test_data_is_looked_at_each_time(volume, reads):
    folder = place(volume, vectors_bin=b"x")
    volume.look()
    (folder / "vectors.bin").unlink()
    reads.clear()
    assert not volume.look()["notes"].has_data
    assert reads == []


def test_folder_that_went_is_forgotten(volume, reads):
    place(volume).rename(volume.layout.data / ".gone")
    assert volume.look() == {}


def test_first_write_between_two_looks_is_not_missing_data(volume, monkeypatch):
    """The engine makes the data before the manifest's uid: a reader that sees the uid must see the data."""
    place(volume)
    real = volume_module.read_manifest

    def read_manifest(folder):
        place(volume, FILLED, vectors_bin=b"x")
        return real(folder)

    monkeypatch.setattr(volume_module, "read_manifest", read_manifest)
    assert volume.look()["notes"] == Folder(FILLED, has_data=True)


def test_folder_that_refuses_a_look_is_not_taken_for_empty(volume, monkeypatch):
    place(volume, FILLED)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(volume_module, "has_content", refuse)
    assert volume.look()["notes"] == Folder(FILLED, has_data=True)


# Changing --------------------------------------------------------------------------------------------------


def test_change_is_decided_under_the_lock(volume):
    held = []

    def decide(folder):
        with volume.layout.manifests_lock.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(folder)
        return Decision()

    volume.change("notes", decide)
    assert held == [Folder()]


def test_change_is_decided_by_what_is_there_now(volume):
    place(volume)
    volume.look()
    place(volume, FILLED, vectors_bin=b"x")
    seen = []

    def decide(folder):
        seen.append(folder)
        return Decision()

    assert volume.change("notes", decide) == Decision()
    assert seen == [Folder(FILLED, has_data=True)]


def test_written_manifest_has_the_times_of_its_change(volume):
    decision = Decision(write=EMPTY)
    assert volume.change("notes", always(decision)) == decision
    written = there(volume)
    assert written.created_at == written.updated_at
    assert dataclasses.replace(written, created_at=None, updated_at=None) == EMPTY


def test_second_write_keeps_the_time_of_the_first(volume):
    place(volume, dataclasses.replace(EMPTY, created_at="2025-01-01T00:00:00.000Z"))
    volume.change("notes", lambda folder: Decision(write=dataclasses.replace(folder.manifest, owner="me")))
    assert (there(volume).created_at, there(volume).owner) == ("2025-01-01T00:00:00.000Z", "me")


def test_drop_is_a_mark_in_the_manifest(volume):
    place(volume, FILLED, vectors_bin=b"x")
    volume.change("notes", always(Decision(drop=True)))
    assert there(volume).dropped_at is not None
    assert (volume.layout.collection("notes") / "vectors.bin").exists()


def test_what_changes_nothing_writes_nothing(volume):
    place(volume)
    path = volume.layout.collection("notes") / "metadata.json"
    before = path.stat()
    volume.change("notes", always(Decision(reports=(MISSED,))))
    # A read may change the access time.
    assert (path.stat().st_ino, path.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_collection_that_is_being_made_is_left_alone(volume):
    """Between its two renames a repair leaves no folder in its place: that says nothing of its data."""
    (volume.layout.staging / "notes").mkdir(parents=True)
    done = volume.change("notes", always(Decision(write=FILLED, reports=(MISSED, RIVAL))))
    assert not done.changes
    assert done.reports == (RIVAL,)
    assert volume.look() == {}


def test_drop_waits_for_the_end_of_a_hold_and_nothing_else_does(volume):
    """A copy that is made under it has no drop that began later."""
    place(volume, FILLED)
    edited = dataclasses.replace(FILLED, owner="me")
    with locked(volume.layout.volume_id):
        assert volume.change("notes", always(Decision(drop=True, reports=(RIVAL,)))) == Decision(
            reports=(RIVAL,)
        )
        assert there(volume) == FILLED
        volume.change("notes", always(Decision(write=edited)))
        assert there(volume).owner == "me"
    assert volume.change("notes", always(Decision(drop=True))).drop
    assert there(volume).dropped_at is not None


def test_staging_of_another_collection_holds_nothing_back(volume):
    (volume.layout.staging / "notes-0123").mkdir(parents=True)
    volume.change("notes", always(Decision(write=EMPTY)))
    assert volume.look().keys() == {"notes"}


# Evidence --------------------------------------------------------------------------------------------------


def test_damaged_manifest_is_copied_before_it_is_written_anew(volume, monkeypatch):
    place(volume, vectors_bin=b"x")
    damage(volume, b"what a hand made of it")
    disk = RecordedDisk(monkeypatch)
    volume.change("notes", always(Decision(write=EMPTY, set_aside=True)))
    [[name]] = volume.evidence().values()
    copy = volume.layout.quarantine / name / "notes" / "metadata.json"
    assert copy.read_bytes() == b"what a hand made of it"
    assert there(volume).resource_uid == "r-1"
    durable = disk.first("sync metadata.json"), disk.first("sync notes/")
    assert max(durable) < disk.first("rename metadata.json.tmp -> metadata.json")


def test_evidence_is_a_folder_with_nothing_but_a_manifest(volume):
    for name, files in {
        "notes-2": ["notes/metadata.json"],
        "notes-1": ["notes/metadata.json"],
        "notes-3": ["notes/metadata.json", "report.json"],
        "notes-4": ["notes/metadata.json", "notes/vectors.bin"],
        "notes-5": ["metadata.json"],
        "other-1": ["other/metadata.json"],
    }.items():
        for file in files:
            path = volume.layout.quarantine / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"{")
    assert volume.evidence() == {"notes": ["notes-1", "notes-2"], "other": ["other-1"]}


def test_without_room_for_the_copy_the_damaged_manifest_stays(volume, monkeypatch):
    """However often it is tried, nothing of the trials stays either."""
    place(volume)
    damage(volume, b"{")
    disk = RecordedDisk(monkeypatch)
    disk.fail("write metadata.json", times=2)
    for _ in range(2):
        with pytest.raises(StorageError, match="setting the manifest of notes aside"):
            volume.change("notes", always(Decision(write=EMPTY, set_aside=True)))
    assert (volume.layout.collection("notes") / "metadata.json").read_bytes() == b"{"
    assert list(volume.layout.quarantine.iterdir()) == []


def test_evidence_of_the_same_second_is_not_written_over(volume, monkeypatch):
    monkeypatch.setattr("vecstow_engine.storage.manifests.timestamp", lambda: "20260101T000000Z")
    place(volume)
    damage(volume, b"first")
    volume.change("notes", always(Decision(write=FILLED, set_aside=True)))
    damage(volume, b"second")
    with pytest.raises(StorageError, match="is there already"):
        volume.change("notes", always(Decision(write=FILLED, set_aside=True)))
    [copy] = volume.layout.quarantine.glob("*/notes/metadata.json")
    assert copy.read_bytes() == b"first"


def test_failed_write_leaves_what_was_there(volume, monkeypatch):
    place(volume, FILLED)
    disk = RecordedDisk(monkeypatch)
    disk.fail("write metadata.json.tmp")
    with pytest.raises(StorageError, match="writing the manifest of notes"):
        volume.change("notes", always(Decision(write=dataclasses.replace(FILLED, collection_uid=OTHER_UID))))
    assert there(volume) == FILLED
