"""The damage of one collection, and what is left of it: all that a plan needs to know."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from vecstow_engine.doctor.check import CheckReport, Finding, Severity
from vecstow_engine.doctor.check.advice import LATER_RELEASE
from vecstow_engine.doctor.check.collection import examine
from vecstow_engine.doctor.check.inquiry import Inquiry, StartOutcome
from vecstow_engine.doctor.repair.chain import Gap
from vecstow_engine.doctor.repair.claims import Claims, Identification, judge, newest_header, read_claims
from vecstow_engine.doctor.repair.evidence import Evidence
from vecstow_engine.doctor.repair.plan import Progress
from vecstow_engine.doctor.repair.salvage import Salvage, salvage
from vecstow_engine.doctor.repair.table import DamagedTable, damaged_table
from vecstow_engine.model.errors import NewerFormat
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.discovery import claimed_beside
from vecstow_engine.storage.identity import identity_of
from vecstow_engine.storage.layout import INDEX, POINTS, ROWS, Layout, has_content
from vecstow_engine.storage.points.reader import table_at_rest
from vecstow_engine.storage.snapshots import valid_snapshot

REASONS_MAX: Final = 5
_LEFT_ALONE: Final = (StartOutcome.FOREIGN, StartOutcome.DROPPED, StartOutcome.EMPTY)


@dataclass(frozen=True, slots=True)
class Observation:
    """One collection as it lies there."""

    name: str
    claims: Claims | None = None
    identification: Identification = Identification(None)  # noqa: RUF009  # frozen, so it may be shared
    reasons: tuple[str, ...] = ()
    """Why its files must be written again; none: they are sound."""
    index_fault: str | None = None
    salvage: Salvage | None = None
    owns_log: bool = True
    """False: another folder claims the same uid, and may need the log."""


@contextmanager
def observe(
    layout: Layout, name: str, progress: Progress, *, rebuild_reason: str | None = None
) -> Iterator[Observation]:
    """Read all of a collection; the evidence is there until the end of the block.

    `rebuild_reason`: why it must be written again though its files are sound.
    """
    with ExitStack() as stack:
        try:
            with damaged_table(layout.collection(name) / POINTS) as table:
                observation = _observe(layout, name, progress, table, stack, rebuild_reason)
        except NewerFormat as error:
            observation = Observation(name, identification=Identification(None, error.message, LATER_RELEASE))
        yield observation


def _observe(
    layout: Layout,
    name: str,
    progress: Progress,
    table: DamagedTable,
    stack: ExitStack,
    rebuild_reason: str | None,
) -> Observation:
    claims = read_claims(layout, name, table.meta())
    if _is_nothing(layout, claims):
        return Observation(
            name, claims, Identification(None, warnings=("the folder holds no data: no collection",))
        )
    identification = judge(claims)
    found = Observation(name, claims, identification, () if rebuild_reason is None else (rebuild_reason,))
    manifest = identification.manifest
    if manifest is None or identification.impossible is not None:
        return found
    # Another folder with the same uid is a copy, perhaps of a collection that is served.
    found = replace(found, owns_log=manifest.collection_uid not in claimed_beside(layout, name))
    report = _check(layout, manifest, progress, is_rival=not found.owns_log)
    if report.collections[name]["state"] in _LEFT_ALONE:
        return replace(found, reasons=())
    found = replace(found, reasons=(*found.reasons, *_reasons(report)))
    if not found.reasons:
        return replace(found, index_fault=_index_fault(layout, name))
    if manifest.collection_uid is None:
        return replace(found, identification=Identification(manifest, "nothing says which incarnation it is"))
    evidence = stack.enter_context(closing(Evidence()))
    return replace(found, salvage=_salvaged(layout, found, claims, manifest, table, evidence, progress))


def _salvaged(
    layout: Layout, found: Observation, claims: Claims, manifest: Manifest, table: DamagedTable,
    evidence: Evidence, progress: Progress,
) -> Salvage:  # fmt: skip
    assert manifest.collection_uid is not None
    name, identity = claims.name, identity_of(manifest, manifest.collection_uid)
    newest = newest_header(claims.segments)
    reads_log = found.owns_log or (newest is not None and newest.identity.name == name)
    left = salvage(
        layout, name, identity, table, claims.meta, claims.segments if reads_log else (), evidence,
        lambda what, done, total: progress(f"{name}: {what}", done, total),
    )  # fmt: skip
    if claims.segments:
        return left
    lost = "the log is gone, and with it what was written after the last checkpoint"
    log = Gap(left.applied, None, os.path.relpath(layout.log(identity.uid), layout.data), reason=lost)
    return replace(left, gaps=(log,))


def _check(layout: Layout, manifest: Manifest, progress: Progress, *, is_rival: bool) -> CheckReport:
    """Check as `vecstow check` does, with the right manifest and without a look for backups."""
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


def _index_fault(layout: Layout, name: str) -> str | None:
    """Return why a start would not take `index.bin`; None when it would, or there is none."""
    folder = layout.collection(name)
    if not (folder / INDEX).exists():
        return None
    with table_at_rest(folder / POINTS) as table:
        entry, remark = valid_snapshot(folder, table, table.meta().applied)
    return None if entry is not None else remark


def _is_nothing(layout: Layout, claims: Claims) -> bool:
    """Whether a folder has no manifest and no file that ever held data."""
    files = (layout.collection(claims.name) / file for file in (ROWS, POINTS))
    return claims.manifest is None and claims.uid is None and not any(map(has_content, files))
