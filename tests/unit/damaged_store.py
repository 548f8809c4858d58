"""A store with a past, ways to damage it beyond those of `checked_volume`, and what a repair leaves of it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.doctor.check import check_volume
from vecstow_engine.doctor.repair import CollectionRepair, RepairOutcome, repair_volume

PAGE = 4096
POINTS = 300


class DamagedStore:
    """300 points: 40 were replaced and 30 deleted, and some fill freed slots. Then come three log records:

    2 upsert n0 to n9, the delete of p0 and p1, 1 upsert of p2 (each its own record).
    """

    def __init__(self, data: Path) -> None:
        notes = StoreOnDisk(data)
        notes.put(**{f"p{number}": number + 1 for number in range(POINTS)})
        notes.checkpoint()
        notes.put(**{f"p{number}": number + 1001 for number in range(100, 140)})
        notes.delete(*(f"p{number}" for number in range(140, 170)))
        notes.checkpoint()
        notes.put(**{f"r{number}": number + 2001 for number in range(50)})
        notes.checkpoint()
        self.checkpointed = notes.points()
        notes.put(**{f"n{number}": number + 3001 for number in range(10)})
        notes.delete("p0", "p1")
        notes.put(p2=4001)
        self.points = notes.points()
        self.log = notes.log_folder
        self.data = data
        notes.close()

    @property
    def folder(self) -> Path:
        return self.data / "notes"

    @property
    def table(self) -> Path:
        return self.folder / "points.db"

    @property
    def rows(self) -> Path:
        return self.folder / "vectors.bin"

    @property
    def manifest(self) -> Path:
        return self.folder / "metadata.json"

    @property
    def segment(self) -> Path:
        """The newest one."""
        return max(self.log.glob("*.log"))

    def change_table(self, statement: str) -> None:
        """Change points.db behind the engine's back, checksums left as they were."""
        connection = sqlite3.connect(self.table, isolation_level=None)
        connection.execute(statement)
        connection.close()

    def table_value(self, statement: str, *values: object) -> int:
        """The first column of the first row."""
        connection = sqlite3.connect(self.table)
        try:
            return int(connection.execute(statement, values).fetchone()[0])
        finally:
            connection.close()

    def root(self, name: str) -> int:
        """The byte at which the first page of a table or index begins."""
        return PAGE * (self.table_value("SELECT rootpage FROM sqlite_master WHERE name = ?", name) - 1)

    def leaves(self) -> list[int]:
        """Where pages begin that look like leaves of the points' tree, ascending."""
        raw = self.table.read_bytes()
        other = {self.root(name) for name in ("meta", "snapshots")} | {0}
        return [at for at in range(0, len(raw), PAGE) if raw[at] == 0x0D and at not in other]

    def row_offset(self, point_id: str) -> int:
        """Where a point's row begins."""
        return PAGE + 16 * self.table_value("SELECT slot FROM points WHERE id = ?", point_id)

    def repair(self, *, dry_run: bool = False) -> CollectionRepair:
        """Repair it; asserts that a check finds nothing afterwards, and a second repair either."""
        done = repair_volume(self.data, ["notes"], dry_run=dry_run).collections["notes"]
        if done.outcome is RepairOutcome.REPAIRED:
            report = check_volume(self.data, ["notes"])
            assert report.clean, report.findings
            assert repair_volume(self.data, ["notes"]).collections["notes"].outcome is RepairOutcome.SOUND
        return done

    def served(self) -> dict[str, float]:
        """Value by id, as a start serves them."""
        notes = StoreOnDisk(self.data)
        try:
            return notes.points()
        finally:
            notes.close()

    def lost(self, done: CollectionRepair) -> list[dict[str, object]]:
        """The lines of the list of losses."""
        assert done.quarantine is not None
        lines = (self.data / done.quarantine / "lost.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def without(points: dict[str, float], *ids: str) -> dict[str, float]:
    """The others."""
    return {point_id: value for point_id, value in points.items() if point_id not in ids}


def swap(path: Path, first: int, second: int) -> None:
    """Exchange two pages."""
    raw = bytearray(path.read_bytes())
    one, other = raw[first : first + PAGE], raw[second : second + PAGE]
    raw[first : first + PAGE], raw[second : second + PAGE] = other, one
    path.write_bytes(raw)


def digests(data: Path) -> dict[str, str]:
    """Return the digest of every file of a volume by its name, without the locks."""
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.name not in ("LOCK", ".manifests.lock", "VOLUME")
    }
