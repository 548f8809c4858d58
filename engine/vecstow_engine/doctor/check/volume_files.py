"""Checks of a volume's other files: its id, logs without a collection, what was dropped, leftovers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vecstow_engine.doctor.check import advice
from vecstow_engine.doctor.check.findings import CheckReport, Finding, NextSteps, Severity
from vecstow_engine.model.errors import StorageError
from vecstow_engine.model.manifest import parse_manifest
from vecstow_engine.model.names import is_collection_uid
from vecstow_engine.storage.discovery import Found
from vecstow_engine.storage.files import TEMPORARY_SUFFIX
from vecstow_engine.storage.identity import read_header
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS, Layout
from vecstow_engine.storage.log.replay import read_headers
from vecstow_engine.storage.points.reader import peek_meta
from vecstow_engine.storage.trash import list_deleted
from vecstow_engine.storage.volume import VOLUME_ID


def check_beside(layout: Layout, report: CheckReport, found: Sequence[Found]) -> None:
    """Check what belongs to the volume, not to one of its collections."""
    for find in (_volume_id, _foreign_log, _deleted, _leftovers):
        for finding in find(layout):
            report.add(finding)
    for finding in _orphan_logs(layout, _known_uids(layout, found)):
        report.add(finding)


def _warning(layout: Layout, path: Path, message: str, next_steps: NextSteps = ()) -> Finding:
    return Finding(Severity.WARNING, None, os.path.relpath(path, layout.data), None, message, next_steps)


def _volume_id(layout: Layout) -> Iterator[Finding]:
    try:
        raw = layout.volume_id.read_bytes()
    except FileNotFoundError:
        yield _warning(
            layout, layout.volume_id, "it is missing: the next start makes a new id, as of a new volume"
        )
        return
    if VOLUME_ID.fullmatch(raw) is None:
        message = f"it holds {raw[:40]!r}, not the 32 hex digits of a volume's id: no engine starts"
        next_steps = advice.replace_volume_id(layout)
        yield Finding(Severity.ERROR, None, layout.volume_id.name, None, message, next_steps)


def _foreign_log(layout: Layout) -> Iterator[Finding]:
    if layout.logs.is_file():
        message = "it is a file, as d-vecDB has it; an import sets it aside"
        yield Finding(Severity.INFO, None, layout.logs.name, None, message)


def _orphan_logs(layout: Layout, known: set[str]) -> Iterator[Finding]:
    if not layout.logs.is_dir():
        return
    for folder in sorted(layout.logs.iterdir()):
        if folder.is_dir() and folder.name not in known:
            aside = advice.set_aside(layout, os.path.relpath(folder, layout.data))
            yield _warning(layout, folder, f"no collection has this log: {_owner(folder)}", (aside,))


def _owner(folder: Path) -> str:
    if not is_collection_uid(folder.name):
        return "its name is no uid"
    try:
        headers = read_headers(folder)
    except (StorageError, OSError) as error:
        return str(error)
    if not headers:
        return "it is empty"
    owner = headers[-1].identity
    return f"it was that of {owner.name} (dimension {owner.dimension}, {owner.metric}, {owner.vector_type})"


def _known_uids(layout: Layout, found: Sequence[Found]) -> set[str]:
    """The uids of collections, dropped ones among them, by manifest, header or folder name."""
    known = {deleted.uid for deleted in list_deleted(layout)}
    for folder in found:
        if folder.manifest is not None and folder.manifest.collection_uid is not None:
            known.add(folder.manifest.collection_uid)
        try:
            known.add(read_header(layout.collection(folder.name) / ROWS).uid)
        except (StorageError, OSError):
            continue
    return known


def _deleted(layout: Layout) -> Iterator[Finding]:
    if not layout.deleted.is_dir():
        return
    listed = {deleted.path for deleted in list_deleted(layout)}
    for folder in sorted(layout.deleted.iterdir()):
        if folder not in listed:
            message = (
                "its name is not that of a dropped collection: it cannot be restored, and is never purged"
            )
            yield _warning(layout, folder, message)
            continue
        try:
            _read_dropped(folder)
        except (StorageError, OSError) as error:
            yield _warning(layout, folder, f"it cannot be restored: {error}")


def _read_dropped(folder: Path) -> None:
    path = folder / MANIFEST
    manifest = parse_manifest(path.read_bytes(), str(path))
    if manifest.collection_uid is not None:
        read_header(folder / ROWS)
        peek_meta(folder / POINTS)


def _leftovers(layout: Layout) -> Iterator[Finding]:
    """Find files that a crash left half written: they are never read."""
    patterns = (
        f"*{TEMPORARY_SUFFIX}",
        f"*/*{TEMPORARY_SUFFIX}",
        f"wal/*/*{TEMPORARY_SUFFIX}",
        f"{layout.staging.name}/*",
    )
    for pattern in patterns:
        for path in sorted(layout.data.glob(pattern)):
            message = "left half written by a crash; nothing reads it"
            yield Finding(Severity.INFO, None, os.path.relpath(path, layout.data), None, message)
