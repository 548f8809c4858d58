"""A volume with a bit of everything, ways to damage a copy of it, and what an engine then makes of it."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from tests.unit.running_engine import RunningEngine, fill, wait_until
from vecstow_engine.doctor.check import CheckReport, Finding, check_volume
from vecstow_engine.model.errors import Unavailable, VecstowError
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.query.matching import matching_labels
from vecstow_engine.storage.identity import HEADER_BYTES, decode_header, encode_header
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.writer import write_points

POINTS = 1200
INDEXES = (PayloadIndex("v", "float"),)
STRIDE = 16


class CheckedVolume:
    """The collection `notes` has a graph, a payload index and a backup; `empty` never held data, `gone` was
    dropped.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.layout = Layout(data)
        self.notes = data / "notes"
        self.rows, self.table, self.index, self.payloads = (
            self.notes / n for n in ("vectors.bin", "points.db", "index.bin", "payload.bin")
        )
        self.stored: dict[str, float] = {}
        """Value by id."""
        self.deleted: list[str] = []

    def build(self) -> CheckedVolume:
        """Fill it by an engine, and stop that."""
        with RunningEngine(self.data) as engine:
            for name in ("notes", "empty", "gone"):
                engine.declare(name, payload_indexes=INDEXES if name == "notes" else ())
            asyncio.run(self._work(engine))
            engine.indexed()
            engine.backup("notes")
            engine.drop("gone")
        return self

    async def _work(self, engine: RunningEngine) -> None:
        await self._put(engine, fill("p", POINTS))
        engine.checkpoint()
        await self._put(engine, fill("p", 50, value=5000))
        self.deleted = [f"p{number}" for number in range(50, 80)]
        await engine.delete_points("notes", self.deleted)
        for point_id in self.deleted:
            del self.stored[point_id]
        engine.checkpoint()
        await self._put(engine, fill("q", 20, value=8000))
        await engine.put("gone", a=1)

    async def _put(self, engine: RunningEngine, values: dict[str, float]) -> None:
        await engine.put("notes", **values)
        self.stored |= values

    def copied(self, target: Path) -> CheckedVolume:
        """The same volume elsewhere."""
        shutil.copytree(self.data, target)
        copy = CheckedVolume(target)
        copy.stored, copy.deleted = dict(self.stored), list(self.deleted)
        return copy

    @property
    def segment(self) -> Path:
        """The newest log segment of `notes`."""
        return max(self.layout.log(self.uid).glob("*.log"))

    @property
    def uid(self) -> str:
        """The uid of `notes`."""
        return str(self.table_value("SELECT lower(hex(uid)) FROM meta"))

    def slot(self, point_id: str) -> int:
        """Where the row of a point stands."""
        slot: int = self.table_value("SELECT slot FROM points WHERE id = ?", point_id)
        return slot

    def row_offset(self, point_id: str) -> int:
        """The byte of vectors.bin at which the row of a point begins."""
        return HEADER_BYTES + self.slot(point_id) * STRIDE

    def table_value(self, statement: str, *values: object) -> Any:
        """The first column of the first row."""
        connection = sqlite3.connect(self.table)
        try:
            return connection.execute(statement, values).fetchone()[0]
        finally:
            connection.close()

    def change_table(self, statement: str) -> None:
        """Change points.db behind the engine's back, checksums left as they were."""
        connection = sqlite3.connect(self.table, isolation_level=None)
        connection.execute(statement)
        connection.close()

    def check(self, *names: str) -> CheckReport:
        """As `vecstow check --data`."""
        return check_volume(self.data, names or None)

    def state_when_started(self, name: str = "notes") -> str:
        """Return the state of `notes` once an engine has read all of it; assert that no answer is wrong."""
        with RunningEngine(self.data) as engine:
            try:
                collection = engine.collection(name)
            except VecstowError:
                return "undeclared"
            if collection.store is not None:
                asyncio.run(self._read_all(engine))
            return collection.state.value

    async def _read_all(self, engine: RunningEngine) -> None:
        engine.indexed()
        store = engine.collection("notes").store
        assert store is not None
        assert {point_id for _, point_id, _ in store.view.scan()} <= set(self.stored)
        withheld = set()
        for point_id in [*self.stored, *self.deleted]:
            try:
                [value] = await engine.values("notes", point_id)
            except Unavailable:
                withheld.add(point_id)
            else:
                assert value == self.stored.get(point_id), point_id
        for wanted in (1.0, 300.0, 5003.0, 8001.0):
            left = {i: abs(v - wanted) for i, v in self.stored.items() if i not in withheld}
            assert set(await engine.nearest("notes", wanted, 1)) == {min(left, key=lambda i: left[i])}
        indexes = engine.collection("notes").payload_indexes
        if engine.collection("notes").manifest.payload_indexes:
            wait_until(lambda: indexes.unfinished is None)
        source = engine.collection("notes").source()
        assert source is not None
        for low, high in ((0, 100), (5000, 5010), (8000, 9000)):
            within = {i for i, v in self.stored.items() if low <= v <= high and i not in withheld}
            found = matching_labels(source, parse_filter({"v": {"$between": [low, high]}}))
            assert {point[0] for point in store.view.resolve(found) if point is not None} == within


def rows_of_another(volume: CheckedVolume) -> bytes:
    """vectors.bin as another incarnation of `notes` would have it."""
    raw = volume.rows.read_bytes()
    mine = decode_header(raw, "")
    return encode_header(dataclasses.replace(mine, uid="f" * 32)) + raw[HEADER_BYTES:]


def place_of_id(volume: CheckedVolume, point_id: str, page_types: tuple[int, ...]) -> int:
    """Where an id stands in points.db, on a page of type 13 (points), 10 or 2 (the index of ids)."""
    raw = volume.table.read_bytes()
    places = (match.start() for match in re.finditer(re.escape(point_id.encode()) + rb"(?![0-9])", raw))
    return next(place for place in places if raw[place // 4096 * 4096] in page_types)


def rewrite_point(volume: CheckedVolume, point_id: str, **changes: Any) -> None:
    """Change a point as a mistaken engine would: with the right checksums."""
    with closing(PointTable(volume.table)) as table:
        meta = table.meta()
        point = table.by_ids([point_id])[point_id]
    assert point is not None
    changed = msgspec.structs.replace(point, **changes)
    write_points(volume.table, [point.slot], [changed], meta.applied + 1, meta.checkpoints)


def flip(path: Path, offset: int, mask: int = 1) -> None:
    """Change bits of one byte; a negative offset counts from the end."""
    raw = bytearray(path.read_bytes())
    raw[offset] ^= mask
    path.write_bytes(raw)


def cut(path: Path, length: int) -> None:
    """Keep the first bytes, or with a negative length all but the last."""
    path.write_bytes(path.read_bytes()[:length])


def zero(path: Path, offset: int, length: int = 4096) -> None:
    """Write zeros over what is there."""
    raw = bytearray(path.read_bytes())
    raw[offset : offset + length] = bytes(len(raw[offset : offset + length]))
    path.write_bytes(raw)


def told(findings: list[Finding]) -> list[tuple[str, str, int | None]]:
    """Severity, file and offset of each finding."""
    return [(finding.severity.value, finding.file, finding.offset) for finding in findings]


def trace(data: Path) -> dict[str, tuple[int, int, bytes]]:
    """Name, size, mtime and bytes of everything on a volume."""
    return {
        str(path.relative_to(data)): (
            stat.st_size,
            stat.st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(data.rglob("*"))
        for stat in [path.stat()]
    }
