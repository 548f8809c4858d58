"""All writes to the volume: the only module that calls `os` to write.

Tests replace these functions to inject faults. Errors are the OSErrors of the calls, unchanged; a failed sync
is never retried here. Rule 2 of the disk: write a temporary file, sync it, rename it, sync the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Final

FILE_MODE: Final = 0o640
FOLDER_MODE: Final = 0o750
SECRET_FILE_MODE: Final = 0o600
SECRET_FOLDER_MODE: Final = 0o700
TEMPORARY_SUFFIX: Final = ".tmp"
COPY_BYTES: Final = 1 << 20

_IOV_MAX: Final = 1024
_making_folder: Final = threading.Lock()
_interruption: ContextVar[Callable[[], None]] = ContextVar("interruption", default=lambda: None)


class SyncFailed(OSError):
    """Raised when a sync of a file or folder that has its name failed; the sync must not be retried."""


@contextlib.contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Set the check that long work inside the block calls between two steps; it raises to end the work."""
    token = _interruption.set(check)
    try:
        yield
    finally:
        _interruption.reset(token)


def check_interruption() -> None:
    """Call the check of `interruptible` in this thread; do nothing when no check is set."""
    _interruption.get()()


def open_new(path: Path, mode: int = FILE_MODE) -> int:
    """Create `path`, which must not exist, for reading and writing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def open_existing(path: Path) -> int:
    """Open `path`, which must exist, for reading and writing."""
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def open_or_create(path: Path) -> int:
    """Open `path` for reading and writing; create the file when it is missing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)


def write_at(fd: int, offset: int, parts: Sequence[bytes | bytearray | memoryview]) -> int:
    """Write all `parts` one after another at `offset`, across short writes; return the number of bytes."""
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    total = sum(len(view) for view in views)
    position = offset
    while views:
        written = os.pwritev(fd, views[:_IOV_MAX], position)
        position += written
        views = _drop_bytes(views, written)
    return total


def write_parts(fd: int, parts: Iterable[bytes | memoryview]) -> int:
    """Write `parts` from the start of the file, as they arrive; return the number of bytes."""
    position = waiting_bytes = 0
    waiting: list[bytes | memoryview] = []
    for part in parts:
        waiting.append(part)
        waiting_bytes += memoryview(part).nbytes
        if waiting_bytes >= COPY_BYTES:
            position += write_at(fd, position, waiting)
            waiting, waiting_bytes = [], 0
    return position + write_at(fd, position, waiting)


def data_sync(fd: int) -> None:
    """Call fdatasync: data and length are durable when this returns."""
    with _sync_errors():
        os.fdatasync(fd)


def sync(fd: int) -> None:
    """Call fsync: data, length and metadata are durable when this returns."""
    with _sync_errors():
        os.fsync(fd)


def truncate(fd: int, length: int) -> None:
    """Cut or extend the open file to `length` bytes."""
    os.ftruncate(fd, length)


def allocate(fd: int, length: int) -> None:
    """Reserve blocks for the first `length` bytes; a shorter file grows to this length."""
    os.posix_fallocate(fd, 0, length)


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """Yield an open descriptor, and close it at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


def opened_folder(folder: Path) -> AbstractContextManager[int]:
    """Open a folder for a sync; yield its descriptor."""
    return closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def sync_folder(folder: Path) -> None:
    """Call fsync on the folder, so that the names in it are durable."""
    with opened_folder(folder) as fd:
        sync(fd)


def sync_file(path: Path) -> None:
    """Call fsync on a file that another writer closed."""
    with closing(open_existing(path)) as fd:
        sync(fd)


def make_folders(folder: Path, mode: int = FOLDER_MODE) -> None:
    """Create `folder` and its missing parents, durably; used for the root of a volume."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create `folder` and make its name durable; do nothing when it exists.

    Other callers wait until the name is durable. A failed sync removes the folder. After a crash the name may
    not be durable; `Volume` syncs it at the next start.
    """
    with _making_folder:
        if folder.is_dir():
            return
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        try:
            sync_folder(folder.parent)
        except OSError:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
            raise


def temporary(path: Path) -> Path:
    """Return the name under which the next content of `path` is written."""
    return path.with_name(path.name + TEMPORARY_SUFFIX)


def publish(temporary_path: Path, path: Path) -> None:
    """Rename a synced temporary file to its name, and make the name durable.

    The folder is opened before the rename. Otherwise a lack of descriptors could leave a rename without a
    sync.
    """
    with opened_folder(path.parent) as fd:
        os.rename(temporary_path, path)
        sync(fd)


def replace_file(path: Path, parts: Sequence[bytes | bytearray], mode: int = FILE_MODE) -> None:
    """Make `parts` the whole content of `path`, durably; on an error the old content stays."""
    with new_file(path, mode) as fd:
        write_at(fd, 0, parts)


@contextlib.contextmanager
def new_file(path: Path, mode: int = FILE_MODE) -> Iterator[int]:
    """Yield a descriptor of the temporary file of `path`; at the end sync and rename that file.

    An error inside the block, or in the sync, removes the temporary file, which has no final name yet.
    """
    unnamed = temporary(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unnamed)
    fd = open_new(unnamed, mode)
    try:
        with closing(fd):
            yield fd
            os.fsync(fd)
    except BaseException:
        remove(unnamed)
        raise
    publish(unnamed, path)


def rename(source: Path, target: Path) -> None:
    """Rename, then sync both parents. Both are opened first, for the reason given in `publish`."""
    with contextlib.ExitStack() as stack:
        parents = dict.fromkeys((target.parent, source.parent))
        opened = [stack.enter_context(opened_folder(parent)) for parent in parents]
        os.rename(source, target)
        for fd in opened:
            sync(fd)


def remove(path: Path) -> None:
    """Unlink `path` if it exists; the removal is durable only after a sync of the folder."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(folder: Path) -> None:
    """Remove `folder` with everything below it, durably; do nothing when it does not exist.

    At most one descriptor is open at a time, so that this works when descriptors are scarce.
    """
    if folder.is_dir():
        _unlink_tree(folder)
        sync_folder(folder.parent)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to a new file and sync that; the caller syncs the folder."""
    with source.open("rb") as stream, closing(open_new(target)) as fd:
        write_parts(fd, _blocks(stream))
        os.fsync(fd)


def copy_end(source: Path, offset: int, target: Path) -> None:
    """Make the bytes of `source` from `offset` on the whole content of `target`, durably."""
    with source.open("rb") as stream, new_file(target) as fd:
        stream.seek(offset)
        write_parts(fd, _blocks(stream))


def link_file(source: Path, target: Path) -> None:
    """Give a second name to a file that is never written again; the caller syncs the folder."""
    os.link(source, target)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold flock(2) on `path`; create the file when it is missing, and wait for the lock."""
    with closing(open_or_create(path)) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd


def is_locked(path: Path) -> bool:
    """Whether an open file holds an exclusive flock(2) on `path`."""
    try:
        with closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _unlink_tree(folder: Path) -> None:
    for name in os.listdir(folder):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            _unlink_tree(path)
        else:
            os.unlink(path)
    os.rmdir(folder)


@contextlib.contextmanager
def _sync_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SyncFailed(error.errno, f"{error.strerror} (sync)") from error


def _drop_bytes(views: list[memoryview], count: int) -> list[memoryview]:
    for index, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[index + 1 :]]
        count -= len(view)
    return []


def _blocks(stream: IO[bytes]) -> Iterable[bytes]:
    while block := stream.read(COPY_BYTES):
        check_interruption()
        yield block
