"""Rules 1 and 2: one module writes, and it replaces a file so that either the old or the new one is there."""

import ast
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

import vecstow_engine
from tests.unit.recorded_disk import RecordedDisk
from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.model.errors import DiskFull, StorageError, as_storage_error
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import make_backup
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import manifests_locked
from vecstow_engine.storage.trash import move_to_deleted
from vecstow_engine.storage.volume import Volume

PACKAGE = Path(vecstow_engine.__file__).parent
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))

WRITING_OS = {
    "write", "writev", "pwrite", "pwritev", "truncate", "ftruncate", "fsync", "fdatasync", "sync",
    "sendfile", "copy_file_range", "posix_fallocate", "rename", "renames", "replace", "remove", "unlink",
    "removedirs", "rmdir", "mkdir", "makedirs", "mkfifo", "mknod", "link", "symlink", "chmod", "fchmod",
    "chown", "utime", "fdopen",
}  # fmt: skip
WRITING_METHODS = {
    "write_text", "write_bytes", "unlink", "rmdir", "mkdir", "touch", "hardlink_to", "symlink_to", "tofile",
    "save_index", "savez", "copyfileobj", "flush",
}  # fmt: skip
WRITING_MODULES = {"mmap", "shutil", "tempfile"}
ALLOWED = {
    # The standard streams: no file of the volume may get the descriptor of one that is closed.
    "cli/output.py": {
        "os.open(os.devnull, os.O_RDWR)", "os.open(os.devnull, os.O_WRONLY)", "os.fdopen", "flush",
    },
    "index/hnsw.py": {"save_index"},  # hnswlib's own: to a temporary file, in a forked child
    "storage/points/reader.py": {"import tempfile"},  # a private copy outside the volume
}  # fmt: skip
"""The writing calls that each module but storage/files.py may make."""


def dotted(node: ast.AST) -> str:
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def opening_mode(call: ast.Call, position: int) -> str:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] + call.args[position:]
    return ast.literal_eval(given[0]) if given and isinstance(given[0], ast.Constant) else "r"


def suspicious(node: ast.AST) -> str | None:
    """Return the operation of this node that writes to the file system, or could; None without one."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        return next((f"import {name}" for name in names if name in WRITING_MODULES), None)
    if not isinstance(node, ast.Call):
        return None
    name = dotted(node.func)
    method = name.rpartition(".")[2] or getattr(node.func, "attr", "")
    if name.startswith("os.") and method in WRITING_OS:
        return name
    if name == "os.open":
        flags = ast.unparse(node)
        return None if "O_RDONLY" in flags and "O_CREAT" not in flags else flags
    if method in WRITING_METHODS:
        return method
    if method in ("open", "open_memmap") and name not in ("files.open", "webbrowser.open"):
        mode = opening_mode(node, 1 if name == "open" or "." in name.rpartition(".")[0] else 0)
        return f"open {mode}" if set(mode) & set("wax+") else None
    if method == "memmap":
        return None if ast.unparse(node).count("'r'") else ast.unparse(node)
    return None


def writings(module: str) -> set[str]:
    tree = ast.parse((PACKAGE / module).read_text())
    return {found for node in ast.walk(tree) if (found := suspicious(node)) is not None}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "storage/files.py"])
def test_rule_01_only_one_module_writes(module):
    """SQLite's own writes apart, which `storage.points` asks for."""
    assert writings(module) == ALLOWED.get(module, set())


def test_rule_01_the_test_above_sees_writes():
    """The search for writes finds those of the one module that has them."""
    found = writings("storage/files.py")
    assert {"os.pwritev", "os.fsync", "os.fdatasync", "os.rename", "os.unlink"} <= found


@pytest.mark.parametrize(
    "module", [module for module in MODULES if not module.startswith(("storage/", "doctor/"))]
)
def test_rule_01_only_storage_and_its_doctor_speak_to_sqlite(module):
    assert "sqlite3" not in (PACKAGE / module).read_text()


def test_rule_01_nothing_writes_through_mmap():
    for module in MODULES:
        text = (PACKAGE / module).read_text()
        assert "import mmap" not in text, module
        for mode in ("r+", "w+", "c"):
            assert f'"{mode}"' not in "".join(line for line in text.splitlines() if "memmap" in line), module


def test_rule_01_sqlite_never_maps_the_database():
    assert "PRAGMA mmap_size=0" in (PACKAGE / "storage" / "points" / "writer.py").read_text()


def test_rule_02_replace_writes_a_temporary_file_syncs_renames_and_syncs_the_folder(tmp_path, disk):
    files.replace_file(tmp_path / "f", [b"new ", b"content"])
    assert (tmp_path / "f").read_bytes() == b"new content"
    assert disk.steps == [
        "create f.tmp", "write f.tmp", "sync f.tmp", "rename f.tmp -> f", f"sync {tmp_path.name}/",
    ]  # fmt: skip


@pytest.mark.parametrize("step", ["create f.tmp", "write f.tmp", "sync f.tmp", "rename *"])
def test_rule_02_failed_replace_leaves_the_old_content(tmp_path, disk, step):
    (tmp_path / "f").write_bytes(b"old")
    disk.fail(step)
    with pytest.raises(OSError, match="Input/output"):
        files.replace_file(tmp_path / "f", [b"new"])
    assert (tmp_path / "f").read_bytes() == b"old"


@pytest.mark.parametrize("step", ["write f.tmp", "sync f.tmp"])
def test_rule_02_temporary_file_that_failed_is_thrown_away_and_may_be_tried_again(tmp_path, disk, step):
    disk.fail(step)
    with pytest.raises(OSError, match="Input/output"):
        files.replace_file(tmp_path / "f", [b"new"])
    assert list(tmp_path.iterdir()) == []
    files.replace_file(tmp_path / "f", [b"new"])
    assert (tmp_path / "f").read_bytes() == b"new"


def test_rule_02_failed_sync_of_the_folder_is_told_apart(tmp_path, disk):
    """The file has its name then, so trying again would prove nothing."""
    disk.fail(f"sync {tmp_path.name}/")
    with pytest.raises(files.SyncFailed):
        files.replace_file(tmp_path / "f", [b"new"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda old, new: files.replace_file(new, [b"other"]), id="replace"),
        pytest.param(lambda old, new: files.rename(old, new), id="rename"),
    ],
)
def test_rule_02_name_is_not_changed_when_its_folder_cannot_be_opened_to_be_synced(
    tmp_path, monkeypatch, change
):
    """As when descriptors are spent: an error that is no failed sync says that nothing happened."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")

    def spent(path, flags, *mode):
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, "Too many open files")
        return os.open(path, flags, *mode)

    disk = RecordedDisk(monkeypatch)
    monkeypatch.setattr(disk, "open", spent)
    with pytest.raises(OSError, match="Too many open files"):
        change(old, new)
    assert (old.read_bytes(), new.read_bytes()) == (b"old", b"new")


def test_rule_02_temporary_file_of_a_crash_is_written_anew(tmp_path):
    (tmp_path / "f.tmp").write_bytes(b"what a crash left, and longer")
    files.replace_file(tmp_path / "f", [b"new"])
    assert (tmp_path / "f").read_bytes() == b"new"


def test_rule_02_folder_is_made_durable_in_its_parent(tmp_path, disk):
    files.make_folder(tmp_path / "a")
    assert disk.steps == [f"sync {tmp_path.name}/"]
    files.make_folder(tmp_path / "a")
    assert len(disk.steps) == 1


def test_rule_02_rename_across_folders_syncs_both(tmp_path, disk):
    for name in "ab":
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "f").write_bytes(b"x")
    files.rename(tmp_path / "a" / "f", tmp_path / "b" / "g")
    assert disk.steps == ["rename f -> g", "sync b/", "sync a/"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000], ids=oct)
def test_rule_02_files_are_0640_and_folders_0750_at_most(tmp_path, umask):
    """Only the owner and the group may read vectors and payloads."""
    old = os.umask(umask)
    try:
        volume = Volume(Layout(tmp_path / "data"), reserve_bytes=4096)
        notes = StoreOnDisk(tmp_path / "data")
        notes.put(a=1)
        notes.checkpoint()
        notes.put(b=2)
        make_backup(notes.layout, notes.manifest)
        modes = {
            str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
            for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]
        }
        wanted = {name: (0o750 if (tmp_path / name).is_dir() else 0o640) & ~umask for name in modes}
        move_to_deleted(notes.layout, "notes", notes.manifest.collection_uid)
        notes.close()
        volume.close()
    finally:
        os.umask(old)
    assert len(modes) > 15
    assert modes == wanted


def test_short_writes_go_on_where_they_stopped(tmp_path, disk):
    disk.fail("write f", times=0)
    fd = files.open_new(tmp_path / "f")
    real = os.pwritev
    disk.pwritev = lambda fd, parts, offset: real(fd, [b"".join(parts)[:3]], offset)
    try:
        assert files.write_at(fd, 2, [b"abcd", b"", b"efghij", memoryview(b"k")]) == 11
    finally:
        os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"\0\0abcdefghijk"


def test_more_parts_than_one_call_takes_are_all_written(tmp_path):
    fd = files.open_new(tmp_path / "f")
    try:
        assert files.write_at(fd, 0, [b"%04d" % i for i in range(3000)]) == 12_000
    finally:
        os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"".join(b"%04d" % i for i in range(3000))


def test_full_disk_and_quota_are_one_error():
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert isinstance(as_storage_error(OSError(number, "x"), "writing"), DiskFull)
    assert isinstance(as_storage_error(OSError(errno.EIO, "x"), "writing"), StorageError)


def test_copied_file_is_synced_before_its_folder(tmp_path, disk):
    (tmp_path / "f").write_bytes(b"x" * (files.COPY_BYTES + 5))
    files.copy_file(tmp_path / "f", tmp_path / "g")
    assert (tmp_path / "g").read_bytes() == (tmp_path / "f").read_bytes()
    assert disk.steps == ["create g", "write g", "write g", "sync g"]


def test_manifests_lock_lets_one_in_at_a_time(tmp_path):
    layout = Layout(tmp_path)
    order = []
    inside = threading.Event()

    def second():
        inside.wait()
        with manifests_locked(layout):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with manifests_locked(layout):
        inside.set()
        thread.join(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
