"""The sidecar's reports on a whole volume: drift, damaged manifests, replaced collections, failures."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Container, Iterable, Iterator
from typing import Final

from vecstow_operator.observed import Observed
from vecstow_operator.sidecar.claim_list import Claims
from vecstow_operator.sidecar.collection_folders import CollectionFolders
from vecstow_operator.sidecar.decision import SidecarReport, mark_of, replaced
from vecstow_operator.vocabulary import Annotation, Reason

REVERTED_SECONDS: Final = 60.0
"""How long drift is reported: a manager that restarts meanwhile still sees it."""
_TIME: Final = re.compile(r"-([0-9]{8}T[0-9]{6}Z)")
"""The time of its creation in the name of a folder of `.quarantine/` or `.deleted/`."""


class RevertedDrift:
    """Drift that was reverted lately: no later pass sees it. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._reports: list[tuple[float, SidecarReport]] = []

    def add(self, report: SidecarReport, now: float) -> None:
        """Report this drift for a while. The time in its message distinguishes one drift from the next."""
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        stamped = dataclasses.replace(report, message=f"{report.message} (since {moment})")
        self._reports.append((now, stamped))

    def lasting(self, now: float) -> list[SidecarReport]:
        """Return the reports that are not too old; forget the others."""
        self._reports = [each for each in self._reports if now - each[0] < REVERTED_SECONDS]
        return [report for _, report in self._reports]


def reports_on_volume(
    volume: CollectionFolders, claims: Claims, reports: Iterable[SidecarReport]
) -> Iterator[SidecarReport]:
    """Yield the reports on folders in `.quarantine/` and `.deleted/`; `reports` are those on claims.

    Raises OSError.
    """
    rivals = {report.resource_uid for report in reports if report.reason is Reason.CONFLICT}
    yield from _manifests_set_aside(volume, claims)
    yield from _replacements(volume, claims, rivals)


def storage_failed(name: str, claims: Iterable[Observed], problem: str) -> tuple[SidecarReport, ...]:
    """Return the report of one problem for each resource that claims the collection."""
    return tuple(SidecarReport(name, claim.uid, Reason.STORAGE_FAILED, problem) for claim in claims)


def _manifests_set_aside(volume: CollectionFolders, claims: Claims) -> Iterator[SidecarReport]:
    """Report damaged manifests without an acknowledgement, except those older than their resource."""
    for name, folders in volume.evidence().items():
        for claim in claims.get(name, ()):
            own = {folder for folder in folders if _follows(folder, claim)}
            for folder in sorted(own - set(claim.acknowledged))[-1:]:
                yield SidecarReport(
                    name, claim.uid, Reason.MANIFEST_SET_ASIDE,
                    f"the manifest was damaged and is written again; .quarantine/{folder} has the old one",
                    f"when you have looked at it: kubectl annotate --overwrite vcol {claim.name} "
                    f"{Annotation.ACKNOWLEDGED.value}={','.join(folders)}",
                )  # fmt: skip


def _replacements(
    volume: CollectionFolders, claims: Claims, rivals: Container[str]
) -> Iterator[SidecarReport]:
    """Report the collections that resources replaced, until the manager removes the annotation."""
    for name, claimants in claims.items():
        for claim in claimants:
            if Annotation.REPLACE in claim.annotations and claim.uid not in rivals:
                yield from _replacement(volume, name, claim)


def _replacement(volume: CollectionFolders, name: str, claim: Observed) -> Iterator[SidecarReport]:
    for folder, manifest in volume.deleted(name).items():
        if claim.may_replace(mark_of(manifest)) and _follows(folder, claim):
            yield replaced(name, claim, folder, manifest)
            return


def _follows(folder: str, claim: Observed) -> bool:
    """Whether this folder of `.quarantine/` or `.deleted/` was made after the resource."""
    times = _TIME.findall(folder)
    return bool(times) and times[-1] >= _compact(claim.created_at)


def _compact(rfc3339: str) -> str:
    """Return a time as names of folders have it, so that text compares as time does."""
    return rfc3339.replace("-", "").replace(":", "")
