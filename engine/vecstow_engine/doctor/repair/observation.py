"""The damage of one collection, whose files these are, and what is left of them: all that a plan needs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from vecstow_engine.doctor.check import CheckReport, Finding, Progress, Severity
from vecstow_engine.doctor.check.advice import LATER_RELEASE
from vecstow_engine.doctor.check.collection import check_collection
from vecstow_engine.doctor.check.findings import StartOutcome
from vecstow_engine.doctor.repair.evidence import Evidence, Loss, typed_errors
from vecstow_engine.doctor.repair.salvage import Salvage, salvage
from vecstow_engine.doctor.repair.table import DamagedTable, damaged_table
from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage.discovery import claimed_beside
from vecstow_engine.storage.identity import Identity, identity_of, read_header
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS, Layout, has_content, rfc3339
from vecstow_engine.storage.log.replay import FoundSegment, read_log
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.points.records import Meta

REASONS_MAX: Final = 5
_LEFT_ALONE: Final = (StartOutcome.FOREIGN, StartOutcome.DROPPED, StartOutcome.EMPTY)


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of each file about itself; None for a file that is missing or unreadable."""

    name: str
    manifest: Manifest | None = None
    manifest_fault: str | None = None
    """Why there is no manifest."""
    header: Identity | None = None
    """The claim of `vectors.bin`."""
    meta: Meta | None = None
    """The claim of `points.db`."""
    segments: tuple[FoundSegment, ...] = ()
    """The segments of the log of `uid`."""

    @property
    def uid(self) -> str | None:
        """The incarnation that most of them name; else that of the meta row, the header, the manifest."""
        of_data = [claim.uid for claim in (self.meta, self.header) if claim is not None]
        of_manifest = [self.manifest.collection_uid] if self.manifest else []
        said = Counter([*of_data, *filter(None, of_manifest)])
        return said.most_common(1)[0][0] if said else None

    @property
    def newest(self) -> Identity | None:
        """The collection that the newest readable header of the log names."""
        headers = [segment.header for segment in self.segments if segment.header is not None]
        return headers[-1].identity if headers else None


@dataclass(frozen=True, slots=True)
class Observation:
    """One collection as it lies there."""

    claims: Claims
    manifest: Manifest | None = None
    """As it should be; None when nothing tells the shape."""
    impossible: str | None = None
    """Why nothing can be done here."""
    hint: str | None = None
    warnings: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why its files must be written again; none: they are sound."""
    salvage: Salvage | None = None
    """The data that is left; None: the files are not written again."""
    owns_log: bool = True
    """False: another folder claims the same uid, and may need the log."""


@contextmanager
def observe(
    layout: Layout, name: str, progress: Progress, *, rebuild_reason: str | None = None
) -> Iterator[Observation]:
    """Read all of a collection; the evidence is there until the end of the block.

    `rebuild_reason`: why it must be written again though its files are sound.
    """
    with typed_errors(), closing(Evidence()) as evidence:
        try:
            with damaged_table(layout.collection(name) / POINTS) as table:
                claims = _read_claims(layout, name, table.meta())
                found = _observe(layout, claims, table, evidence, progress, rebuild_reason)
        except NewerFormat as error:
            found = Observation(Claims(name), impossible=error.message, hint=LATER_RELEASE)
        yield found


def _observe(
    layout: Layout,
    claims: Claims,
    table: DamagedTable,
    evidence: Evidence,
    progress: Progress,
    rebuild_reason: str | None,
) -> Observation:
    name = claims.name
    files = (layout.collection(name) / file for file in (ROWS, POINTS))
    if claims.manifest is None and claims.uid is None and not any(map(has_content, files)):
        return Observation(claims, warnings=("the folder holds no data: no collection",))
    found = judge(claims)
    manifest = found.manifest
    if manifest is None or found.impossible is not None:
        return replace(found, reasons=() if rebuild_reason is None else (rebuild_reason,))
    # Another folder with the same uid is a copy, perhaps of a collection that is served.
    found = replace(found, owns_log=manifest.collection_uid not in claimed_beside(layout, name))
    report = check_collection(layout, manifest, progress, "checking", is_rival=not found.owns_log)
    if report.collections[name]["state"] in _LEFT_ALONE:
        return found
    found = replace(found, reasons=(*filter(None, [rebuild_reason]), *_reasons(report)))
    if not found.reasons:
        return found
    if manifest.collection_uid is None:
        return replace(found, impossible="nothing says which incarnation it is")
    identity = identity_of(manifest, manifest.collection_uid)
    reads_log = found.owns_log or (claims.newest is not None and claims.newest.name == name)
    segments = claims.segments if reads_log else ()
    left = salvage(layout, name, identity, table, claims.meta, segments, evidence, progress)
    if not claims.segments:
        reason = "the log is gone, and with it what was written after the last checkpoint"
        log = str(layout.log(identity.uid).relative_to(layout.data))
        left = replace(left, lost_records=(Loss(reason, log, 0, records=(left.applied + 1, None)),))
    return replace(found, salvage=left)


def _read_claims(layout: Layout, name: str, meta: Meta | None) -> Claims:
    """Read manifest, header and log of a folder. Raises NewerFormat for what a later release wrote."""
    manifest = header = None
    fault: str | None = "it is missing"
    try:
        manifest = read_manifest(layout.collection(name))
    except DamagedFile as error:
        fault = error.reason
    with suppress(DamagedFile, OSError):
        header = read_header(layout.collection(name) / ROWS)
    claims = Claims(name, manifest, None if manifest is not None else fault, header, meta)
    return claims if claims.uid is None else replace(claims, segments=tuple(read_log(layout.log(claims.uid))))


def judge(claims: Claims) -> Observation:
    """Decide which collection this is. Pure."""
    manifest, uid = claims.manifest, claims.uid
    for file, claim in ((POINTS, claims.meta), (ROWS, claims.header)):
        if claim is not None and claim.uid != uid:
            # Nothing tells which points of it belong to this incarnation.
            stranger = f"{file} belongs to incarnation {claim.uid}, not {uid}"
            return Observation(claims, manifest, impossible=stranger, hint="put the right file back")
    identity = claims.header
    if identity is None and claims.newest is not None and claims.newest.uid == uid:
        identity = claims.newest
    if manifest is not None:
        return _with_manifest(claims, manifest, identity)
    if identity is None:
        none = "no file tells its dimension, metric and type"
        return Observation(claims, impossible=none, hint=f"put {MANIFEST} back from a copy")
    rebuilt = Manifest(claims.name, *identity.shape, collection_uid=identity.uid, created_at=rfc3339())
    lost = "index settings are the defaults; owner, payload indexes and who manages it are not known"
    return Observation(claims, rebuilt, warnings=(f"{MANIFEST} is rebuilt from the headers: {lost}",))


def _with_manifest(claims: Claims, manifest: Manifest, identity: Identity | None) -> Observation:
    """Put uid and shape of the manifest right."""
    dimension, metric, vector_type = manifest.shape if identity is None else identity.shape
    right = dataclasses.replace(
        manifest,
        collection_uid=claims.uid,
        dimension=dimension,
        distance_metric=metric,
        vector_type=vector_type,
    )
    warnings: tuple[str, ...] = ()
    if manifest.shape != right.shape:
        words = "dimension {}, {}, {}".format(*right.shape)
        warnings = (f"{MANIFEST} says another shape than the data has, which is {words}",)
    elif manifest.collection_uid not in (None, claims.uid):
        uids = f"{manifest.collection_uid}, but the data is of {claims.uid}"
        warnings = (f"{MANIFEST} names incarnation {uids}",)
    return Observation(claims, right, warnings=warnings)


def _reasons(report: CheckReport) -> Iterator[str]:
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    yield from map(_reason, errors[:REASONS_MAX])
    if report.errors > REASONS_MAX:
        yield f"and {report.errors - REASONS_MAX} more"


def _reason(finding: Finding) -> str:
    where = finding.file if finding.offset is None else f"{finding.file} at byte {finding.offset}"
    return f"{where}: {finding.message}"
