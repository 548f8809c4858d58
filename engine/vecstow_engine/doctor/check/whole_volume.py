"""A whole volume without an engine: every collection, and its other files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vecstow_engine.doctor.check import advice
from vecstow_engine.doctor.check.collection import examine, examine_files, is_sound
from vecstow_engine.doctor.check.findings import CheckReport, Progress, Severity, no_progress
from vecstow_engine.doctor.check.inquiry import Advice, Inquiry, StartOutcome
from vecstow_engine.doctor.check.volume_files import check_beside
from vecstow_engine.model.errors import NotFound, StorageError
from vecstow_engine.storage.discovery import Found, discover, rivals
from vecstow_engine.storage.identity import Identity, read_header
from vecstow_engine.storage.layout import MANIFEST, ROWS, Layout
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.volume import stopped_volume, unserved


def check_volume(
    data: Path, names: Sequence[str] | None = None, progress: Progress = no_progress
) -> CheckReport:
    """Check a stopped volume or a copy of one, all of it or the collections of these names; writes nothing.

    No engine can start on it meanwhile. Raises VolumeRefused when one runs, or when `data` is no folder, and
    NotFound for a name that has no folder.
    """
    layout = stopped_volume(data)
    report = CheckReport()
    with unserved(layout, " ".join(["vecstow check", *(names or ())[:1]])):
        found = {folder.name: folder for folder in discover(layout)}
        claimed = rivals(layout, list(found.values()))
        for name in _wanted(layout, found, names):
            _check(Inquiry(layout, name, report, is_sound), found[name], progress, is_rival=name in claimed)
        if names is None:
            check_beside(layout, report, list(found.values()))
    return report


def check_folder(
    layout: Layout,
    name: str,
    progress: Progress = no_progress,
    *,
    is_rival: bool = False,
    serving: bool = False,
) -> CheckReport:
    """Check one collection of a running engine as its folder is now, its manifest too.

    Otherwise as `check_collection`; without `serving` nothing is written to it. Raises NotFound
    when the folder is gone.
    """
    report = CheckReport()
    found = {folder.name: folder for folder in discover(layout)}
    [name] = _wanted(layout, found, [name])
    inquiry = Inquiry(layout, name, report, is_sound, served=True)
    _check(inquiry, found[name], progress, is_rival=is_rival, serving=serving)
    return report


def _wanted(layout: Layout, found: dict[str, Found], names: Sequence[str] | None) -> list[str]:
    for name in names or ():
        if name not in found:
            raise NotFound(
                f"{layout.data} has no collection {name!r}",
                collection=name,
                hint=f"vecstow ls --data {layout.data}",
            )
    return list(found) if names is None else list(names)


def _check(
    inquiry: Inquiry, found: Found, progress: Progress, *, is_rival: bool = False, serving: bool = False
) -> None:
    if found.manifest is not None:
        examine(inquiry, found.manifest, progress, is_rival=is_rival, serving=serving)
        return
    identity = _own_identity(inquiry)
    _tell_of_manifest(inquiry, found, identity)
    if identity is not None:
        examine_files(inquiry, identity, progress, is_rival=is_rival, serving=serving)
    inquiry.outcome = StartOutcome.UNDECLARED
    inquiry.facts["state"] = inquiry.outcome.value


def _own_identity(inquiry: Inquiry) -> Identity | None:
    try:
        return read_header(inquiry.folder / ROWS)
    except (StorageError, OSError):
        return None


def _tell_of_manifest(inquiry: Inquiry, found: Found, identity: Identity | None) -> None:
    path = inquiry.folder / MANIFEST
    next_steps: Advice = inquiry.mend if identity is None else inquiry.repair
    if not found.bare:
        with inquiry.reading(path, next_steps):
            read_manifest(inquiry.folder)
    elif identity is not None:
        inquiry.quarantine(path, "it is missing, next to data of a collection", next_steps=next_steps)
    else:
        message = "it is missing: the folder is no collection, and is skipped"
        inquiry.add(
            Severity.WARNING,
            path,
            message,
            next_steps=inquiry.at_rest(advice.set_aside(inquiry.layout, found.name)),
        )
