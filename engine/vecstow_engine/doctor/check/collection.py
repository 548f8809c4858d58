"""The check of one collection, or of a whole volume without an engine: whether files belong together, and are
intact.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from vecstow_engine.doctor.check.advice import NextStep, NextSteps, Remedies, alternative, set_aside
from vecstow_engine.doctor.check.findings import (
    CheckReport,
    Inquiry,
    Progress,
    Severity,
    StartOutcome,
    no_progress,
)
from vecstow_engine.doctor.check.log import check_log
from vecstow_engine.doctor.check.table import check_meta, check_points, check_snapshots, check_structure
from vecstow_engine.doctor.check.volume_files import check_beside
from vecstow_engine.model.errors import Foreign, NotFound, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.discovery import Found, discover, rivals
from vecstow_engine.storage.identity import Identity, identity_of, read_header
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS, Layout
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.points.reader import table_at_rest
from vecstow_engine.storage.recovery_plan import match_files
from vecstow_engine.storage.volume import is_volume, stopped_volume, unserved


def check_volume(
    data: Path, names: Sequence[str] | None = None, progress: Progress = no_progress
) -> CheckReport:
    """Check a stopped volume or a copy of one, all of it or the collections of these names; write nothing.

    No engine can start on it meanwhile. Raises VolumeRefused when one runs, or when `data` is no folder, and
    NotFound for a name that has no folder.
    """
    layout = stopped_volume(data)
    report = CheckReport()
    with unserved(layout):
        folders = discover(layout)
        claimed = rivals(layout, folders)
        for found in wanted(layout, folders, names):
            remedies = Remedies(layout, found.name, is_sound)
            tell = partial(progress, found.name)
            _check(Inquiry(remedies, report, tell, is_rival=found.name in claimed), found)
        if names is None:
            check_beside(layout, report, folders)
    return report


def check_folder(layout: Layout, name: str, *, is_rival: bool = False, serving: bool = False) -> CheckReport:
    """Check one collection of a running engine as its folder is now, its manifest too.

    `is_rival`: another folder claims the same uid. `serving`: writes go on, so the newest log segment may end
    in a record that is not complete yet; the caller prevents checkpoints, snapshots and compactions.
    Raises NotFound when the folder is gone.
    """
    report = CheckReport()
    [found] = wanted(layout, discover(layout), [name])
    remedies = Remedies(layout, name, is_sound, served=True)
    _check(Inquiry(remedies, report, is_rival=is_rival, serving=serving), found)
    return report


def check_collection(
    layout: Layout, manifest: Manifest, progress: Progress, task: str, *, is_rival: bool = False
) -> CheckReport:
    """Check a collection that no program writes meanwhile, as this manifest describes it.

    `task` is the label of the progress. `is_rival`: another folder claims the same uid. The next steps name
    no backup.
    """
    report = CheckReport()
    tell = partial(progress, task)
    _examine(Inquiry(Remedies(layout, manifest.name), report, tell, is_rival=is_rival), manifest)
    return report


def is_sound(layout: Layout, name: str) -> bool:
    """Return whether a collection can be read, and every file and row of it passes its checks."""
    try:
        manifest = read_manifest(layout.collection(name))
    except (StorageError, OSError):
        return False
    return manifest is not None and check_collection(layout, manifest, no_progress, name).clean


def wanted(layout: Layout, folders: Sequence[Found], names: Sequence[str] | None) -> Sequence[Found]:
    """Return the folders of these names, or all; raise NotFound for a name that has no folder."""
    by_name = {found.name: found for found in folders}
    for name in names or ():
        if name not in by_name:
            missing = f"{layout.data} has no collection {name!r}"
            raise NotFound(missing, collection=name, hint=f"vecstow ls --data {layout.data}")
    return folders if names is None else [by_name[name] for name in names]


def _examine(inquiry: Inquiry, manifest: Manifest) -> None:
    """Check a collection whose manifest can be read."""
    inquiry.facts.update(
        dimension=manifest.dimension,
        distance_metric=manifest.distance_metric.value,
        vector_type=manifest.vector_type.value,
        collection_uid=manifest.collection_uid,
    )
    identity = _identify(inquiry, manifest)
    if identity is not None:
        _check_files(inquiry, identity)
    if manifest.dropped_at is not None:
        inquiry.outcome = StartOutcome.DROPPED
        moved = f"it was dropped at {manifest.dropped_at}; the next start of an engine moves it to .deleted/"
        inquiry.add(Severity.INFO, inquiry.folder / MANIFEST, moved)
    inquiry.facts["state"] = inquiry.outcome.value


def _check(inquiry: Inquiry, found: Found) -> None:
    if found.manifest is not None:
        _examine(inquiry, found.manifest)
        return
    identity = _header(inquiry)
    if found.bare and identity is None:
        _report_stray(inquiry, found)
        return
    _report_manifest(inquiry, found, identity)
    if identity is not None:
        _check_files(inquiry, identity)
    inquiry.outcome = StartOutcome.UNDECLARED
    inquiry.facts["state"] = inquiry.outcome.value


def _check_files(inquiry: Inquiry, identity: Identity) -> None:
    """Check the data files and the log of one incarnation, each as far as it can be read."""
    inquiry.facts.setdefault("collection_uid", identity.uid)
    path = inquiry.folder / POINTS
    with ExitStack() as stack:
        table = meta = None
        if path.exists():  # A missing file was found when the files were matched.
            with inquiry.reading(path):
                table = stack.enter_context(table_at_rest(path))
        if table is not None:
            meta = check_meta(inquiry, table, identity)
        replayed = check_log(inquiry, identity, meta)
        if table is not None:
            check_structure(inquiry, table)
        if table is not None and meta is not None:
            check_points(inquiry, table, identity, meta, replayed)
            check_snapshots(inquiry, table, meta)


def _identify(inquiry: Inquiry, manifest: Manifest) -> Identity | None:
    """Return whose files these are; None when there are no files, or files of another program."""
    path = inquiry.folder / ROWS
    identity = None
    try:
        with inquiry.reading(path, lambda: _advise(inquiry, manifest)):
            identity = match_files(inquiry.layout, inquiry.folder, manifest)
            if identity is None:
                inquiry.outcome = StartOutcome.EMPTY
    except Foreign as error:
        inquiry.outcome = StartOutcome.FOREIGN
        shape = "--dimension {} --metric {} --type {}".format(*manifest.shape)
        step = NextStep(command=f"vecstow import {inquiry.name} --orphan {inquiry.name} {shape}")
        message = "it was not written by Vecstow, and is left as it is"
        inquiry.add(Severity.INFO, path, message, offset=0, steps=(step,) if error.hint else ())
        return None
    if identity is not None or inquiry.outcome is StartOutcome.EMPTY:
        return identity
    # The files must have the header's shape, and the manifest's uid.
    header, uid = _header(inquiry), manifest.collection_uid
    if header is None:
        return identity_of(manifest, uid) if uid is not None else None
    return header if uid is None else dataclasses.replace(header, uid=uid)


def _advise(inquiry: Inquiry, manifest: Manifest) -> NextSteps | None:
    """Return the next steps when manifest and files do not match."""
    header = _header(inquiry)
    if header is None or header.uid != manifest.collection_uid or header.shape == manifest.shape:
        return None
    dimension, metric, vector_type = header.shape
    shape = f'"dimension": {dimension}, "distance_metric": "{metric}", "vector_type": "{vector_type}"'
    write = NextStep(f"write into metadata.json what the data is: {shape}")
    return *inquiry.remedies.repair, *alternative((write,))


def _header(inquiry: Inquiry) -> Identity | None:
    try:
        return read_header(inquiry.folder / ROWS)
    except (StorageError, OSError):
        return None


def _report_manifest(inquiry: Inquiry, found: Found, identity: Identity | None) -> None:
    path, remedies = inquiry.folder / MANIFEST, inquiry.remedies
    if not found.bare:
        with inquiry.reading(path, lambda: remedies.mend if identity is None else remedies.repair):
            read_manifest(inquiry.folder)
    else:
        inquiry.quarantine(path, "it is missing, next to data of a collection", steps=remedies.repair)


def _report_stray(inquiry: Inquiry, found: Found) -> None:
    """Report a folder that is no collection. Only one without data and without folders can be moved away."""
    message = "it is missing: the folder is no collection, and is skipped"
    steps: NextSteps = ()
    if is_volume(inquiry.folder):
        message = "it is missing: the folder is a data directory of its own, and is skipped"
        steps = (NextStep(command=f"vecstow check --data {shlex.quote(str(inquiry.folder))}"),)
    elif not found.has_data and _has_only_files(inquiry.folder):
        steps = inquiry.remedies.at_rest(set_aside(inquiry.layout, found.name))
    inquiry.add(Severity.WARNING, inquiry.folder / MANIFEST, message, steps=steps)


def _has_only_files(folder: Path) -> bool:
    """Whether a folder can be read, and no other folder is in it."""
    found = next(os.walk(folder), None)
    return found is not None and not found[1]
