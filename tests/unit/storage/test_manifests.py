"""The manifest: d-vecDB's five keys first, older schemas migrated, newer ones and damage left as they are."""

import dataclasses
import json
import shutil
import struct

import pytest
from crc32c import crc32c

from tests.unit.recorded_disk import RecordedDisk
from tests.unit.store_on_disk import MANIFEST, StoreOnDisk
from vecstow_engine.model.errors import DamagedFile, DiskFull, NewerFormat, NotFound
from vecstow_engine.model.manifest import (
    IndexConfig,
    ManagedBy,
    Manifest,
    PayloadIndex,
    parse_manifest,
    render_manifest,
)
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.storage.creation import create_data_files
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.log.segment import decode_header
from vecstow_engine.storage.manifests import mark_dropped, read_manifest, update_manifest, write_manifest

SCHEMA_0 = """\
{
  "name": "incidents",
  "dimension": 1536,
  "distance_metric": "Cosine",
  "vector_type": "Float32",
  "index_config": {
    "max_connections": 16,
    "ef_construction": 200,
    "ef_search": 50,
    "max_layer": 16
  }
}"""
FULL = Manifest(
    "incidents", 1536, DistanceMetric.MANHATTAN, VectorType.INT8, IndexConfig(32, 400, 80, 8),
    collection_uid="0123456789abcdef" * 2, created_at="2026-01-01T00:00:00.000Z",
    updated_at="2026-01-02T00:00:00.000Z", owner="search-team",
    payload_indexes=(PayloadIndex("tenant", "keyword"),), managed_by=ManagedBy.KUBERNETES,
    resource_uid="r-1", generation=3, dropped_at="2026-01-03T00:00:00.000Z", unknown={"later": {"a": [1]}},
)  # fmt: skip


def document(**changes):
    return json.loads(SCHEMA_0) | changes


def put(folder, raw):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_bytes(raw if isinstance(raw, bytes) else json.dumps(raw).encode())


def test_keys_of_schema_0_come_first_as_d_vecdb_writes_them():
    """The order and the indentation are those of d-vecdb, and the other keys follow."""
    text = render_manifest(parse_manifest(SCHEMA_0.encode())).decode()
    assert text.startswith(SCHEMA_0.removesuffix("\n}") + ",\n")
    assert list(json.loads(text)) == [
        "name", "dimension", "distance_metric", "vector_type", "index_config", "schema_version",
        "collection_uid", "created_at", "updated_at", "owner", "payload_indexes", "managed_by",
        "resource_uid", "generation",
    ]  # fmt: skip


def test_manifest_of_schema_0_loads_with_defaults():
    manifest = parse_manifest(SCHEMA_0.encode())
    assert (manifest.collection_uid, manifest.managed_by, manifest.schema_version) == (None, ManagedBy.API, 1)


def test_manifest_reads_back_whole():
    assert parse_manifest(render_manifest(FULL)) == FULL


def test_unknown_keys_are_kept_at_the_end(tmp_path):
    put(tmp_path / "incidents", document(schema_version=1, later={"b": 1}, flag=None))
    update_manifest(Layout(tmp_path), "incidents", lambda found: dataclasses.replace(found, owner="me"))
    written = json.loads((tmp_path / "incidents" / "metadata.json").read_text())
    assert list(written)[-2:] == ["later", "flag"]
    assert (written["later"], written["flag"], written["owner"]) == ({"b": 1}, None, "me")


def test_older_manifest_is_migrated_in_memory_and_rewritten_at_its_next_change(tmp_path):
    folder = tmp_path / "incidents"
    put(folder, SCHEMA_0.encode())
    assert read_manifest(folder).schema_version == 1
    update_manifest(Layout(tmp_path), "incidents", lambda found: None)
    assert (folder / "metadata.json").read_text() == SCHEMA_0
    update_manifest(Layout(tmp_path), "incidents", lambda found: dataclasses.replace(found, owner="me"))
    assert json.loads((folder / "metadata.json").read_text())["schema_version"] == 1


def test_newer_manifest_is_refused_and_left_untouched(tmp_path):
    folder = tmp_path / "incidents"
    raw = json.dumps(document(schema_version=3, dimension="in words")).encode()
    put(folder, raw)
    inode = (folder / "metadata.json").stat().st_ino
    for attempt in (lambda: read_manifest(folder), lambda: mark_dropped(Layout(tmp_path), "incidents")):
        with pytest.raises(NewerFormat, match="schema_version 3"):
            attempt()
    assert (folder / "metadata.json").read_bytes() == raw
    assert (folder / "metadata.json").stat().st_ino == inode


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="broken JSON"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"\xff\xfe", id="no UTF-8"),
        pytest.param(b"[" * 100_000, id="nested too deep"),
        pytest.param(b" " * (256 * 1024 + 1), id="too long"),
        pytest.param({"name": "incidents"}, id="keys are missing"),
        pytest.param(document(name="other"), id="another folder's name"),
        pytest.param(document(name="../incidents"), id="a name that leads out"),
        pytest.param(document(dimension=0), id="dimension below its bound"),
        pytest.param(document(dimension="4"), id="dimension in words"),
        pytest.param(document(dimension=True), id="dimension a boolean"),
        pytest.param(document(distance_metric="cosine"), id="metric in lower case"),
        pytest.param(document(vector_type="Float64"), id="unknown type"),
        pytest.param(document(index_config={"m": 1}), id="unknown index setting"),
        pytest.param(document(index_config=[]), id="index settings a list"),
        pytest.param(document(collection_uid="../../etc"), id="a uid that leads out"),
        pytest.param(document(managed_by="me"), id="unknown manager"),
        pytest.param(document(schema_version=[]), id="schema version a list"),
        pytest.param(document(schema_version="2"), id="schema version in words"),
        pytest.param(document(payload_indexes=[{"field": "a", "type": "keyword"}] * 2), id="a field twice"),
        pytest.param(document(dropped_at=7), id="a mark that is no time"),
        pytest.param(document(resource_uid=7), id="a resource uid that is a number"),
        pytest.param(document(generation="3"), id="a generation in words"),
    ],
)
def test_broken_manifest_is_told_with_its_file(tmp_path, raw):
    put(tmp_path / "incidents", raw)
    with pytest.raises(DamagedFile, match=r"metadata\.json"):
        read_manifest(tmp_path / "incidents")


def test_missing_manifest_is_none(tmp_path):
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "nothing") is None


def test_times_of_creation_and_change_are_kept_by_whoever_writes(tmp_path):
    layout = Layout(tmp_path)
    _, made = update_manifest(layout, "notes", lambda found: MANIFEST)
    assert made.created_at == made.updated_at is not None
    before, after = update_manifest(layout, "notes", lambda found: dataclasses.replace(found, owner="me"))
    assert before == made
    assert after.created_at == made.created_at
    assert read_manifest(tmp_path / "notes") == after


def test_decision_that_raises_changes_nothing(tmp_path):
    layout = Layout(tmp_path)
    update_manifest(layout, "notes", lambda found: MANIFEST)
    raw = (tmp_path / "notes" / "metadata.json").read_bytes()

    def refuse(found):
        raise NotFound("no")

    with pytest.raises(NotFound):
        update_manifest(layout, "notes", refuse)
    assert (tmp_path / "notes" / "metadata.json").read_bytes() == raw


def test_manifest_that_finds_no_room_leaves_the_old_one(tmp_path, monkeypatch):
    layout = Layout(tmp_path)
    _, made = update_manifest(layout, "notes", lambda found: MANIFEST)
    disk = RecordedDisk(monkeypatch)
    disk.fail("write metadata.json.tmp", 28)
    with pytest.raises(DiskFull):
        update_manifest(layout, "notes", lambda found: dataclasses.replace(found, owner="me"))
    assert read_manifest(tmp_path / "notes") == made
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["metadata.json"]


# Identity ------------------------------------------------------------------------------------------------


@pytest.fixture
def notes(tmp_path):
    opened = StoreOnDisk(tmp_path / "data")
    opened.put(a=1)
    yield opened
    opened.close()


def test_manifest_without_a_uid_takes_the_headers(notes):
    """A manifest that was lost, and written again by hand, serves the vectors next to it."""
    notes.close()
    write_manifest(notes.folder, MANIFEST)
    again = StoreOnDisk(notes.data)
    assert again.points() == {"a": 1}
    assert read_manifest(notes.folder).collection_uid == notes.manifest.collection_uid
    again.close()


def test_manifest_with_another_uid_is_damage(notes):
    notes.close()
    write_manifest(notes.folder, dataclasses.replace(MANIFEST, collection_uid="f" * 32))
    with pytest.raises(DamagedFile, match="belongs to incarnation"):
        StoreOnDisk(notes.data)


@pytest.mark.parametrize(
    "change",
    [{"dimension": 5}, {"distance_metric": DistanceMetric.COSINE}, {"vector_type": VectorType.FLOAT16}],
    ids=str,
)
def test_manifest_with_another_shape_is_damage(notes, change):
    notes.close()
    write_manifest(notes.folder, dataclasses.replace(notes.manifest, **change))
    with pytest.raises(DamagedFile, match="but the manifest says"):
        StoreOnDisk(notes.data)


@pytest.mark.parametrize("name", ["vectors.bin", "points.db"])
@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
def test_missing_data_file_beside_a_uid_is_damage_not_an_empty_collection(notes, name, content):
    notes.checkpoint()
    notes.close()
    (notes.folder / name).unlink()
    if content is not None:
        (notes.folder / name).write_bytes(content)
    with pytest.raises(DamagedFile, match="missing or empty, though the collection held data"):
        StoreOnDisk(notes.data)


@pytest.mark.parametrize("log_too", [True, False], ids=["the log gone too", "the log there"])
def test_rows_without_their_table_are_damage_even_without_a_uid(notes, log_too):
    """A manifest written by hand does not start rows again that lost their table."""
    notes.checkpoint()
    notes.close()
    write_manifest(notes.folder, MANIFEST)
    (notes.folder / "points.db").unlink()
    if log_too:
        for path in notes.log_folder.iterdir():
            path.unlink()
    with pytest.raises(DamagedFile, match="missing or empty"):
        StoreOnDisk(notes.data)


def test_table_without_its_rows_is_damage_even_without_a_uid(notes):
    notes.checkpoint()
    notes.close()
    write_manifest(notes.folder, MANIFEST)
    (notes.folder / "vectors.bin").unlink()
    with pytest.raises(DamagedFile, match="missing or empty"):
        StoreOnDisk(notes.data)


def test_files_of_a_first_write_that_crashed_are_begun_anew(tmp_path, monkeypatch):
    """They were made before the manifest got its uid, so nothing was ever acknowledged."""
    notes = StoreOnDisk(tmp_path / "data")
    disk = RecordedDisk(monkeypatch)
    disk.fail("write metadata.json.tmp")
    with pytest.raises(Exception, match="writing the manifest"):
        create_data_files(notes.layout, MANIFEST, notes.handles)
    assert (notes.folder / "vectors.bin").stat().st_size > 0
    again = notes.reopened()
    again.put(a=1)
    assert again.points() == {"a": 1}
    again.close()


def test_five_key_manifest_beside_empty_files_is_an_empty_collection(tmp_path):
    put(tmp_path / "data" / "incidents", SCHEMA_0.encode())
    for name in ("vectors.bin", "index.bin"):
        (tmp_path / "data" / "incidents" / name).write_bytes(b"")
    opened = StoreOnDisk(tmp_path / "data", parse_manifest(SCHEMA_0.encode()))
    assert opened.opened.store is None
    opened.close()


def test_first_use_of_a_dropped_collection_is_not_found(notes, tmp_path):
    mark_dropped(notes.layout, "notes")
    with pytest.raises(NotFound):
        create_data_files(notes.layout, MANIFEST, HandleCache(1))


def test_of_two_folders_with_one_uid_the_one_that_the_newest_segment_names_serves(notes):
    notes.close()
    shutil.copytree(notes.folder, notes.data / "twin")
    twin = dataclasses.replace(notes.manifest, name="twin")
    write_manifest(notes.data / "twin", twin)
    with pytest.raises(DamagedFile, match="also claimed by another folder, to which the log belongs"):
        StoreOnDisk(notes.data, twin, is_rival=True)
    again = StoreOnDisk(notes.data, notes.manifest, is_rival=True)
    assert again.points() == {"a": 1}
    again.close()


def test_renamed_folder_serves_under_its_new_name_and_its_log_says_so(notes):
    notes.close()
    notes.folder.rename(notes.data / "renamed")
    moved = dataclasses.replace(notes.manifest, name="renamed")
    write_manifest(notes.data / "renamed", moved)
    again = StoreOnDisk(notes.data, moved)
    assert again.points() == {"a": 1}
    assert decode_header(again.segment(1).read_bytes(), "").identity.name == "renamed"
    again.close()


@pytest.mark.parametrize("place", [0, 8, 20, 40, 3000, 4092])
def test_flipped_bit_in_the_header_page_of_the_rows_is_damage(notes, place):
    notes.close()
    raw = bytearray((notes.folder / "vectors.bin").read_bytes())
    raw[place] ^= 1
    (notes.folder / "vectors.bin").write_bytes(raw)
    with pytest.raises(DamagedFile, match=r"vectors\.bin at byte 0"):
        StoreOnDisk(notes.data)


def rewrite_header(notes, place, content):
    """Change the header page of the rows, with a checksum that fits."""
    path = notes.folder / "vectors.bin"
    raw = bytearray(path.read_bytes())
    raw[place : place + len(content)] = content
    raw[4092:4096] = struct.pack("<I", crc32c(bytes(raw[:4092])))
    path.write_bytes(raw)


def test_newer_rows_file_is_refused(notes):
    notes.close()
    rewrite_header(notes, 8, struct.pack("<I", 2))
    with pytest.raises(NewerFormat, match="version 2"):
        StoreOnDisk(notes.data)


@pytest.mark.parametrize(
    ("place", "content"),
    [(28, b"\0\0\0\0"), (32, b"\4"), (33, b"\3"), (36, b"\1\0\0\0"), (40, b"\0"), (41, b"../x")],
    ids=[
        "no dimension",
        "unknown metric",
        "unknown type",
        "another stride",
        "no name",
        "a name that leads out",
    ],
)
def test_header_page_that_names_what_cannot_be_is_damage(notes, place, content):
    notes.close()
    rewrite_header(notes, place, content)
    with pytest.raises(DamagedFile, match=r"vectors\.bin"):
        StoreOnDisk(notes.data)


def cut(name):
    return lambda notes: (notes.folder / name).write_bytes((notes.folder / name).read_bytes()[:200])


DAMAGE = {
    "rows cut": cut("vectors.bin"),
    "table cut": cut("points.db"),
    "table gone": lambda notes: (notes.folder / "points.db").unlink(),
    "rows gone": lambda notes: (notes.folder / "vectors.bin").unlink(),
    "another uid": lambda notes: write_manifest(
        notes.folder, dataclasses.replace(notes.manifest, collection_uid="f" * 32)
    ),
    "another shape": lambda notes: write_manifest(
        notes.folder, dataclasses.replace(notes.manifest, dimension=9)
    ),
    "newer rows": lambda notes: rewrite_header(notes, 8, struct.pack("<I", 2)),
    "log cut": lambda notes: notes.segment(1).write_bytes(notes.segment(1).read_bytes()[:100]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_nothing_is_written_before_every_check_has_passed(notes, damage):
    """The files of a quarantined collection stay as they were found, for the person who repairs it."""
    notes.close()
    damage(notes)
    before = {path: path.read_bytes() for path in notes.data.rglob("*") if path.is_file()}
    with pytest.raises((DamagedFile, NewerFormat)):
        StoreOnDisk(notes.data)
    assert {path: path.read_bytes() for path in notes.data.rglob("*") if path.is_file()} == before
