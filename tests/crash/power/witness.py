"""The facts of a state that the proof must have met: each is a way in which a write can be lost."""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path

from tests.crash.power.disk import reachable
from tests.crash.power.moments import Moment
from tests.crash.power.states import State
from vecstow_engine.model.errors import StorageError
from vecstow_engine.storage.log.replay import runs_in
from vecstow_engine.storage.log.segment import decode_header
from vecstow_engine.storage.log.segment_reader import heads_beyond

LATER_WITHOUT_EARLIER = "a later record of a group without an earlier one"
BACK_AGAIN = "unlinked, and back again"
SEGMENT_BACK = "a segment unlinked, and back again"
JOURNAL_BACK = "a journal of SQLite unlinked, and back again"
FAILED_SYNC = "without a record that a failed sync had covered"


def witnessed(state: State, moment: Moment) -> Counter[str]:
    """How often, in a state of this moment."""
    facts: Counter[str] = Counter()
    alive = {path for path, _ in reachable(moment.cache.folders)}
    for path, content in state.tree.items():
        if content is not None and path not in alive:
            facts[BACK_AGAIN] += 1
            facts[SEGMENT_BACK] += path.endswith(".log")
            facts[JOURNAL_BACK] += path.endswith("-wal")
        if content is not None and path.endswith(".log"):
            facts[LATER_WITHOUT_EARLIER] += _has_gap(content)
    facts[FAILED_SYNC] += _lacks_lost_record(state, moment)
    return +facts


def _has_gap(segment: bytes) -> bool:
    """A valid record lies behind a bad one, and was written together with the one before it."""
    try:
        header = decode_header(segment, "")
    except StorageError:
        return False
    found = runs_in(BytesIO(segment), Path(), header)
    heads_after = heads_beyond(BytesIO(segment), header.seed, found.valid_bytes)
    return any(head.synced < head.previous for head in heads_after)


def _lacks_lost_record(state: State, moment: Moment) -> bool:
    """A log in its place whose end the processes see and the disk never had."""
    return any(
        state.tree.get(path) not in (None, bytes(moment.cache.files[inode]))
        for inode, file in moment.disk.files.items()
        if any(step.lost for step in file.steps) and (path := moment.cache.paths[inode]).endswith(".log")
    )
