"""The data directory as a whole: its lock, its id, its file system and its reserve of space."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shlex
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import DiskFull, VolumeHeld, VolumeRefused, VolumeServed
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS, Layout

NETWORK_FILE_SYSTEMS: Final = {
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB2",
    0x517B: "SMB",
    0x01021997: "9p",
}
"""Values of statfs(2) `f_type`: on these file systems neither flock nor fsync is reliable."""
VOLUME_ID: Final = re.compile(rb"[0-9a-f]{32}\n?")
"""The content of `VOLUME`."""
RESERVE_SHARE_MAX: Final = 0.02
"""The largest share of the volume's size that the reserve may take."""
SPARE_BYTES: Final = 1 << 20
"""Extra bytes that a copy leaves for folders, the first log segment and reports."""
DATA_HINT: Final = "--data names the directory that an engine uses"


@dataclass(frozen=True, slots=True)
class Room:
    """The space of a file system."""

    total_bytes: int
    available_bytes: int
    """Bytes available to users other than root."""


class Volume:
    """An opened data directory: locked for this process until `close`."""

    def __init__(self, layout: Layout, reserve_bytes: int, *, allow_network: bool = False) -> None:
        self.layout = layout
        self._reserve_bytes = reserve_bytes
        self.full = False
        """Whether the reserve was freed and could not be filled again yet."""
        _prepare(layout.data)
        if not allow_network:
            _refuse_network(layout.data)
        self._lock_fd = _take_lock(layout.lock)
        self._held = contextlib.ExitStack()
        """The lock by which other programs see that no drop may begin."""
        try:
            self._sync_folders()
            self.id = self._read_id()
            self.fill_reserve()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the volume for another engine."""
        self._held.close()
        os.close(self._lock_fd)

    def keep_drops_off(self) -> None:
        """Forbid new marks of drops until `let_drops`; wait for a mark that is being written."""
        with files.locked(self.layout.manifests_lock):
            if not files.is_locked(self.layout.volume_id):
                self._held.enter_context(files.locked(self.layout.volume_id))

    def let_drops(self) -> None:
        """Allow the marks of drops again."""
        self._held.close()

    def release_reserve(self) -> bool:
        """Free the reserved bytes, so that a delete, drop or checkpoint finds room.

        Returns False when none are left.
        """
        try:
            if self.layout.reserve.stat().st_size == 0:
                return False
            with files.closing(files.open_existing(self.layout.reserve)) as fd:
                files.truncate(fd, 0)
        except FileNotFoundError:
            return False
        self.full = True
        return True

    def fill_reserve(self) -> bool:
        """Reserve the bytes again when there is ample room; return whether they are reserved."""
        filled = self._fill_reserve()
        self.full = self.full and not filled
        return filled

    def _fill_reserve(self) -> bool:
        room = self.room()
        wanted = min(self._reserve_bytes, int(room.total_bytes * RESERVE_SHARE_MAX))
        if wanted == 0:
            return True
        path = self.layout.reserve
        if path.exists() and path.stat().st_size >= wanted:
            return True
        if room.available_bytes < 4 * wanted:
            return False
        return _allocate(path, wanted)

    def room(self) -> Room:
        """Return the total and available bytes of the file system."""
        stats = os.statvfs(self.layout.data)
        return Room(stats.f_blocks * stats.f_frsize, stats.f_bavail * stats.f_frsize)

    def _sync_folders(self) -> None:
        """Sync the folders: after a crash, the names in them may not be durable."""
        for folder in (self.layout.data, self.layout.logs):
            if folder.is_dir():
                files.sync_folder(folder)

    def _read_id(self) -> str:
        path = self.layout.volume_id
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raw = uuid.uuid4().hex.encode() + b"\n"
            files.replace_file(path, [raw])
        if VOLUME_ID.fullmatch(raw) is None:
            message = f"{path} holds {raw[:40]!r}, not the 32 hex digits of a volume's id"
            hint = f"put it back from a copy; or remove it, and the volume counts as a new one: rm {path}"
            raise VolumeRefused(message, hint=hint)
        return raw.decode().rstrip()


def is_volume(folder: Path) -> bool:
    """Whether an engine used a folder as its data directory: it has the volume's id or its lock."""
    layout = Layout(folder)
    return os.path.isfile(layout.volume_id) or os.path.isfile(layout.lock)


def stopped_volume(data: Path) -> Layout:
    """Return the layout of a volume without an engine.

    Raises VolumeRefused when `data` is not a folder, or clearly not a data directory.
    """
    refuse_no_folder(data)
    _refuse_misplaced(data)
    return Layout(data.absolute())


def refuse_no_folder(data: Path) -> None:
    """Raise VolumeRefused when `data` is not a folder."""
    if not data.is_dir():
        raise VolumeRefused(f"{data} is no folder", hint=DATA_HINT)


def _refuse_misplaced(data: Path) -> None:
    """Raise VolumeRefused for the folder of a collection, and for a folder that only contains a volume.

    A volume that contains another volume is a volume.
    """
    if any(os.path.isfile(data / name) for name in (MANIFEST, ROWS, POINTS)):
        message = f"{data} holds the files of a collection: it is no data directory"
        raise VolumeRefused(message, hint=f"{DATA_HINT}, the parent of its collections' folders")
    if is_volume(data):
        return
    with os.scandir(data) as entries:
        inner = sorted(entry.path for entry in entries if is_volume(Path(entry.path)))
    if inner:
        message = f"{data} is no data directory, but contains one: {inner[0]}"
        raise VolumeRefused(message, hint=f"--data {shlex.quote(inner[0])}")


@contextlib.contextmanager
def alone(layout: Layout, *, lacks: str = "") -> Iterator[None]:
    """Lock a stopped volume for a change, as its one engine but without a reserve.

    Raises VolumeServed with `lacks` while an engine serves it.
    """
    with unserved(layout, lacks=lacks):
        pass
    with contextlib.closing(Volume(layout, 0, allow_network=True)):
        yield


@contextlib.contextmanager
def unserved(layout: Layout, *, lacks: str = "") -> Iterator[None]:
    """Keep engines away while a volume is read, and write nothing. A copy of a volume may have no LOCK.

    Raises VolumeServed with `lacks` while an engine serves it.
    """
    try:
        fd = os.open(layout.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        message = f"{layout.lock} is held: an engine serves this volume"
        raise VolumeServed(message, lacks=lacks) from error
    finally:
        os.close(fd)


def refuse_without_room(folder: Path, needed: int, operation: str, name: str) -> None:
    """Raise DiskFull unless `needed` bytes are free on the volume of `folder`; change nothing."""
    stats = os.statvfs(folder)
    free = stats.f_bavail * stats.f_frsize
    if free < needed + SPARE_BYTES:
        message = (
            f"{operation} of {name!r} takes up to {needed + SPARE_BYTES:,} bytes; {free:,} are free, "
            "and nothing was changed"
        )
        raise DiskFull(message, collection=name, operation=operation, hint="make room, or enlarge the volume")


def tree_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def file_system_type(path: Path) -> int:
    """Return statfs(2) `f_type` of the file system of `path`; raise OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(256)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        raise OSError(ctypes.get_errno(), "statfs failed", str(path))
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def _prepare(data: Path) -> None:
    if data.exists():
        refuse_no_folder(data)
    try:
        files.make_folders(data)
    except OSError as error:
        raise VolumeRefused(f"data directory {data} cannot be made: {error}", hint=DATA_HINT) from error
    if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        raise VolumeRefused(f"data directory {data} is not writable for user id {os.getuid()}")
    if not is_volume(data):
        _refuse_misplaced(data)


def _refuse_network(data: Path) -> None:
    kind = NETWORK_FILE_SYSTEMS.get(file_system_type(data))
    if kind is not None:
        message = f"data directory {data} lies on {kind}; locks and syncs cannot be relied on there"
        hint = "use local or block storage, or --allow-network-file-system at your own risk"
        raise VolumeRefused(message, hint=hint)


def _take_lock(path: Path) -> int:
    fd = files.open_or_create(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise VolumeHeld(
            f"{path} is held: another engine or a check (process {holder or 'unknown'}) uses this volume",
            hint="stop that engine first; two engines on one volume would destroy it",
        ) from error
    with contextlib.suppress(OSError):  # Only people read it, so a full disk must not prevent the start.
        files.truncate(fd, 0)
        files.write_at(fd, 0, [f"{os.getpid()}\n".encode()])
    return fd


def _allocate(path: Path, wanted: int) -> bool:
    with files.closing(files.open_or_create(path)) as fd:
        try:
            files.allocate(fd, wanted)
        except OSError:
            files.truncate(fd, 0)
            return False
    return True
