"""The sidecar's reports on a whole volume, and their way to the engine of the same pod.

A decision reports on claims. This module adds drift, damaged manifests, replaced collections and failures.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

import urllib3

from vecstow_operator.keys import REFUSALS, EngineKey, NoKey
from vecstow_operator.observed import Observed, Report, report_on
from vecstow_operator.sidecar.collection_folders import CollectionFolders
from vecstow_operator.sidecar.decision import Claims, mark_of, replaced
from vecstow_operator.vocabulary import Annotation, Reason

TIMEOUT: Final = urllib3.Timeout(connect=1.0, read=30.0)
REVERTED_SECONDS: Final = 60.0
"""How long drift is reported: a manager that restarts meanwhile still sees it."""
_TIME: Final = re.compile(r"-([0-9]{8}T[0-9]{6}Z)")
"""The time of its creation in the name of a folder of `.quarantine/` or `.deleted/`."""


class EngineAway(Exception):
    """Raised when the engine took no reports."""


class EngineRefuses(EngineAway):
    """Raised when the engine wants a key, or another one: waiting does not help."""


class EngineClient:
    """A client of the engine in the sidecar's pod, over localhost."""

    def __init__(self, url: str, key: EngineKey | None = None) -> None:
        self._url = url.rstrip("/")
        self._key = key or EngineKey()
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    def poke(self, reports: Iterable[Report]) -> None:
        """Send the reports, and start a rescan of manifests: `POST /state/refresh`. Raises EngineAway."""
        body = json.dumps({"resources": [report.document() for report in reports]})
        try:
            headers = {"Content-Type": "application/json"} | self._key.headers()
            answer = self._pool.request("POST", f"{self._url}/state/refresh", body=body, headers=headers)
        except NoKey as error:
            raise EngineRefuses(str(error)) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise EngineAway(str(error)) from error
        if answer.status != 200:
            kind = EngineRefuses if answer.status in REFUSALS else EngineAway
            said = f"{answer.status}: {answer.data[:200].decode(errors='replace')}"
            raise kind(f"it says {said}; the key comes from {self._key.source}")


class RevertedDrift:
    """Drift that was reverted lately: no later pass sees it. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._reports: list[tuple[float, Report]] = []

    def add(self, report: Report, now: float) -> None:
        """Report this drift for a while. The time in its message distinguishes one drift from the next."""
        moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        stamped = dataclasses.replace(report, message=f"{report.message} (since {moment})")
        self._reports.append((now, stamped))

    def lasting(self, now: float) -> list[Report]:
        """Return the reports that are not too old; forget the others."""
        self._reports = [each for each in self._reports if now - each[0] < REVERTED_SECONDS]
        return [report for _, report in self._reports]


def storage_failed(claims: Iterable[Observed], problem: str) -> tuple[Report, ...]:
    """Return the report of one problem for each resource that claims a collection."""
    return tuple(report_on(claim, Reason.STORAGE_FAILED, problem) for claim in claims)


def manifests_set_aside(volume: CollectionFolders, claims: Claims) -> Iterator[Report]:
    """Yield reports on damaged manifests without an acknowledgement, except those older than their resource.

    Raises OSError.
    """
    for name, folders in volume.evidence().items():
        for claim in claims.get(name, ()):
            own = {folder for folder in folders if _follows(folder, claim)}
            for folder in sorted(own - set(claim.acknowledged))[-1:]:
                yield report_on(
                    claim,
                    Reason.MANIFEST_SET_ASIDE,
                    f"the manifest was damaged and is written again; .quarantine/{folder} has the old one",
                    f"when you have looked at it: kubectl annotate --overwrite vcol {claim.name} "
                    f"{Annotation.ACKNOWLEDGED.value}={','.join(folders)}",
                )


def replacements(volume: CollectionFolders, claims: Claims, reports: Iterable[Report]) -> Iterator[Report]:
    """Yield a report on each collection that a resource replaced, until the manager removes the annotation.

    A resource with a conflict among its `reports` waits. Raises OSError.
    """
    rivals = {report.resource_uid for report in reports if report.reason is Reason.CONFLICT}
    for name, claimants in claims.items():
        for claim in claimants:
            if Annotation.REPLACE in claim.annotations and claim.uid not in rivals:
                yield from _replacement(volume, name, claim)


def _replacement(volume: CollectionFolders, name: str, claim: Observed) -> Iterator[Report]:
    for folder, manifest in volume.deleted(name).items():
        if claim.may_replace(mark_of(manifest)) and _follows(folder, claim):
            yield replaced(claim, folder, manifest)
            return


def _follows(folder: str, claim: Observed) -> bool:
    """Whether this folder of `.quarantine/` or `.deleted/` was made after the resource."""
    times = _TIME.findall(folder)
    # Without these signs a time is as folders have it, so that text compares as time does.
    return bool(times) and times[-1] >= claim.created_at.replace("-", "").replace(":", "")
