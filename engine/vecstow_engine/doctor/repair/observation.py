"""What is wrong with one collection, and what is left of it: all that a plan needs to know."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from vecstow_engine.doctor.check import CheckReport, Finding, Severity
from vecstow_engine.doctor.check.advice import LATER_RELEASE
from vecstow_engine.doctor.check.collection import examine
from vecstow_engine.doctor.check.inquiry import Inquiry, StartOutcome
from vecstow_engine.doctor.repair.chain import Unread
from vecstow_engine.doctor.repair.claims import Claims, Identification, judge, read_claims
from vecstow_engine.doctor.repair.plan import Progress
from vecstow_engine.doctor.repair.salvage import Salvage, TableReading, salvage
from vecstow_engine.model.errors import NewerFormat, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.collection_identity import identity_of
from vecstow_engine.storage.discovery import claimed_beside
from vecstow_engine.storage.layout import INDEX, POINTS, ROWS, Layout, has_content
from vecstow_engine.storage.log.replay import FoundSegment
from vecstow_engine.storage.points.read_at_rest import table_at_rest
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.snapshots import valid_snapshot

REASONS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Observation:
    """One collection as it lies there."""

    name: str
    claims: Claims | None = None
    identification: Identification = Identification(None)  # noqa: RUF009  # frozen, so it may be shared
    reasons: tuple[str, ...] = ()
    """Why its files must be made anew; none: they are sound."""
    index_fault: str | None = None
    salvage: Salvage | None = None
    owns_log: bool = True
    """False: another folder claims the same uid, and may need the log."""
    log_is_there: bool = True
    table_is_there: bool = True


@contextmanager
def observe(
    layout: Layout, name: str, progress: Progress, *, anew: str | None = None
) -> Iterator[Observation]:
    """Read all of a collection; what was met of its points is there until the end of the block.

    `anew`: why it must be written anew though its files are sound.
    """
    with ExitStack() as stack:
        try:
            observation = _observe(layout, name, progress, stack, anew=anew)
        except NewerFormat as error:
            observation = Observation(name, identification=Identification(None, error.message, LATER_RELEASE))
        yield observation


def _observe(
    layout: Layout, name: str, progress: Progress, stack: ExitStack, *, anew: str | None
) -> Observation:
    folder = layout.collection(name)
    claims = read_claims(layout, name, _quick_meta(layout, name))
    identification = judge(claims)
    reasons: tuple[str, ...] = () if anew is None else (anew,)
    if _is_nothing(layout, claims):
        return Observation(
            name, claims, Identification(None, warnings=("the folder holds no data: no collection",))
        )
    is_rival = _is_rival(layout, identification, name)
    if identification.manifest is not None and identification.impossible is None:
        report = _check(layout, identification.manifest, progress, is_rival=is_rival)
        if report.collections[name]["state"] in (
            StartOutcome.FOREIGN,
            StartOutcome.DROPPED,
            StartOutcome.EMPTY,
        ):
            return Observation(name, claims, identification)
        reasons += _reasons(report)
        if not reasons:
            return Observation(name, claims, identification, index_fault=_index_fault(layout, name))
    reading = TableReading(
        folder / POINTS, lambda done, total: progress(f"{name}: reading points", done, total)
    )
    stack.enter_context(closing(reading))
    if claims.meta is None and reading.meta is not None:
        claims = read_claims(layout, name, reading.meta)
        identification = judge(claims)
        is_rival = _is_rival(layout, identification, name)
    if identification.manifest is None or identification.impossible is not None:
        return Observation(name, claims, identification, reasons)
    return _salvaged(layout, claims, identification, reasons, reading, progress, is_rival=is_rival)


def _salvaged(
    layout: Layout, claims: Claims, identification: Identification, reasons: tuple[str, ...],
    reading: TableReading, progress: Progress, *, is_rival: bool,
) -> Observation:  # fmt: skip
    manifest, name = identification.manifest, claims.name
    assert manifest is not None
    if manifest.collection_uid is None:
        return Observation(
            name, claims, Identification(manifest, "nothing says which incarnation it is"), reasons
        )
    reads_log = not is_rival or _newest_name(claims.segments) == name
    identity = identity_of(manifest, manifest.collection_uid)
    found = salvage(
        layout, name, identity, reading, claims.segments if reads_log else (),
        lambda done, total: progress(f"{name}: reading rows", done, total),
    )  # fmt: skip
    if not claims.segments:
        lost = "the log is gone, and with it what was written after the last checkpoint"
        log = os.path.relpath(layout.log(identity.uid), layout.data)
        found = dataclasses.replace(found, unread=Unread(found.applied, log, lost))
    return Observation(
        name, claims, identification, reasons, salvage=found,
        owns_log=not is_rival, log_is_there=bool(claims.segments),
        table_is_there=reading.is_there,
    )  # fmt: skip


def _is_rival(layout: Layout, identification: Identification, name: str) -> bool:
    """Whether another folder claims the same uid: a copy, perhaps of a collection that is served."""
    return identification.manifest is not None and identification.manifest.collection_uid in claimed_beside(
        layout, name
    )


def _check(layout: Layout, manifest: Manifest, progress: Progress, *, is_rival: bool) -> CheckReport:
    """As `vecstow check`, with the manifest as it should be; backups are not looked for."""
    report = CheckReport()
    inquiry = Inquiry(layout, manifest.name, report, lambda layout, name: False)
    examine(
        inquiry, manifest, lambda name, done, total: progress(f"{name}: checking", done, total),
        is_rival=is_rival,
    )  # fmt: skip
    return report


def _reasons(report: CheckReport) -> tuple[str, ...]:
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    more = report.document()["errors"]
    assert isinstance(more, int)
    told = tuple(map(_reason, errors[:REASONS_MAX]))
    return (*told, f"and {more - REASONS_MAX} more") if more > REASONS_MAX else told


def _reason(finding: Finding) -> str:
    where = finding.file if finding.offset is None else f"{finding.file} at byte {finding.offset}"
    return f"{where}: {finding.message}"


def _quick_meta(layout: Layout, name: str) -> Meta | None:
    path = layout.collection(name) / POINTS
    with suppress(StorageError, OSError), table_at_rest(path) as table:
        return table.meta()
    return None


def _index_fault(layout: Layout, name: str) -> str | None:
    """Why a start would not take `index.bin`; None when it would, or there is none."""
    folder = layout.collection(name)
    if not (folder / INDEX).exists():
        return None
    with table_at_rest(folder / POINTS) as table:
        entry, remark = valid_snapshot(folder, table, table.meta().applied)
    return None if entry is not None else remark


def _is_nothing(layout: Layout, claims: Claims) -> bool:
    """No manifest, and no file that ever held data: a folder of somebody else's."""
    files = (layout.collection(claims.name) / file for file in (ROWS, POINTS))
    return claims.manifest is None and claims.uid is None and not any(map(has_content, files))


def _newest_name(segments: tuple[FoundSegment, ...]) -> str | None:
    headers = [segment.header for segment in segments if segment.header is not None]
    return headers[-1].identity.name if headers else None
