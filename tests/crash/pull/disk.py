"""A real file system on a loop device, which can be pulled away from under the processes that use it.

Only root can have one. A process that uses it lives in a mount namespace of its own (`unshare --mount`). When
the last process there ends, however it ends, the kernel unmounts the file system and frees the loop device.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
UNMOUNT_SECONDS_MAX = 20.0
PRIVATE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Goes before a command: its mounts and its processes end with it."""


@dataclass(frozen=True)
class Kind:
    """A file system that volumes lie on."""

    name: str
    bytes: int
    make: tuple[str, ...]


KINDS = {
    "ext4": Kind("ext4", 64 * MIB, ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0")),
    "xfs": Kind("xfs", 320 * MIB, ("mkfs.xfs", "-q", "-f")),
}
"""XFS takes no less than 300 MiB."""


class CommandFailed(Exception):
    """Raised when a command of the system did not do what was asked."""


class PulledDisk:
    """One file system in an image file; mounted at `mount_point`."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.mount_point = folder / kind.name
        self._image = folder / f"{kind.name}.image"
        with self._image.open("wb") as file:
            file.truncate(kind.bytes)
        run(*kind.make, self._image)
        self.mount_point.mkdir()
        self.is_going = self.is_gone = False
        """Whether a pull has begun, and has ended."""

    def mount(self) -> None:
        """Mount it; after a pull the file system replays its own journal."""
        run("mount", "-o", "loop", self._image, self.mount_point)
        self.is_going = self.is_gone = False

    def pull(self) -> None:
        """Let it fail from now on, with nothing flushed, not even its journal."""
        self.is_going = True
        run("xfs_io", "-x", "-c", "shutdown", self.mount_point)
        self.is_gone = True

    def unmount(self) -> None:
        """Unmount it, once the last one who used it is gone."""
        deadline = time.monotonic() + UNMOUNT_SECONDS_MAX
        while True:
            try:
                return run("umount", self.mount_point)
            except CommandFailed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def run(*command: str | Path) -> None:
    """A command of the system; raises CommandFailed with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandFailed(
            f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )


def why_not() -> str | None:
    """Why no file system can be pulled away here; None: it can be."""
    if os.geteuid() != 0:
        return "only root can mount file systems"
    if missing := [tool for tool in _tools() if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)}"
    with tempfile.TemporaryDirectory(prefix="pulled-") as folder:
        script = "\n".join(_mount_commands(kind, Path(folder)) for kind in KINDS.values())
        done = subprocess.run([*PRIVATE, "sh", "-ec", script], capture_output=True, text=True, check=False)
    return f"no file system can be mounted: {done.stderr.strip()}" if done.returncode != 0 else None


def _tools() -> Sequence[str]:
    return ("unshare", "mount", "umount", "xfs_io", *(kind.make[0] for kind in KINDS.values()))


def _mount_commands(kind: Kind, folder: Path) -> str:
    image, point = folder / f"{kind.name}.image", folder / kind.name
    return (
        f"truncate -s {kind.bytes} {image}; mkdir {point}; {' '.join(kind.make)} {image};"
        f" mount -o loop {image} {point}; umount {point}"
    )
