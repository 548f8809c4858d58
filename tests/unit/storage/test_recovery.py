"""Recovery observes and plans before it writes: a collection that is refused keeps every byte."""

import contextlib
import dataclasses
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.model.errors import Busy, DamagedFile, Foreign, NewerFormat, VecstowError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.storage import recovery as applying
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import read_manifest, write_manifest
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.writer import rewrite_meta
from vecstow_engine.storage.recovery import open_store


@pytest.fixture
def crashed(tmp_path):
    """A volume with all that recovery finishes: a `-wal`, a temporary, a torn tail, records to replay."""
    store = StoreOnDisk(tmp_path / "data")
    store.put(a=1, b=2)
    store.checkpoint()
    store.put(c=3)
    store.put(d=4)
    store.close()
    keep_journal(store.folder / "points.db")
    (store.folder / "vectors.bin.tmp").write_bytes(b"half")
    with max(store.log_folder.glob("*.log")).open("ab") as segment:
        segment.write(b"torn")
    return store


def keep_journal(table: Path) -> None:
    """Leave a commit in `-wal`, as a crash before the table had it does."""
    wal = table.with_name("points.db-wal")
    kept = wal.with_name("kept")
    with contextlib.closing(sqlite3.connect(table, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("UPDATE meta SET applied = applied + 1")  # SQLite writes no page that stays equal
        connection.execute("UPDATE meta SET applied = applied - 1")
        shutil.copy(wal, kept)
        shutil.copy(table, kept.with_name("before"))
    kept.rename(wal)
    kept.with_name("before").rename(table)
    assert wal.stat().st_size


def content(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def opened(data: Path, name: str = "notes", **changes):
    layout = Layout(data)
    found = read_manifest(layout.collection(name))
    assert found is not None
    return open_store(layout, dataclasses.replace(found, **changes), HandleCache(2), is_rival=name != "notes")


def another(tmp_path: Path) -> StoreOnDisk:
    store = StoreOnDisk(tmp_path / "other", Manifest("notes", 4, DistanceMetric.EUCLIDEAN))
    store.put(x=1)
    store.checkpoint()
    store.close()
    return store


def exchange_table(store, tmp_path):
    for end in ("", "-wal"):
        (store.folder / f"points.db{end}").unlink()
    shutil.copy(another(tmp_path).folder / "points.db", store.folder)


def exchange_log(store, tmp_path):
    for segment in another(tmp_path).log_folder.glob("*.log"):
        shutil.copy(segment, store.log_folder / f"{9:020d}.log")


def lose_a_record(store, tmp_path):
    """The record of `d` says that the one before it was durable, and no segment has that."""
    segments = sorted(store.log_folder.glob("*.log"))
    record = segments[-1].read_bytes()
    flip(segments[-1], record.index(b"c", 100))


def damage_the_table(store, tmp_path):
    (store.folder / "points.db-wal").unlink()
    with contextlib.closing(sqlite3.connect(store.folder / "points.db")) as connection:
        connection.execute("UPDATE points SET checksum = checksum + 1 WHERE id = 'a'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    keep_journal(store.folder / "points.db")


def newer_table(store, tmp_path):
    with contextlib.closing(sqlite3.connect(store.folder / "points.db")) as connection:
        connection.execute("UPDATE meta SET version = 99")
        connection.commit()
    keep_journal(store.folder / "points.db")


def change_manifest(**changes):
    return lambda store, tmp_path: changes


REFUSALS = {
    "a manifest of another incarnation": (change_manifest(collection_uid="0" * 32), DamagedFile),
    "a manifest of another shape": (change_manifest(dimension=5), DamagedFile),
    "a table of another incarnation": (exchange_table, DamagedFile),
    "a segment of another incarnation": (exchange_log, DamagedFile),
    "a lost record": (lose_a_record, DamagedFile),
    "a table of two moments": (damage_the_table, DamagedFile),
    "a table of a later release": (newer_table, NewerFormat),
    "rows cut short": (lambda store, _: cut(store.folder / "vectors.bin", 4096), DamagedFile),
    "no rows": (lambda store, _: (store.folder / "vectors.bin").unlink(), DamagedFile),
    "no table": (lambda store, _: (store.folder / "points.db").unlink(), DamagedFile),
    "a damaged header of the rows": (lambda store, _: flip(store.folder / "vectors.bin", 30), DamagedFile),
}


def flip(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refused_collection_keeps_every_byte(crashed, tmp_path, refusal):
    spoil, error = REFUSALS[refusal]
    changes = spoil(crashed, tmp_path)
    before = content(crashed.data)
    with pytest.raises(error):
        opened(crashed.data, **(changes if isinstance(changes, dict) else {}))
    assert content(crashed.data) == before


def test_a_copy_that_claims_the_uid_keeps_every_byte(crashed):
    """The newest segment belongs to `notes`."""
    copy = shutil.copytree(crashed.folder, crashed.folder.with_name("copy"))
    (copy / "metadata.json").unlink()
    write_manifest(copy, dataclasses.replace(crashed.manifest, name="copy"))
    before = content(crashed.data)
    with pytest.raises(DamagedFile, match="also claimed by another folder"):
        opened(crashed.data, "copy")
    assert content(crashed.data) == before


def test_files_of_another_program_keep_every_byte(tmp_path):
    store = StoreOnDisk(tmp_path / "data")
    store.close()
    (store.folder / "vectors.bin").write_bytes(b"another program's rows" * 400)
    before = content(store.data)
    with pytest.raises(Foreign):
        opened(store.data)
    assert content(store.data) == before


def test_an_accepted_collection_is_finished(crashed):
    """Every part of the fixture is one that recovery acts on: else the tests above would show nothing."""
    result = opened(crashed.data)
    assert result.store is not None
    assert result.store.count == 4
    result.store.close()
    assert not (crashed.folder / "points.db-wal").exists()
    assert not (crashed.folder / "vectors.bin.tmp").exists()
    assert list((crashed.data / ".quarantine").glob("*/*.torn-at-*"))


def test_a_failing_step_of_apply_leaves_the_log_for_the_next_attempt(crashed, disk):
    before = {path.name: path.read_bytes() for path in crashed.log_folder.glob("*.log")}
    disk.fail("unlink vectors.bin.tmp")
    with pytest.raises((OSError, VecstowError)):
        opened(crashed.data)
    assert {path.name: path.read_bytes() for path in crashed.log_folder.glob("*.log")} == before
    result = opened(crashed.data)
    assert result.store is not None
    assert result.store.count == 4
    result.store.close()


def test_a_table_that_changed_between_reading_and_folding_is_opened_later(crashed, monkeypatch):
    """After a failed writeback the page cache may drop frames of `-wal` once they were read."""
    real = applying.fold_journal

    def fold_without_the_last_frames(path):
        assert real(path)
        with contextlib.closing(PointTable(path, at_rest=True)) as table:
            rewrite_meta(path, dataclasses.replace(table.meta(), applied=0))
        return True

    with monkeypatch.context() as patch:
        patch.setattr(applying, "fold_journal", fold_without_the_last_frames)
        with pytest.raises(Busy, match="changed while it was opened"):
            opened(crashed.data)
