"""Which data files are still in their place."""

import errno

import pytest

from vecstow_engine.storage import handles
from vecstow_engine.storage.handles import DataFiles, missing_folder


@pytest.fixture
def folder(tmp_path):
    for name in ("vectors.bin", "points.db"):
        (tmp_path / name).write_text(name)
    return tmp_path


def test_nothing_is_missing_of_files_that_were_only_written_to(folder):
    found = DataFiles.of(folder)
    (folder / "vectors.bin").write_text("other bytes")
    (folder / "points.db").chmod(0o600)
    assert found.missing() is None


@pytest.mark.parametrize("name", ["vectors.bin", "points.db"])
def test_removed_file_is_missing(folder, name):
    found = DataFiles.of(folder)
    (folder / name).unlink()
    assert found.missing().file == str(folder / name)
    assert "it was removed or moved away" in found.missing().message


@pytest.mark.parametrize("name", ["vectors.bin", "points.db"])
def test_file_with_the_same_bytes_is_another_one(folder, name):
    found = DataFiles.of(folder)
    (folder / name).rename(folder / "aside")
    (folder / name).write_text(name)
    assert "another file came to its place" in found.missing().message
    (folder / "aside").replace(folder / name)
    assert found.missing() is None


def test_disk_that_does_not_answer_says_nothing_of_what_is_missing(folder, monkeypatch):
    found = DataFiles.of(folder)

    def refuse(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(handles, "_extended", refuse)
    assert found.missing() is None


def test_folder_is_missing_when_nothing_or_a_file_has_its_name(folder):
    assert missing_folder(folder) is None
    assert missing_folder(folder / "none").file == str(folder / "none")
    assert missing_folder(folder / "points.db") is not None
