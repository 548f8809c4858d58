"""`check` on manifests, on files outside the collections, and next to a running engine."""

import asyncio
import errno
import json
import os
import shlex
import shutil

import pytest

from tests.unit.checked_volume import CheckedVolume, flip, told, trace
from tests.unit.running_engine import RunningEngine, fill
from vecstow_engine.doctor.check import check_folder, check_volume
from vecstow_engine.doctor.check.findings import FINDINGS_PER_FILE_MAX
from vecstow_engine.model.aliases import Alias
from vecstow_engine.model.errors import NotFound, VolumeRefused
from vecstow_engine.storage import files
from vecstow_engine.storage.aliases import change_aliases
from vecstow_engine.storage.identity import HEADER_BYTES


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return CheckedVolume(tmp_path_factory.mktemp("check") / "data").build()


@pytest.fixture
def volume(built, tmp_path):
    return built.copied(tmp_path / "data")


def change_manifest(volume, **fields):
    path = volume.notes / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


MANIFEST, ROWS = "notes/metadata.json", "notes/vectors.bin"


# Manifests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "file", "offset", "message", "state"),
    [
        ({"name": "other"}, MANIFEST, None, "its folder, 'notes'", "undeclared"),
        ({"dimension": "four"}, MANIFEST, None, "must be an integer", "undeclared"),
        ({"schema_version": 3}, MANIFEST, None, "it has schema_version 3", "undeclared"),
        ({"dimension": 5}, ROWS, 28, "but the manifest says dimension 5", "quarantined"),
        ({"distance_metric": "Cosine"}, ROWS, 28, "Cosine", "quarantined"),
        ({"collection_uid": "f" * 32}, ROWS, 12, "the manifest says ffff", "quarantined"),
    ],
)
def test_manifest_that_does_not_fit_is_an_error(volume, fields, file, offset, message, state):
    change_manifest(volume, **fields)
    report = volume.check("notes")
    [finding] = [f for f in report.findings if message in f.message]
    assert (finding.severity, finding.file, finding.offset) == ("error", file, offset)
    assert finding.next_steps
    assert not report.clean
    assert report.collections["notes"]["state"] == state == volume.state_when_started()


@pytest.mark.parametrize("gone", [True, False])
def test_data_with_a_lost_manifest_is_an_error_whose_next_command_restores_it(volume, gone, vecstow):
    path = volume.notes / "metadata.json"
    path.unlink() if gone else path.write_text("{")
    report = volume.check()
    assert told(report.findings) == [("error", MANIFEST, None)]
    words = report.findings[0].next_command.split()
    assert words[-2:] == ["--repair", "--dry-run"]
    assert vecstow(*words[1:])[0] == 1
    assert vecstow(*words[1:-1])[0] == 0
    assert volume.check("notes").clean
    assert volume.state_when_started() == "ready"


def test_damage_below_a_lost_manifest_is_told_too(volume):
    (volume.notes / "metadata.json").unlink()
    flip(volume.rows, HEADER_BYTES + 3)
    assert ("error", ROWS, HEADER_BYTES) in told(volume.check().findings)


def test_folder_that_never_was_a_collection_is_a_warning(volume):
    (volume.data / "stray").mkdir()
    assert told(volume.check().findings) == [("warning", "stray/metadata.json", None)]


def test_folder_that_is_no_collection_is_not_counted_as_one(volume, vecstow):
    (volume.data / "stray").mkdir()
    assert "stray" not in volume.check().collections
    assert vecstow("check", "--data", volume.data)[1].splitlines()[-1].startswith("checked 2 collections ")


def test_only_a_folder_without_folders_is_advised_to_be_moved_away(volume):
    """A folder in the folder can be anything, even the volume of another engine."""
    stray = volume.data / "stray"
    stray.mkdir()
    assert volume.check().findings[0].next_command == (
        f"mkdir -p {volume.data}/.quarantine && mv {stray} {volume.data}/.quarantine/"
    )
    shutil.copytree(volume.data, stray / "deep", ignore=shutil.ignore_patterns("stray"))
    [finding] = volume.check().findings
    assert (finding.severity, finding.next_command) == ("warning", None)


def test_files_of_another_program_without_a_manifest_are_not_advised_to_be_moved_away(volume):
    (volume.data / "old").mkdir()
    (volume.data / "old" / "vectors.bin").write_bytes(bytes(range(200)))
    [finding] = volume.check().findings
    assert (finding.severity, finding.next_command) == ("warning", None)


@pytest.mark.parametrize("mark", ["VOLUME", "LOCK"])
def test_volume_in_a_volume_is_checked_by_a_command_of_its_own(volume, mark):
    inner = volume.data / "inner"
    inner.mkdir()
    (inner / mark).touch()
    [finding] = volume.check().findings
    assert "data directory of its own" in finding.message
    assert finding.next_command == f"vecstow check --data {inner}"


def test_copied_folder_is_an_error_and_its_origin_is_not(volume):
    shutil.copytree(volume.notes, volume.data / "copy")
    manifest = volume.data / "copy" / "metadata.json"
    manifest.write_text(manifest.read_text().replace('"name": "notes"', '"name": "copy"'))
    report = volume.check()
    [finding] = report.findings
    assert (finding.severity, finding.collection) == ("error", "copy")
    assert "also claimed by another folder" in finding.message
    states = {name: facts["state"] for name, facts in report.collections.items()}
    assert states == {"copy": "quarantined", "empty": "empty", "notes": "ready"}
    with RunningEngine(volume.data) as engine:
        assert [engine.collection(name).state.value for name in ("copy", "notes")] == ["quarantined", "ready"]


def test_collection_of_another_program_is_told_with_the_command_that_imports_it(volume):
    folder = volume.data / "old"
    folder.mkdir()
    (folder / "vectors.bin").write_bytes(bytes(range(200)))
    manifest = {"name": "old", "dimension": 4, "distance_metric": "Cosine", "vector_type": "Float32"}
    (folder / "metadata.json").write_text(json.dumps(manifest | {"index_config": {}}))
    report = volume.check()
    assert told(report.findings) == [("info", "old/vectors.bin", 0)]
    [finding] = report.findings
    assert (
        finding.next_command == "vecstow import old --orphan old --dimension 4 --metric Cosine --type Float32"
    )
    assert report.collections["old"]["state"] == "foreign"
    assert report.clean


def test_collection_that_waits_to_be_moved_away_is_told(volume):
    change_manifest(volume, dropped_at="2026-01-01T00:00:00.000Z")
    report = volume.check()
    assert told(report.findings) == [("info", MANIFEST, None)]
    assert report.collections["notes"]["state"] == "dropped"


# Next to the collections ---------------------------------------------------------------------------------


def dropped(volume):
    [folder] = (volume.data / ".deleted").iterdir()
    return folder


BESIDE = {
    "the volume's id is gone": (lambda v: (v.data / "VOLUME").unlink(), "warning", "VOLUME"),
    "the volume's id is none": (lambda v: (v.data / "VOLUME").write_bytes(b"\xff\xfe"), "error", "VOLUME"),
    "a log of nobody": (lambda v: (v.data / "wal" / ("e" * 32)).mkdir(), "warning", "wal/" + "e" * 32),
    "a dropped collection without its manifest": (
        lambda v: (dropped(v) / "metadata.json").unlink(), "warning", ".deleted/gone-"),
    "a dropped collection with a damaged header": (
        lambda v: flip(dropped(v) / "vectors.bin", 20), "warning", ".deleted/gone-"),
    "a dropped collection with a damaged table": (
        lambda v: flip(dropped(v) / "points.db", 3), "warning", ".deleted/gone-"),
    "a stranger among the dropped": (lambda v: (v.data / ".deleted" / "x").mkdir(), "warning", ".deleted/x"),
    "a manifest left half written": (
        lambda v: (v.notes / "metadata.json.tmp").write_bytes(b"{"), "info", "notes/metadata.json.tmp"),
    "a collection left half made": (
        lambda v: (v.data / ".staging" / "x").mkdir(parents=True), "info", ".staging/x"),
}  # fmt: skip


@pytest.mark.parametrize("case", BESIDE)
def test_what_lies_beside_the_collections_is_told(volume, case):
    change, severity, file = BESIDE[case]
    change(volume)
    before = trace(volume.data)
    report = volume.check()
    assert trace(volume.data) == before
    assert [(f.severity, f.collection, f.offset) for f in report.findings] == [(severity, None, None)]
    assert report.findings[0].file.startswith(file)
    assert report.clean == (severity != "error")
    assert volume.check("notes").findings == []


def with_alias(volume, name, collection):
    change_aliases(volume.layout, lambda table: table.with_alias(Alias(name, collection)))


def test_sound_aliases_are_no_finding(volume):
    with_alias(volume, "second", "notes")
    assert "aliases.json" not in [finding.file for finding in volume.check().findings]


def test_damaged_aliases_are_an_error_that_lists_what_can_be_set_again(volume):
    with_alias(volume, "second", "notes")
    path = volume.layout.aliases
    path.write_bytes(path.read_bytes().replace(b'"notes"', b'"other"'))
    [finding] = [finding for finding in volume.check().findings if finding.file == "aliases.json"]
    assert (finding.severity, finding.collection) == ("error", None)
    assert "second -> other" in finding.message
    assert "aliases.json" in finding.next_command
    path.write_bytes(b"[" * 100_000)
    [finding] = [finding for finding in volume.check().findings if finding.file == "aliases.json"]
    assert "->" not in finding.message


def test_aliases_of_a_later_release_are_an_error_that_names_it(volume):
    volume.layout.aliases.write_text('{"schema_version": 2}')
    [finding] = [finding for finding in volume.check().findings if finding.file == "aliases.json"]
    assert "schema_version 2" in finding.message
    assert finding.next_steps[0].does.startswith("run the release")


@pytest.mark.parametrize(
    ("alias", "collection", "says", "command"),
    [
        pytest.param("second", "none", "'none', which does not exist", "set second NAME", id="nowhere"),
        pytest.param("notes", "notes", "has the name of a collection", "rm notes", id="hidden"),
    ],
)
def test_an_alias_that_is_not_served_is_a_warning_with_a_command(volume, alias, collection, says, command):
    with_alias(volume, alias, collection)
    [finding] = [finding for finding in volume.check().findings if finding.file == "aliases.json"]
    assert finding.severity == "warning"
    assert says in finding.message
    assert command in finding.next_command


def test_volume_whose_id_is_damaged_is_refused(volume):
    """Another id would mean a volume that was replaced."""
    (volume.data / "VOLUME").write_bytes(b"\xff\xfe")
    with pytest.raises(VolumeRefused, match="not the 32 hex digits"):
        RunningEngine(volume.data).start()


def test_log_whose_collection_was_removed_by_hand_names_it(volume):
    uid = volume.uid
    shutil.rmtree(volume.notes)
    [finding] = volume.check().findings
    assert (finding.severity, finding.file) == ("warning", f"wal/{uid}")
    assert "it was that of notes (dimension 4, Euclidean, Float32)" in finding.message


# The report ----------------------------------------------------------------------------------------------


def test_findings_of_one_file_are_bounded_and_the_others_counted(volume):
    raw = volume.rows.read_bytes()
    volume.rows.write_bytes(raw[:HEADER_BYTES] + bytes(len(raw) - HEADER_BYTES))
    report = volume.check()
    damaged = len(volume.stored)
    assert len(report.findings) == FINDINGS_PER_FILE_MAX
    assert report.document()["omitted"] == {ROWS: damaged - FINDINGS_PER_FILE_MAX}
    assert report.document()["errors"] == damaged


def test_report_is_one_json_document(volume):
    flip(volume.rows, HEADER_BYTES)
    document = json.loads(json.dumps(volume.check().document()))
    assert (document["clean"], document["errors"], document["warnings"]) == (False, 1, 0)
    [finding] = document["findings"]
    assert set(finding) == {
        "severity",
        "collection",
        "file",
        "offset",
        "message",
        "next_command",
        "next_steps",
    }
    assert finding["severity"] == "error"


def test_progress_ends_with_every_point_read(volume):
    calls = []
    check_volume(volume.data, ["notes"], lambda *call: calls.append(call))
    assert calls[0] == ("notes", 0, len(volume.stored))
    assert calls[-1] == ("notes", len(volume.stored), len(volume.stored))


# Who may check -------------------------------------------------------------------------------------------


URL = "http://engine.example:80"
SERVED = {
    "check --data {data}": "check",
    "check notes --json --data={data}": "check notes --json",
    "check --data {data} --repair": "check NAME --repair",
    "check notes --data {data} --repair --dry-run": "check notes --repair --dry-run",
    "restore .backups/x --data {data} --new-name p4": "restore .backups/x --new-name p4",
    "restore --new-name p4 --data {data} -- '-x y'": "restore --new-name p4 {url} -- '-x y'",
}


@pytest.mark.parametrize(("typed", "asked"), SERVED.items(), ids=SERVED)
def test_served_volume_is_refused_with_the_command_that_works(volume, vecstow, monkeypatch, typed, asked):
    """The command has each option that was typed, and the address that the environment has."""
    arguments = shlex.split(typed.format(data=volume.data))
    asked = asked if "{url}" in asked else f"{asked} {{url}}"
    monkeypatch.setenv("VECSTOW_URL", URL)
    with RunningEngine(volume.data):
        code, _, err = vecstow(*arguments)
        assert (code, "LOCK is held: an engine serves this volume" in err) == (1, True)
        assert err.splitlines()[-1] == "hint: ask that engine: vecstow " + asked.format(url=f"--url {URL}")
        monkeypatch.setenv("VECSTOW_URL", "")
        default = asked.format(url="--url http://127.0.0.1:3030")
        assert f"vecstow {default}  # or its own address: this is the default\n" in vecstow(*arguments)[2]
    assert volume.check().clean


def test_engine_cannot_start_on_a_volume_that_is_checked(volume):
    def start(*_):
        with pytest.raises(VolumeRefused):
            RunningEngine(volume.data).start()

    check_volume(volume.data, None, start)


def test_copy_without_the_lock_file_is_checked(volume):
    (volume.data / "LOCK").unlink()
    assert volume.check().findings == []


def test_unknown_name_and_folder_are_refused(volume, tmp_path):
    with pytest.raises(NotFound, match="'nothing'"):
        volume.check("nothing")
    with pytest.raises(VolumeRefused, match="is no folder"):
        check_volume(tmp_path / "nowhere")
    with pytest.raises(NotFound):
        check_folder(volume.layout, "nothing")


def test_nothing_is_opened_for_writing(volume, monkeypatch):
    """A snapshot of a volume may be mounted read-only."""

    def refuse(*_):
        raise AssertionError("opened for writing")

    for name in ("open_new", "open_existing", "open_or_create", "make_folder", "rename", "remove"):
        monkeypatch.setattr(files, name, refuse)
    assert volume.check().findings == []


# A running engine ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [False, True], ids=["checkpoints", "hold"])
async def test_served_collection_is_checked_while_writes_go_on(volume, held):
    with RunningEngine(volume.data) as engine:
        if held:
            engine.hold.begin(60)
        writing = asyncio.create_task(write_on(engine))
        for _ in range(8):
            report = await asyncio.to_thread(engine.check, "notes")
            assert report["clean"]
            assert [f for f in report["findings"] if f["severity"] != "info"] == []
        writing.cancel()
    assert check_volume(volume.data).findings == []


async def write_on(engine):
    round_ = 0
    while True:
        round_ += 1
        await engine.put("notes", **fill("p", 40, value=round_))
        await engine.put("notes", **fill(f"n{round_}x", 40))
        await engine.delete_points("notes", [f"n{round_ - 1}x{n}" for n in range(40)])


async def test_damage_under_a_running_engine_is_found(volume):
    with RunningEngine(volume.data) as engine:
        await engine.put("notes", p3=3000)
        flip(volume.rows, volume.row_offset("p700"))
        report = await asyncio.to_thread(engine.check, "notes")
    assert [(f["severity"], f["file"]) for f in report["findings"] if f["severity"] == "error"] == [
        ("error", ROWS)
    ]


async def test_point_with_a_damaged_row_is_healed_by_inserting_it_again(volume):
    flip(volume.rows, volume.row_offset("p700"))
    with RunningEngine(volume.data) as engine:
        await engine.put("notes", p700=701)
        assert (await asyncio.to_thread(engine.check, "notes"))["clean"]
    assert volume.check().clean


async def test_collection_with_a_broken_manifest_can_be_checked_by_the_engine(volume):
    (volume.notes / "metadata.json").write_text("{")
    with RunningEngine(volume.data) as engine:
        report = await asyncio.to_thread(engine.check, "notes")
    assert [(f["severity"], f["file"]) for f in report["findings"]] == [("error", MANIFEST)]


async def test_quarantined_collection_can_be_checked_by_the_engine(volume):
    flip(volume.rows, 40)
    with RunningEngine(volume.data) as engine:
        report = await asyncio.to_thread(engine.check, "notes")
    assert report["collections"]["notes"]["state"] == "quarantined"


def test_log_folder_that_cannot_be_read_is_an_error(volume, monkeypatch):
    """pathlib's `glob` would take it for an empty folder."""
    logs, listed = volume.data / "wal", os.scandir

    def refuse(path="."):
        if str(path) == str(logs):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in os.scandir(path)])
    with pytest.raises(PermissionError):
        check_volume(volume.data)
