"""A disk after the power went off: it keeps what was synced, and by chance more or nothing of the rest.

Contents count from the last fsync of a file, names from the last fsync of their folder. SQLite syncs by
itself, unseen. Of `points.db` the disk keeps what `point_commits` promised, and nothing of its `-wal`.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from tests.unit.recorded_disk import RecordedDisk

Names = dict[str, int | None]
"""File name to inode; None for a folder."""


class LossyDisk(RecordedDisk):
    """`root` and what is above it is taken as durable."""

    def __init__(self, monkeypatch: Any, root: Path) -> None:
        super().__init__(monkeypatch)
        self.root = root
        self._contents: dict[int, bytes] = {}
        self._names: dict[Path, Names] = {}

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        is_new = not Path(path).exists()
        fd = super().open(path, flags, mode)
        if is_new:
            self._contents.pop(os.fstat(fd).st_ino, None)  # the number was another file's
        return fd

    def became_durable(self, path: Path) -> None:
        if path.is_dir():
            self._names[path] = _names_in(path)
        elif path.exists():
            self._contents[path.stat().st_ino] = path.read_bytes()

    def after_power_loss(self, target: Path, chance: random.Random | None) -> None:
        """Write to `target` what is left: without `chance` nothing that was not synced."""
        self._write_folder(self.root, target, chance)

    def _write_folder(self, folder: Path, target: Path, chance: random.Random | None) -> None:
        target.mkdir()
        names = self._names.get(folder, {})
        if chance is not None and folder.is_dir():
            names = _either(names, _names_in(folder), chance)
        for name, inode in names.items():
            if inode is None:
                self._write_folder(folder / name, target / name, chance)
            else:
                (target / name).write_bytes(self._content(folder / name, inode, chance))

    def _content(self, path: Path, inode: int, chance: random.Random | None) -> bytes:
        durable = self._contents.get(inode, b"")
        is_still_there = path.exists() and path.stat().st_ino == inode
        if chance is None or path.name.startswith("points.db") or not is_still_there:
            return durable
        written = path.read_bytes()
        kept = chance.choice((0, len(durable), len(written), chance.randint(0, len(written))))
        return written[:kept] + durable[kept:]


def _names_in(folder: Path) -> Names:
    return {p.name: None if p.is_dir() else p.stat().st_ino for p in folder.iterdir()}


def _either(durable: Names, written: Names, chance: random.Random) -> Names:
    """Each change of a name reached the disk, or not."""
    return {
        name: found
        for name in sorted(durable.keys() | written.keys())
        if (found := chance.choice((durable, written)).get(name, 0)) != 0
    }
