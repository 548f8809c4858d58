"""A damaged collection that is repaired: what is served then was acknowledged, and what is not is listed.

Of a damaged `points.db`, every point that SQLite still finds by its slot is saved, and what the log has.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

from tests.crash.damage.cases import Case
from tests.crash.damage.reading import Seen, see
from tests.crash.damage.verdict import judge_neighbour
from tests.crash.damage.volume import RESERVE_BYTES, Truth, Volume
from tests.crash.reading import killed
from vecstow_engine.doctor.check import check_volume
from vecstow_engine.doctor.repair import CollectionRepair, RepairOutcome, repair_volume


def repair(volume: Volume, case: Case, name: str, data: Path, chance: Random) -> tuple[str, list[str]]:
    """How it ended, and what is wrong with that."""
    volume.lay(data, volume.labels[case.label], case.content)
    before = _contents(data)
    reached = reached_points(volume, case, name, data)
    done = repair_volume(data).collections
    others = {other: mended.outcome for other, mended in done.items() if other != name}
    wrong = [f"{other} is {end} too" for other, end in others.items() if end is not RepairOutcome.SOUND]
    if done[name].outcome is RepairOutcome.IMPOSSIBLE:
        changed = {path for path, raw in _contents(data).items() if before.get(path) != raw}
        wrong += [f"{sorted(reached)[:5]} can be read, and nothing is saved"] if reached else []
        wrong += [] if done[name].plan.hint else ["nothing says what to do instead"]
        return "repair impossible", wrong + [f"it is changed: {path}" for path in changed]
    if done[name].outcome is not RepairOutcome.REPAIRED:
        return "not repaired", [*wrong, f"it is {done[name].outcome}: {done[name].plan}"]
    wrong += [
        f"after repair: {finding}" for finding in check_volume(data, [name]).findings if _is_bad(finding)
    ]
    if (again := repair_volume(data, [name]).collections[name]).outcome is not RepairOutcome.SOUND:
        wrong.append(f"a second repair is {again.outcome}: {again.plan}")
    with killed(data, reserve_bytes=RESERVE_BYTES) as engine:
        for other, truth in volume.live.items():
            seen = asyncio.run(see(engine, other, truth.ids, chance))
            if other == name:
                wrong += _judge(truth, seen, done[name], data)
                wrong += _judge_saved(case, truth, seen, reached)
            else:
                wrong += judge_neighbour(other, truth, seen)
    return "repaired", [f"repaired: {told}" for told in wrong]


def _judge(truth: Truth, seen: Seen, mended: CollectionRepair, data: Path) -> list[str]:
    """Where it says that the log is damaged, a point may be as it was before; else it is as it was last."""
    wrong = list(seen.wrong)
    if seen.state != "ready" or seen.withheld:
        wrong.append(f"it is {seen.state}, without {sorted(seen.withheld)}: {seen.reason}")
    losses = _listed(data, mended)
    said = [*mended.plan.warnings, *(step.because for step in mended.plan.steps)]
    is_older = any("records" in loss for loss in losses) or any(map(_is_of_the_log, said))
    states = truth.states if is_older else [truth.last]
    for point_id, point in seen.points.items():
        if not any(state.get(point_id) == point for state in states):
            wrong.append(f"{point_id} is {point}, and never was, or was not last")
    listed = {str(loss.get("id")) for loss in losses}
    missing = truth.last.keys() - seen.points.keys() - listed
    # A damaged id is listed as it stands there.
    unnamed = mended.plan.lost_without_id + len(listed - truth.ids)
    if len(missing) > unnamed and not is_older and not mended.plan.warnings:
        wrong.append(f"{sorted(missing)[:5]} are lost, and nothing says so")
    return wrong


def _judge_saved(case: Case, truth: Truth, seen: Seen, reached: set[str]) -> list[str]:
    """The log is intact where the table is damaged."""
    if not _is_table(case):
        return []
    at_checkpoint = truth.states[truth.applied]
    logged = {i for i, point in truth.last.items() if at_checkpoint.get(i) != point}
    lost = (reached & truth.last.keys() | logged) - seen.points.keys()
    return [f"{sorted(lost)[:5]} can be read, and are not saved"] if lost else []


def reached_points(volume: Volume, case: Case, name: str, data: Path) -> set[str]:
    """The ids of the points that SQLite finds by their slots in a damaged table, as they were before."""
    if not _is_table(case):
        return set()
    whole = data.with_name("whole")
    volume.lay(whole, volume.labels[case.label], volume.files[volume.labels[case.label]])
    slots = range(2 * len(volume.live[name].ids))
    before, after = (_rows_by_slot(folder / name, slots) for folder in (whole, data))
    return {row[1].decode() for slot, row in before.items() if after.get(slot) == row}


def _is_table(case: Case) -> bool:
    return case.label.endswith(("points.db", "points.db-wal"))


def _rows_by_slot(folder: Path, slots: Iterable[int]) -> dict[int, tuple[Any, ...]]:
    """One look-up a slot, in a copy: SQLite changes what it opens with a `-wal`."""
    found = {}
    with tempfile.TemporaryDirectory(dir=folder.parent.parent) as copy:
        for path in folder.glob("points.db*"):
            shutil.copy(path, copy)
        with closing(sqlite3.connect(Path(copy) / "points.db")) as table:
            table.text_factory = bytes
            table.execute("PRAGMA writable_schema=ON")
            for slot in slots:
                with suppress(sqlite3.Error):
                    row = table.execute(
                        "SELECT * FROM points NOT INDEXED WHERE rowid = ?", (slot,)
                    ).fetchone()
                    if row is not None:
                        found[slot] = row
    return found


def _is_of_the_log(told: str) -> bool:
    """Whether a message names the log. The content that a foreign segment replaced is unknown."""
    return "no log" in told or ".log" in told


def _listed(data: Path, mended: CollectionRepair) -> list[dict[str, object]]:
    assert mended.quarantine is not None
    path = data / mended.quarantine / "lost.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _contents(data: Path) -> dict[Path, bytes]:
    paths = (path for path in data.rglob("*") if path.is_file() and path.name != "LOCK")
    return {path: path.read_bytes() for path in paths}


def _is_bad(finding: object) -> bool:
    return getattr(finding, "severity", None) == "error"
