"""Names of folders are durable before anything relies on them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.volume import Volume


@pytest.fixture
def notes(tmp_path):
    store = StoreOnDisk(tmp_path / "data")
    store.put(a=1)
    yield store
    store.close()


def test_data_directory_is_durable_with_all_folders_made_above_it(tmp_path, disk):
    Volume(Layout(tmp_path / "srv" / "data"), 0).close()
    assert {f"sync {tmp_path.name}/", "sync srv/", "sync data/"} <= set(disk.steps)


def test_folders_found_at_the_start_are_made_durable(notes, disk):
    """The process that made them may have been killed before it synced their parents."""
    disk.clear()
    Volume(notes.layout, 0).close()
    assert disk.matching("sync */") == ["sync data/", "sync wal/", "sync data/"]


def test_folder_whose_name_could_not_be_made_durable_is_not_taken_for_one_that_is(tmp_path, disk):
    disk.fail(f"sync {tmp_path.name}/")
    with pytest.raises(files.SyncFailed):
        files.make_folder(tmp_path / "wal")
    assert not (tmp_path / "wal").exists()
    disk.clear()
    files.make_folder(tmp_path / "wal")
    assert disk.steps == [f"sync {tmp_path.name}/"]


def test_nobody_relies_on_a_folder_before_its_name_is_durable(tmp_path, monkeypatch):
    """One of two first writes on a new volume makes `wal/`; both are acknowledged."""
    syncing, goes_on = threading.Event(), threading.Event()
    real = files.sync_folder

    def slow_sync(folder):
        syncing.set()
        assert goes_on.wait(20)
        real(folder)

    monkeypatch.setattr(files, "sync_folder", slow_sync)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(files.make_folder, tmp_path / "wal")
        assert syncing.wait(20)
        second = threads.submit(files.make_folder, tmp_path / "wal")
        with pytest.raises(TimeoutError):
            second.result(timeout=0.05)
        goes_on.set()
        first.result(20)
        second.result(20)
