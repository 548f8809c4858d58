"""What a state shows that the proof must have met: each is a way in which a write can be lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.crash.power.disk import reachable
from tests.crash.power.moments import Moment
from vecstow_engine.model.errors import StorageError
from vecstow_engine.storage.replay import FoundSegment, read_log

LATER_WITHOUT_EARLIER = "a later record of a group without an earlier one"
BACK_AGAIN = "unlinked, and back again"
SEGMENT_BACK = "a segment unlinked, and back again"
JOURNAL_BACK = "a journal of SQLite unlinked, and back again"
FAILED_SYNC = "without a record that a failed sync had covered"


def witnessed(data: Path, moment: Moment) -> Counter[str]:
    """How often, in a state at this moment."""
    facts: Counter[str] = Counter()
    alive = {path for path, _ in reachable(moment.cache.folders)}
    for path in data.rglob("*"):
        name = str(path.relative_to(data))
        if path.is_file() and name not in alive:
            facts[BACK_AGAIN] += 1
            facts[SEGMENT_BACK] += name.endswith(".log")
            facts[JOURNAL_BACK] += name.endswith("-wal")
    for folder in (data / "wal").glob("*"):
        facts[LATER_WITHOUT_EARLIER] += _has_gap(folder)
    facts[FAILED_SYNC] += _lacks_lost_record(data, moment)
    return +facts


def _has_gap(folder: Path) -> bool:
    """A valid record lies behind a bad one, and was written together with the one before it."""
    try:
        segments = read_log(folder)
    except (StorageError, OSError):
        return False
    return any(_is_after_gap(segment) for segment in segments)


def _is_after_gap(segment: FoundSegment) -> bool:
    return any(r.offset > segment.valid_bytes and r.synced < r.previous for r in segment.records)


def _lacks_lost_record(data: Path, moment: Moment) -> bool:
    """A log in its place whose end the processes see and the disk never had."""
    for inode, file in moment.disk.files.items():
        if not any(step.lost for step in file.steps):
            continue
        path = data / moment.cache.paths[inode]
        if path.suffix == ".log" and path.exists():
            return path.read_bytes() != bytes(moment.cache.files[inode])
    return False
