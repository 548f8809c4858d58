"""The folders of `.quarantine/` that a repair makes: the damaged collection, its log, and what was lost.

    .quarantine/<collection>-<UTC>/<collection>/    the folder as it was found
                                   wal/<uid>/       its log
                                   lost.jsonl       what could not be saved, line by line
                                   repair.json      the plan, and the uids before and after

The folder has the form of a data directory, so `vecstow check --data` reads it. The log is moved last: nobody
reads it any more, since the repaired collection has a uid of its own. A start moves it when a crash came
between.
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
    """Move a log that no collection has any more; nothing happens when it is not there."""
    if layout.log(uid).is_dir():
        files.make_folder(evidence / layout.logs.name)
        files.rename(layout.log(uid), unused_path(evidence / layout.logs.name / uid))


def finish_interrupted(layout: Layout) -> list[str]:
    """Bring what a crash cut to its end; returns the names of the collections that had no place.

    Of the two logs the one is set aside that is not that of the collection in its place.
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
    """The path, with a number behind it when the name is taken."""
    others = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(candidate for candidate in chain([path], others) if not candidate.exists())


def _read_report(path: Path) -> tuple[str, tuple[str, str] | None]:
    """The collection, and its uids before and after; None for those when no log is to be set aside."""
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
