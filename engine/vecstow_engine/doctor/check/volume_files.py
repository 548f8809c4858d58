"""Checks of a volume's other files: its id, logs without a collection, what was dropped, leftovers."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from vecstow_engine.doctor.check.advice import LATER_RELEASE, Link, NextStep, NextSteps, set_aside
from vecstow_engine.doctor.check.findings import CheckReport, Finding, Severity
from vecstow_engine.model.errors import DamagedFile, NewerFormat, StorageError
from vecstow_engine.model.manifest import parse_manifest
from vecstow_engine.model.names import is_collection_uid
from vecstow_engine.storage.alias_changes import has_folder
from vecstow_engine.storage.aliases import legible_aliases, read_aliases
from vecstow_engine.storage.discovery import Found, claimed_beside, claimed_uid
from vecstow_engine.storage.files import TEMPORARY_SUFFIX
from vecstow_engine.storage.identity import read_header
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS, Layout
from vecstow_engine.storage.log.replay import read_headers
from vecstow_engine.storage.points.reader import peek_meta
from vecstow_engine.storage.trash import list_deleted
from vecstow_engine.storage.volume import VOLUME_ID

_Findings: TypeAlias = Iterator[tuple[Severity, Path, str, NextSteps]]


def check_beside(layout: Layout, report: CheckReport, found: Sequence[Found]) -> None:
    """Check what belongs to the volume, not to one of its collections."""
    # A manifest and the header of its rows may name different uids.
    known = claimed_beside(layout, "") | {claimed_uid(layout, folder.name) for folder in found}
    parts = _volume_id(layout), _foreign_log(layout), _deleted(layout), _leftovers(layout), _aliases(layout)
    for severity, path, message, next_steps in chain(*parts, _orphan_logs(layout, known)):
        file = os.path.relpath(path, layout.data)
        report.add(Finding(severity, None, file, None, message, next_steps))


def _volume_id(layout: Layout) -> _Findings:
    path = layout.volume_id
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        yield Severity.WARNING, path, "it is missing: the next start makes a new id, as of a new volume", ()
        return
    if VOLUME_ID.fullmatch(raw) is None:
        remove = f"rm {shlex.quote(str(path))}"
        next_steps = (
            NextStep(f"put {path.name} back from a copy"),
            NextStep("remove it: the next start makes a new id", remove, Link.OR),
        )
        message = f"it holds {raw[:40]!r}, not the 32 hex digits of a volume's id: no engine starts"
        yield Severity.ERROR, path, message, next_steps


def _aliases(layout: Layout) -> _Findings:
    path = layout.aliases
    try:
        table = read_aliases(layout)
    except NewerFormat as error:
        message = f"it {error.message.removeprefix(f'{path} ')}: no alias is served"
        yield Severity.ERROR, path, message, (NextStep(LATER_RELEASE),)
        return
    except DamagedFile as error:
        legible = ", ".join(f"{alias} -> {collection}" for alias, collection in legible_aliases(layout))
        entries = f"; its entries, which nothing proves: {legible}" if legible else ""
        next_steps = (
            NextStep(f"put {path.name} back from a copy of the volume"),
            dataclasses.replace(set_aside(layout, path.name), link=Link.OR),
            NextStep("set the aliases again", f"vecstow aliases set ALIAS NAME{_where(layout)}", Link.THEN),
        )
        yield Severity.ERROR, path, f"{error.reason}: no alias is served{entries}", next_steps
        return
    for alias in table:
        if has_folder(layout, alias.name):
            message = f"alias {alias.name!r} has the name of a collection, which takes precedence"
            remove = NextStep(command=f"vecstow aliases rm {alias.name}{_where(layout)}")
            yield Severity.WARNING, path, message, (remove,)
        elif not has_folder(layout, alias.collection):
            message = f"alias {alias.name!r} leads to collection {alias.collection!r}, which does not exist"
            switch = f"vecstow aliases set {alias.name} NAME{_where(layout)}"
            restore = NextStep(f"restore {alias.collection}: vecstow ls --deleted lists what was dropped")
            other = NextStep("let it lead to another collection", switch, Link.OR)
            yield Severity.WARNING, path, message, (restore, other)


def _where(layout: Layout) -> str:
    return f" --data {shlex.quote(str(layout.data))}"


def _foreign_log(layout: Layout) -> _Findings:
    if layout.logs.is_file():
        yield Severity.INFO, layout.logs, "it is a file, as d-vecDB has it; an import sets it aside", ()


def _orphan_logs(layout: Layout, known: set[str | None]) -> _Findings:
    # Unlike `glob`, `iterdir` raises for a folder that cannot be read.
    for folder in sorted(layout.logs.iterdir()) if layout.logs.is_dir() else ():
        if folder.is_dir() and folder.name not in known:
            aside = set_aside(layout, os.path.relpath(folder, layout.data))
            yield Severity.WARNING, folder, f"no collection has this log: {_owner(folder)}", (aside,)


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


def _deleted(layout: Layout) -> _Findings:
    listed = {deleted.path for deleted in list_deleted(layout)}
    for folder in sorted(layout.deleted.glob("*")):
        if folder not in listed:
            message = (
                "its name is not that of a dropped collection: it cannot be restored, and is never purged"
            )
            yield Severity.WARNING, folder, message, ()
            continue
        try:
            manifest = parse_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
            if manifest.collection_uid is not None:
                read_header(folder / ROWS)
                peek_meta(folder / POINTS)
        except (StorageError, OSError) as error:
            yield Severity.WARNING, folder, f"it cannot be restored: {error}", ()


def _leftovers(layout: Layout) -> _Findings:
    """Find files that a crash left half written: they are never read."""
    unfinished = (f"{folder}*{TEMPORARY_SUFFIX}" for folder in ("", "*/", "wal/*/"))
    for pattern in (*unfinished, f"{layout.staging.name}/*"):
        for path in sorted(layout.data.glob(pattern)):
            yield Severity.INFO, path, "left half written by a crash; nothing reads it", ()
