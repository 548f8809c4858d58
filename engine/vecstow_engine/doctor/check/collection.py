"""One collection: do its files belong together, and is what they hold intact."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from functools import partial

from vecstow_engine.doctor.check import advice
from vecstow_engine.doctor.check.findings import CheckReport, NextSteps, Progress, Severity, no_progress
from vecstow_engine.doctor.check.index import check_index
from vecstow_engine.doctor.check.inquiry import Inquiry, StartOutcome
from vecstow_engine.doctor.check.log import check_log
from vecstow_engine.doctor.check.structure import check_structure
from vecstow_engine.doctor.check.table import check_meta, check_points
from vecstow_engine.model.errors import Foreign, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.identity import Identity, identity_of, read_header
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS, Layout
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.points.reader import PointTable, table_at_rest
from vecstow_engine.storage.recovery_plan import match_files


def check_collection(
    layout: Layout,
    manifest: Manifest,
    progress: Progress = no_progress,
    *,
    is_rival: bool = False,
    serving: bool = False,
) -> CheckReport:
    """Read every file and row of one collection; the caller prevents checkpoints, snapshots and compactions.

    `is_rival`: another folder claims the same uid. `serving`: writes go on, so the newest log segment may end
    in a record that is not complete yet.
    """
    report = CheckReport()
    inquiry = Inquiry(layout, manifest.name, report, is_sound, served=serving)
    examine(inquiry, manifest, progress, is_rival=is_rival, serving=serving)
    return report


def is_sound(layout: Layout, name: str) -> bool:
    """Whether a collection can be read, and every file and row of it passes its checks."""
    try:
        manifest = read_manifest(layout.collection(name))
    except (StorageError, OSError):
        return False
    return manifest is not None and check_collection(layout, manifest).clean


def examine(
    inquiry: Inquiry, manifest: Manifest, progress: Progress, *, is_rival: bool = False, serving: bool = False
) -> None:
    """Check a collection whose manifest can be read."""
    inquiry.facts.update(
        dimension=manifest.dimension, distance_metric=manifest.distance_metric.value,
        vector_type=manifest.vector_type.value, collection_uid=manifest.collection_uid,
    )  # fmt: skip
    identity = _identify(inquiry, manifest)
    if identity is not None:
        examine_files(inquiry, identity, progress, is_rival=is_rival, serving=serving)
    if manifest.dropped_at is not None:
        inquiry.outcome = StartOutcome.DROPPED
        message = (
            f"it was dropped at {manifest.dropped_at}; the next start of an engine moves it to .deleted/"
        )
        inquiry.add(Severity.INFO, inquiry.folder / MANIFEST, message)
    inquiry.facts["state"] = inquiry.outcome.value


def examine_files(
    inquiry: Inquiry, identity: Identity, progress: Progress, *, is_rival: bool = False, serving: bool = False
) -> None:
    """Check the data files and the log of one incarnation, each as far as it can be read."""
    inquiry.facts.setdefault("collection_uid", identity.uid)
    with ExitStack() as stack:
        table = _open_table(inquiry, stack)
        meta = check_meta(inquiry, table, identity) if table is not None else None
        replayed = check_log(inquiry, identity, meta, is_rival=is_rival, serving=serving)
        if table is not None:
            check_structure(inquiry, table)
        if table is not None and meta is not None:
            check_points(inquiry, table, identity, meta, replayed, progress)
            check_index(inquiry, table, meta)


def _open_table(inquiry: Inquiry, stack: ExitStack) -> PointTable | None:
    """The point table until `stack` ends; None when it cannot be opened, which is then reported."""
    path = inquiry.folder / POINTS
    if path.exists():  # a missing one was found when the files were matched
        with inquiry.reading(path, inquiry.mend):
            return stack.enter_context(table_at_rest(path))
    return None


def _identify(inquiry: Inquiry, manifest: Manifest) -> Identity | None:
    """Whose files these are; None when there are none, or none of ours."""
    path = inquiry.folder / ROWS
    identity: Identity | None = None
    try:
        with inquiry.reading(path, partial(_advise, inquiry, manifest)):
            identity = match_files(inquiry.layout, inquiry.folder, manifest)
            if identity is None:
                inquiry.outcome = StartOutcome.EMPTY
            return identity
    except Foreign as error:
        inquiry.outcome = StartOutcome.FOREIGN
        inquiry.add(
            Severity.INFO, path, "it was not written by Vecstow, and is left as it is", offset=0,
            next_steps=advice.import_foreign(manifest) if error.hint else (),
        )  # fmt: skip
        return None
    return _presumed(inquiry, manifest)


def _advise(inquiry: Inquiry, manifest: Manifest) -> NextSteps:
    """Return what to do when manifest and files do not match."""
    try:
        header = read_header(inquiry.folder / ROWS)
    except (StorageError, OSError):
        return inquiry.mend()
    if header.uid == manifest.collection_uid and header.shape != manifest.shape:
        return *inquiry.repair(), *advice.alternative((advice.put_manifest_right(header),))
    return inquiry.mend()


def _presumed(inquiry: Inquiry, manifest: Manifest) -> Identity | None:
    """Whose files they must be though they do not match: the header's shape, the manifest's uid."""
    uid = manifest.collection_uid
    try:
        header = read_header(inquiry.folder / ROWS)
    except (StorageError, OSError):
        return identity_of(manifest, uid) if uid is not None else None
    return header if uid is None else dataclasses.replace(header, uid=uid)
