"""`check` on the files of one collection: it names the damage, its place, and the outcome of a start."""

import dataclasses
import re
import shutil
import struct
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c

from tests.unit.checked_volume import (
    STRIDE,
    CheckedVolume,
    cut,
    flip,
    place_of_id,
    rewrite_point,
    rows_of_another,
    told,
    trace,
    zero,
)
from tests.unit.store_on_disk import MANIFEST, StoreOnDisk
from vecstow_engine.doctor.check import check_folder, check_volume
from vecstow_engine.doctor.check import collection as collection_check
from vecstow_engine.doctor.check.advice import Link, NextStep
from vecstow_engine.model.errors import Unavailable
from vecstow_engine.model.metrics import VectorType
from vecstow_engine.model.points import PointBatch
from vecstow_engine.storage.identity import HEADER_BYTES
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.log.segment import Upsert
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.writer import write_points


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return CheckedVolume(tmp_path_factory.mktemp("check") / "data").build()


@pytest.fixture
def volume(built, tmp_path):
    return built.copied(tmp_path / "data")


def page_of(volume, table):
    """The byte at which the first page of a table or index begins."""
    return 4096 * (volume.table_value("SELECT rootpage FROM sqlite_master WHERE name = ?", table) - 1)


@dataclass
class Damage:
    """A damage to a volume, the finding that it must cause, and the state that a start gives."""

    do: Any
    severity: str
    file: str
    offset: Any
    message: str
    state: str
    next: str | None = None


ROWS, TABLE, INDEX = "notes/vectors.bin", "notes/points.db", "notes/index.bin"
PAYLOADS = "notes/payload.bin"
RESTORE = r"vecstow restore \.backups/notes-\d{8}T\d{6}Z --data \S+ --new-name notes-restored"
INSERT = "PUT /collections/notes/vectors/p7"

DAMAGES = {
    "rows: a bit of the header": Damage(
        lambda v: flip(v.rows, 40), "error", ROWS, 0, "header page fails its checksum", "quarantined",
        RESTORE),
    "rows: the magic": Damage(
        lambda v: flip(v.rows, 0), "error", ROWS, 0, "no header page", "quarantined", RESTORE),
    "rows: a bit of a live row": Damage(
        lambda v: flip(v.rows, v.row_offset("p700") + 5), "error", ROWS, lambda v: v.row_offset("p700"),
        "row of point 'p700' fails its checksum", "degraded", INSERT),
    "rows: a page of zeros": Damage(
        lambda v: zero(v.rows, 8192), "error", ROWS, 8192, "fails its checksum", "degraded"),
    "rows: cut in the last row": Damage(
        lambda v: cut(v.rows, -3), "error", ROWS, lambda v: v.rows.stat().st_size, "it ends here",
        "quarantined",
        RESTORE),
    "rows: cut in the header": Damage(
        lambda v: cut(v.rows, 100), "error", ROWS, 0, "no header page", "quarantined", RESTORE),
    "rows: longer by less than a row": Damage(
        lambda v: v.rows.write_bytes(v.rows.read_bytes() + b"xyz"), "info", ROWS,
        lambda v: v.rows.stat().st_size - 3, "no whole row", "ready"),
    "rows: gone": Damage(
        lambda v: v.rows.unlink(), "error", ROWS, None, "missing or empty", "quarantined", RESTORE),
    "rows: of another incarnation": Damage(
        lambda v: v.rows.write_bytes(rows_of_another(v)), "error", ROWS, 12,
        "belongs to incarnation", "quarantined", RESTORE),
    "table: a bit of a payload": Damage(
        lambda v: v.change_table("UPDATE points SET payload = x'7b7d' WHERE id = 'p7'"), "error", TABLE, None,
        "id 'p7' as it stands there, fails its checksum", "degraded", RESTORE),
    "table: an id that is no text": Damage(
        lambda v: flip(v.table, place_of_id(v, "p700", (13,)), 0x80), "error", TABLE, None,
        "fails its checksum", "degraded", RESTORE),
    "table: epoch 0": Damage(
        lambda v: v.change_table("UPDATE points SET generation = 0 WHERE id = 'p7'"), "error", TABLE, None,
        "fails its checksum", "degraded", RESTORE),
    "table: the meta row": Damage(
        lambda v: v.change_table("UPDATE meta SET applied = applied + 1"), "error", TABLE, None,
        "meta row fails its checksum", "quarantined", RESTORE),
    "table: no meta row": Damage(
        lambda v: v.change_table("DELETE FROM meta"), "error", TABLE, None, "0 meta rows", "quarantined",
        RESTORE),
    "table: of a later release": Damage(
        lambda v: v.change_table("UPDATE meta SET version = 2"), "error", TABLE, None, "has version 2",
        "quarantined", "run the release"),
    "table: a point less": Damage(
        lambda v: v.change_table("DELETE FROM points WHERE id = 'p7'"), "error", TABLE, None,
        "mixes two moments",
        "quarantined", RESTORE),
    "table: cut in half": Damage(
        lambda v: cut(v.table, v.table.stat().st_size // 8192 * 4096), "error", TABLE, None, "malformed",
        "quarantined", RESTORE),
    "table: first page zero": Damage(
        lambda v: zero(v.table, 0), "error", TABLE, None, "not a database|no such table", "quarantined",
        RESTORE),
    "table: root page of the points zero": Damage(
        lambda v: zero(v.table, page_of(v, "points")), "error", TABLE, None, "malformed", "quarantined",
        RESTORE),
    "table: an id in the index of ids": Damage(
        lambda v: flip(v.table, place_of_id(v, "p333", (2, 10))), "warning", TABLE, None,
        "index of ids does not fit the points", "ready"),
    "table: root page of the index of ids zero": Damage(
        lambda v: zero(v.table, page_of(v, "sqlite_autoindex_points_1")), "error", TABLE, None, "malformed",
        "quarantined", RESTORE),
    "table: gone": Damage(
        lambda v: v.table.unlink(), "error", TABLE, None, "missing or empty", "quarantined", RESTORE),
    "table: payload is no object": Damage(
        lambda v: rewrite_point(v, "p7", payload=b"[]"), "error", TABLE, None, "payload is no JSON object",
        "ready",
        INSERT),
    "table: epoch of the future": Damage(
        lambda v: rewrite_point(v, "p7", epoch=99), "error", TABLE, None,
        "generation 99 after 3 checkpoints",
        "ready", INSERT),
    "index: a bit": Damage(
        lambda v: flip(v.index, 5000), "warning", INDEX, None, "fails its checksum; .* again", "ready"),
    "index: cut": Damage(
        lambda v: cut(v.index, -1), "warning", INDEX, None, "no recorded snapshot has; .* again", "ready"),
    "index: longer": Damage(
        lambda v: v.index.write_bytes(v.index.read_bytes() + b"x"), "warning", INDEX, None, "again", "ready"),
    "index: gone": Damage(
        lambda v: v.index.unlink(), "info", INDEX, None, "it is missing; .* again", "ready"),
    "index: its record": Damage(
        lambda v: v.change_table("UPDATE snapshots SET sequence = sequence - 1 WHERE space = 'l2'"),
        "warning", TABLE, None,
        "1 record fails its checksum; it is ignored: index.bin or payload.bin is built again", "ready"),
    "payload indexes: a bit": Damage(
        lambda v: flip(v.payloads, 5000), "warning", PAYLOADS, None,
        "fails its checksum; .* again from the payloads", "ready"),
    "payload indexes: cut": Damage(
        lambda v: cut(v.payloads, -1), "warning", PAYLOADS, None, "no recorded snapshot has; .* again",
        "ready"),
    "payload indexes: longer": Damage(
        lambda v: v.payloads.write_bytes(v.payloads.read_bytes() + b"x"), "warning", PAYLOADS, None, "again",
        "ready"),
    "payload indexes: gone": Damage(
        lambda v: v.payloads.unlink(), "info", PAYLOADS, None,
        "it is missing; the next start builds it again from the payloads", "ready"),
    "payload indexes: zeros": Damage(
        lambda v: zero(v.payloads, 0, 100_000), "warning", PAYLOADS, None, "fails its checksum", "ready"),
    "payload indexes: the file of the graph": Damage(
        lambda v: shutil.copyfile(v.index, v.payloads), "warning", PAYLOADS, None,
        "no recorded snapshot has", "ready"),
    "payload indexes: their record": Damage(
        lambda v: v.change_table("UPDATE snapshots SET sequence = 0 WHERE space = 'payload'"),
        "warning", TABLE, None, "1 record fails its checksum; it is ignored", "ready"),
    "payload indexes: no record": Damage(
        lambda v: v.change_table("DELETE FROM snapshots WHERE space = 'payload'"),
        "warning", PAYLOADS, None, "no recorded snapshot has", "ready"),
    "index: root page of its records zero": Damage(
        lambda v: zero(v.table, page_of(v, "snapshots")), "warning", TABLE, None, "rebuilds it", "ready"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_a_start_makes_of_it_what_is_told(volume, name):
    damage = DAMAGES[name]
    damage.do(volume)
    offset = damage.offset(volume) if callable(damage.offset) else damage.offset
    before = trace(volume.data)
    report = volume.check()
    assert trace(volume.data) == before
    matching = [f for f in report.findings if re.search(damage.message, f.message)]
    assert (damage.severity, damage.file, offset) in told(matching), report.findings
    assert report.clean == (damage.severity != "error")
    assert {f.file for f in report.findings if f.severity == "error"} <= {damage.file}
    assert all(f.next_steps and f.collection == "notes" for f in report.findings if f.severity == "error")
    if damage.next:
        assert re.search(damage.next, "\n".join(map(str, matching[0].next_steps)))
    assert report.collections["notes"]["state"] == damage.state == volume.state_when_started()


def test_finding_that_two_readers_come_to_is_told_once(volume):
    cut(volume.table, volume.table.stat().st_size // 8192 * 4096)
    report = volume.check()
    assert len(report.findings) == len(set(report.findings))
    assert report.document()["errors"] == len(report.findings)


def test_restore_names_the_newest_backup_that_is_sound(volume):
    """The newest has the same damage, and restoring it would bring nothing back."""
    [sound] = (volume.data / ".backups").iterdir()
    shutil.copytree(sound, sound.with_name("notes-20990102T030405Z"))
    damaged = volume.row_offset("p700")
    flip(volume.rows, 40)
    [finding] = volume.check().findings
    assert finding.next_steps == (
        NextStep("print what a repair saves", f"vecstow check notes --data {volume.data} --repair --dry-run"),
        NextStep(
            "restore the backup of 2099-01-02T03:04:05Z, which lacks later writes",
            f"vecstow restore .backups/notes-20990102T030405Z --data {volume.data} --new-name notes-restored",
            Link.OR,
        ),
    )
    assert finding.next_command == finding.next_steps[0].command
    flip(sound.with_name("notes-20990102T030405Z") / "notes" / "vectors.bin", damaged)
    [finding] = volume.check().findings
    assert finding.next_steps[1].command.startswith(f"vecstow restore .backups/{sound.name} ")


def test_each_command_of_a_stopped_volume_is_one_line_that_runs_there(volume, vecstow):
    """The name that a restored collection gets is free, however often it was typed."""
    flip(volume.rows, 40)
    for name in ("notes-restored", "notes-restored-2"):
        code, out, _ = vecstow("check", "notes", "--data", volume.data)
        assert code == 1
        repair, restore = [line.split() for line in out.splitlines() if line.startswith("        vecstow ")]
        assert vecstow(*repair[1:])[0] == 1
        assert vecstow(*restore[1:])[0] == 0
        assert restore[-1] == name
        assert volume.check(name).clean


def test_a_point_is_inserted_again_where_an_engine_runs(volume):
    flip(volume.rows, volume.row_offset("p700") + 5)
    [stopped] = volume.check().findings
    [served] = check_folder(Layout(volume.data), "notes").findings
    insert = "insert the point again: PUT /collections/notes/vectors/p700"
    assert stopped.next_steps[-1] == NextStep(f"start the engine, and {insert}", link=Link.OR)
    assert served.next_steps[0] == NextStep(insert)
    assert served.next_command == "vecstow check notes --repair --dry-run"


def test_backups_that_are_damaged_too_are_not_recommended(volume):
    [backup] = (volume.data / ".backups").iterdir()
    (backup / "notes" / "metadata.json").unlink()
    flip(volume.rows, 40)
    before = trace(volume.data)
    [finding] = volume.check().findings
    copy = "copy notes/ and its log back from a copy of the volume: the newest backups fail their checks, too"
    assert finding.next_steps[1:] == (
        NextStep(copy, link=Link.OR),
        NextStep(command=f"vecstow check notes --data {volume.data}", link=Link.THEN),
    )
    assert trace(volume.data) == before


def test_no_backup_is_read_for_a_sound_collection(volume, monkeypatch):
    """`check` leaves the backups alone: reading them would take as long as the check itself."""
    monkeypatch.setattr(collection_check, "is_sound", None)
    assert volume.check().clean


def test_volume_after_real_work_has_nothing_to_tell(volume):
    before = trace(volume.data)
    report = volume.check()
    assert report.findings == []
    assert report.clean
    assert trace(volume.data) == before
    facts = report.collections["notes"]
    assert facts["points"] == facts["intact_points"] == len(volume.stored)
    assert facts["index"]["sequence"] == facts["payload_index"]["sequence"] == facts["applied"]
    assert report.collections["empty"]["state"] == "empty"
    assert volume.state_when_started() == "ready"


def test_graph_that_lacks_the_newest_points_is_told_as_normal(volume):
    with closing(PointTable(volume.table)) as table:
        meta = table.meta()
    write_points(volume.table, [], [], meta.applied + 1, meta.checkpoints + 1)
    assert told(volume.check().findings) == [("info", INDEX, None), ("info", PAYLOADS, None)]


def test_row_of_a_deleted_point_means_nothing(volume):
    slots = {volume.slot(point_id) for point_id in volume.stored}
    free = next(slot for slot in range(max(slots)) if slot not in slots)
    flip(volume.rows, HEADER_BYTES + STRIDE * free)
    assert volume.check().findings == []


@pytest.mark.parametrize("vector_type", VectorType)
def test_damaged_scale_of_a_row_is_found_quietly(tmp_path, vector_type):
    """An infinite scale times zero: numpy would warn before the checksum tells."""
    manifest = dataclasses.replace(MANIFEST, vector_type=vector_type)
    batch = PointBatch.build(manifest, ["a"], np.array([[0, 1, 2, 3]], np.float32), None)
    notes = StoreOnDisk(tmp_path / "data", manifest)
    notes.store.commit([Upsert(batch.ids, batch.rows, batch.payloads)])
    notes.checkpoint()
    notes.close()
    rows = notes.folder / "vectors.bin"
    raw = rows.read_bytes()
    rows.write_bytes(raw[:HEADER_BYTES] + struct.pack("<f", float("inf")) + raw[HEADER_BYTES + 4 :])
    [finding] = check_volume(notes.data, ["notes"]).findings
    assert finding.offset == HEADER_BYTES
    again = StoreOnDisk(notes.data, manifest)
    with pytest.raises(Unavailable):
        again.store.view.get(["a"])
    again.close()


def test_row_that_is_no_vector_is_an_error(volume):
    """A row that is not finite is an error though its checksum fits: no engine writes such a row."""
    offset, row = volume.row_offset("p7"), struct.pack("<4f", 1, float("nan"), 1, 1)
    raw = volume.rows.read_bytes()
    volume.rows.write_bytes(raw[:offset] + row + raw[offset + STRIDE :])
    rewrite_point(volume, "p7", row_checksum=crc32c(row))
    [finding] = [f for f in volume.check().findings if f.severity == "error"]
    assert (finding.file, finding.offset) == (ROWS, offset)
    assert "not finite" in finding.message
