"""The file of aliases: what it holds comes back, and what differs from its checksum is damage."""

import dataclasses
import json
import re

import pytest

from tests.unit.recorded_disk import RecordedDisk
from tests.unit.store_on_disk import MANIFEST
from vecstow_engine.model.aliases import ALIASES_MAX, Alias, AliasTable
from vecstow_engine.model.errors import Conflict, DamagedFile, DiskFull, InvalidInput, NewerFormat
from vecstow_engine.model.manifest import ManagedBy
from vecstow_engine.storage import aliases as alias_file
from vecstow_engine.storage import files
from vecstow_engine.storage.aliases import (
    aliases_of,
    change_aliases,
    parse_aliases,
    read_aliases,
    refuse_alias_name,
    render_aliases,
)
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import mark_dropped, read_manifest, update_manifest

TABLE = AliasTable(
    {
        "docs": Alias("docs", "docs-v2", None, "2026-01-02T00:00:00.000Z"),
        "prod": Alias("prod", "docs-v1", "r-1", None, {"later": {"ü": [1.5]}}),
    },
    {"later \n key": "é\ud800"},
)


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path / "data")
    layout.data.mkdir()
    return layout


def test_what_is_written_is_read_back_with_keys_of_later_releases(layout):
    layout.aliases.write_bytes(render_aliases(TABLE))
    assert read_aliases(layout) == TABLE
    assert read_aliases(layout).names_of("docs-v1") == ("prod",)


def test_a_volume_without_the_file_has_no_aliases(layout):
    assert list(read_aliases(layout)) == []


def test_the_example_of_the_format_is_what_is_written():
    page = (alias_file.__file__.split("/engine/")[0]) + "/docs/storage-format.md"
    with open(page, encoding="utf-8") as stream:
        [example] = re.findall(r"## aliases\.json.*?```json\n(.*?)```", stream.read(), re.DOTALL)
    table = AliasTable({"docs": Alias("docs", "docs-v2", None, "2026-01-02T00:00:00.000Z")})
    assert render_aliases(table).decode() == example


def test_each_flipped_bit_is_found_or_changes_nothing(layout):
    raw = render_aliases(TABLE)
    for place in range(len(raw)):
        for bit in range(8):
            flipped = bytearray(raw)
            flipped[place] ^= 1 << bit
            try:
                assert parse_aliases(bytes(flipped), layout.aliases) == TABLE
            except (DamagedFile, NewerFormat):
                continue


def test_each_cut_is_found_but_that_of_the_last_newline(layout):
    raw = render_aliases(TABLE)
    for length in range(len(raw) - 1):
        with pytest.raises(DamagedFile):
            parse_aliases(raw[:length], layout.aliases)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param({"schema_version": 2}, NewerFormat, id="newer"),
        pytest.param({"schema_version": None}, DamagedFile, id="no version"),
        pytest.param({"checksum": None}, DamagedFile, id="no checksum"),
        pytest.param({"aliases": {"docs": {"collection": "other"}}}, DamagedFile, id="edited"),
    ],
)
def test_a_document_that_was_changed_is_refused(layout, change, error):
    document = json.loads(render_aliases(TABLE)) | change
    with pytest.raises(error) as raised:
        parse_aliases(json.dumps(document).encode(), layout.aliases)
    assert raised.value.hint


@pytest.mark.parametrize(
    "aliases",
    [
        pytest.param([], id="a list"),
        pytest.param({"docs": None}, id="null"),
        pytest.param({"docs": {}}, id="no collection"),
        pytest.param({"../x": {"collection": "a"}}, id="no name"),
        pytest.param({"wal": {"collection": "a"}}, id="reserved"),
        pytest.param({"docs": {"collection": "a/b"}}, id="no collection's name"),
        pytest.param({"docs": {"collection": "a", "resource_uid": 3}}, id="a number for a uid"),
        pytest.param({f"a{n}": {"collection": "a"} for n in range(ALIASES_MAX + 1)}, id="too many"),
    ],
)
def test_what_is_no_alias_is_damage_though_its_checksum_is_right(layout, monkeypatch, aliases):
    monkeypatch.setattr(alias_file, "_checksum", lambda document: "0" * 8)
    document = {"schema_version": 1, "checksum": "0" * 8, "aliases": aliases}
    with pytest.raises(DamagedFile):
        parse_aliases(json.dumps(document).encode(), layout.aliases)


def test_a_change_is_one_rename_between_two_syncs(layout, monkeypatch):
    change_aliases(layout, lambda table: table.with_alias(Alias("docs", "docs-v1")))
    disk = RecordedDisk(monkeypatch)
    before, after, _ = change_aliases(layout, lambda table: table.with_alias(Alias("docs", "docs-v2")))
    assert disk.steps[-4:] == [
        "write aliases.json.tmp",
        "sync aliases.json.tmp",
        "rename aliases.json.tmp -> aliases.json",
        "sync data/",
    ]
    assert before.by_name["docs"].collection == "docs-v1"
    assert read_aliases(layout) == after
    assert after.by_name["docs"].updated_at is not None


def test_no_change_writes_nothing_and_keeps_the_times(layout, monkeypatch):
    made = change_aliases(layout, lambda table: table.with_alias(Alias("docs", "docs-v1"))).after
    disk = RecordedDisk(monkeypatch)
    found = change_aliases(layout, lambda table: table)
    assert found[:2] == (made, made)
    assert not any("aliases" in step for step in disk.steps)


def test_a_full_disk_keeps_the_aliases_of_before(layout, monkeypatch):
    made = change_aliases(layout, lambda table: table.with_alias(Alias("docs", "docs-v1"))).after
    RecordedDisk(monkeypatch).fail("write aliases.json.tmp", number=28)
    with pytest.raises(DiskFull):
        change_aliases(layout, lambda table: table.without("docs"))
    assert read_aliases(layout) == made
    assert not files.temporary(layout.aliases).exists()


def test_one_more_than_the_limit_is_refused_and_a_switch_is_not():
    table = AliasTable({f"a{n}": Alias(f"a{n}", "docs") for n in range(ALIASES_MAX)})
    with pytest.raises(InvalidInput) as raised:
        table.with_alias(Alias("one-more", "docs"))
    assert raised.value.details["limit"] == ALIASES_MAX
    assert len(table.with_alias(Alias("a0", "other"))) == ALIASES_MAX


def test_no_collection_is_declared_under_the_name_of_an_alias(layout):
    change_aliases(layout, lambda table: table.with_alias(Alias(MANIFEST.name, "other")))
    with pytest.raises(Conflict, match="is an alias"):
        update_manifest(layout, MANIFEST.name, lambda found: MANIFEST)
    assert read_manifest(layout.collection(MANIFEST.name)) is None


def test_a_collection_that_an_alias_leads_to_is_not_marked_as_dropped(layout):
    update_manifest(layout, MANIFEST.name, lambda found: MANIFEST)
    change_aliases(layout, lambda table: table.with_alias(Alias("second", MANIFEST.name)))
    assert aliases_of(layout, MANIFEST.name) == ("second",)
    with pytest.raises(Conflict) as raised:
        mark_dropped(layout, MANIFEST.name)
    assert "DELETE /aliases/second" in raised.value.hint
    change_aliases(layout, lambda table: table.without("second"))
    assert mark_dropped(layout, MANIFEST.name).dropped_at is not None


def test_a_damaged_file_stops_neither_declarations_nor_drops(layout):
    layout.aliases.write_bytes(b"{")
    refuse_alias_name(layout, MANIFEST.name, "create")
    update_manifest(layout, MANIFEST.name, lambda found: MANIFEST)
    assert mark_dropped(layout, MANIFEST.name).dropped_at is not None
    declared = dataclasses.replace(MANIFEST, name="other", managed_by=ManagedBy.FILE)
    assert update_manifest(layout, "other", lambda found: declared)[1].name == "other"
