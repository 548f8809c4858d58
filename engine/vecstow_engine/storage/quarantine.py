"""The folders of `.quarantine/` that a repair makes: the damaged collection, its log, a list of the losses.

    .quarantine/<collection>-<UTC>/<collection>/    the folder as it was found
                                   wal/<uid>/       its log
                                   lost.jsonl       one line for each loss
                                   repair.json      the plan, and the uids before and after

The folder has the form of a data directory, so `vecstow check --data` reads it. The log is moved last. The
repaired collection has its own uid, so no reader uses the old log by then. After a crash in between, the next
start moves it.
"""

from __future__ import annotations

import json
from itertools import chain, count
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.staging import finish_staged

LOST: Final = "lost.jsonl"
REPORT: Final = "repair.json"


def set_log_aside(layout: Layout, evidence: Path, uid: str) -> None:
    """Move the log of a uid that no collection has any more; do nothing when it does not exist."""
    if layout.log(uid).is_dir():
        files.make_folder(evidence / layout.logs.name)
        files.rename(layout.log(uid), unused_path(evidence / layout.logs.name / uid))


def finish_interrupted(layout: Layout) -> list[str]:
    """Finish work that a crash interrupted; return the names of the collections that had no place yet.

    Of the two logs of a repair, the one is set aside whose uid is not the collection's.
    """
    finished = [manifest.name for manifest in finish_staged(layout)]
    for report in sorted(layout.quarantine.glob(f"*/{REPORT}")):
        name, uids = _read_report(report)
        in_place = _uid_in_place(layout, name)
        if uids is not None and in_place in uids and uids[0] != uids[1]:
            before, after = uids
            set_log_aside(layout, report.parent, before if in_place == after else after)
    return finished


def unused_path(path: Path) -> Path:
    """Return the path, with a number appended when the name is taken."""
    others = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(candidate for candidate in chain([path], others) if not candidate.exists())


def _read_report(path: Path) -> tuple[str, tuple[str, str] | None]:
    """Return the collection, and its uids before and after; ("", None) when the report cannot be read."""
    try:
        document = json.loads(path.read_bytes())
        before, after = document["uids"]
        return document["collection"], (before, after)
    except (OSError, ValueError, KeyError, TypeError):
        return "", None


def _uid_in_place(layout: Layout, name: str) -> str | None:
    try:
        manifest = read_manifest(layout.collection(name))
    except (DamagedFile, NewerFormat):
        return None
    return manifest.collection_uid if manifest is not None else None
