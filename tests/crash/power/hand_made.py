"""Records written by hand, for tests: lines of strace, and the events that they lead to."""

from __future__ import annotations

from pathlib import Path

from tests.crash.power.cache import Cache
from tests.crash.power.disk import Disk
from tests.crash.power.events import Event
from tests.crash.power.reader import Reader
from tests.crash.power.trace import Call, parse

ROOT = Path("/volume")
NEW = "O_RDWR|O_CREAT|O_CLOEXEC, 0640"


def text(value: str | bytes) -> str:
    """As strace prints it with -xx."""
    raw = value.encode() if isinstance(value, str) else value
    return '"' + "".join(f"\\x{byte:02x}" for byte in raw) + '"'


def at(path: str) -> str:
    """A path below the volume, as an argument."""
    return text(f"{ROOT}/{path}" if path else str(ROOT))


def opened(path: str, descriptor: int, flags: str = NEW, thread: int = 1) -> str:
    return f"{thread} openat(AT_FDCWD, {at(path)}, {flags}) = {descriptor}"


def written(descriptor: int, data: str | bytes, offset: int, thread: int = 1) -> str:
    return f"{thread} pwrite64({descriptor}, {text(data)}, {len(data)}, {offset}) = {len(data)}"


def folder_synced(path: str, descriptor: int = 90, result: str = "0") -> list[str]:
    """Open, sync and close a folder."""
    return [
        opened(path, descriptor, "O_RDONLY|O_DIRECTORY|O_CLOEXEC"),
        f"1 fsync({descriptor}) = {result}",
        f"1 close({descriptor}) = 0",
    ]


def calls_of(*lines: str) -> list[Call]:
    return parse(lines)


def events_of(*lines: str, cache: Cache | None = None) -> list[Event]:
    """Return the events that a whole record leads to."""
    return Reader(ROOT, cache or Cache()).read(parse(lines))


def disk_after(*lines: str) -> Disk:
    disk = Disk()
    for event in events_of(*lines):
        disk.apply(event)
    return disk
