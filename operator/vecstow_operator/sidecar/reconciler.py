"""A pass of the sidecar: observe, decide for each collection, act, tell the engine."""

from __future__ import annotations

import dataclasses
import datetime
import re
import time
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.manifest import ManagedBy
from vecstow_operator.health import Heartbeat
from vecstow_operator.kube import LIST_SECONDS_MAX, Away, Cluster
from vecstow_operator.metrics import Metrics
from vecstow_operator.observed import Observed, observed
from vecstow_operator.sidecar.collection_folders import CollectionFolders
from vecstow_operator.sidecar.decision import Decision, Folder, SidecarReport, decide, mark_of, replaced
from vecstow_operator.sidecar.engine_client import EngineAway, EngineClient, EngineRefuses
from vecstow_operator.vocabulary import Annotation, Reason

REVERTED_SECONDS: Final = 60.0
"""How long drift is reported: a manager that restarts meanwhile still sees it."""
_TIME: Final = re.compile(r"-([0-9]{8}T[0-9]{6}Z)")
"""When a folder of `.quarantine/` or `.deleted/` was made, in its name."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Case:
    """All that one decision is made of."""

    claims: tuple[Observed, ...]
    folder: Folder
    volume_id: str | None


class Sidecar:
    """Not thread-safe: one loop calls it."""

    def __init__(
        self,
        cluster: Cluster,
        engine: str,
        volume: CollectionFolders,
        beside: EngineClient,
        metrics: Metrics,
        heartbeat: Heartbeat,
    ) -> None:
        self._cluster = cluster
        self._engine = engine
        self._volume = volume
        self._beside = beside
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._claims: dict[str, tuple[Observed, ...]] | None = None
        """By collection; None until a list was complete."""
        self._listed_at = float("-inf")
        self._decided: dict[str, tuple[Case, Decision]] = {}
        """What is as it should be need not be decided again."""
        self._failures: dict[str, str] = {}
        """By collection: what is logged once, and tried again in each pass."""
        self._reverted: list[tuple[float, SidecarReport]] = []
        """Drift that was put right lately, and when: no later pass sees it."""
        self._is_away = False
        self._refused: str | None = None
        """Why the engine took no poke; logged once when a key would help."""

    @property
    def knows_all(self) -> bool:
        """Whether the last list was complete."""
        return self._claims is not None and not self._is_away

    def run_pass(self, *, is_woken: bool) -> None:
        """Look at everything once. Neither an API server nor an engine that is away makes it raise."""
        with self._metrics.timed_pass():
            if is_woken or self._is_away or time.monotonic() - self._listed_at >= LIST_SECONDS_MAX:
                self._list()
            if self._claims is not None and self._volume.is_there:
                self._poke(self._reconcile(self._claims))

    def _list(self) -> None:
        try:
            listed = list(self._observed())
            if any(map(_waits_for_drop, listed)) and self._cluster.definition_ends():
                raise Away("the definition is being deleted: no resource says what to drop")
        except Away as away:
            self._metrics.errors.labels("api_server").inc()
            if not self._is_away:
                log.warning("resources are unknown", reason=str(away))
            self._is_away = True
            return
        if self._is_away:
            log.info("resources are known again", count=len(listed))
        self._is_away = False
        self._listed_at = time.monotonic()
        self._claims = _by_collection(listed)
        self._metrics.resources.set(len(listed))
        self._metrics.pass_was_complete()

    def _observed(self) -> Iterator[Observed]:
        for document in self._cluster.resources(self._engine):
            self._heartbeat.beat()
            yield observed(document)

    def _reconcile(self, claims: dict[str, tuple[Observed, ...]]) -> list[SidecarReport]:
        try:
            return self._act_on_all(claims)
        except OSError as error:
            self._metrics.errors.labels("volume").inc()
            log.error("volume cannot be read", reason=str(error))
            problem = f"the volume cannot be read: {error}"
            return [_failed(name, claim, problem) for name, wanting in claims.items() for claim in wanting]

    def _act_on_all(self, claims: dict[str, tuple[Observed, ...]]) -> list[SidecarReport]:
        """Bring each manifest to what it should be; returns what is to be told."""
        folders = self._volume.look()
        volume_id = self._volume.volume_id()
        managed = {
            n for n, f in folders.items() if f.manifest and f.manifest.managed_by is ManagedBy.KUBERNETES
        }
        names = dict.fromkeys(sorted(claims.keys() | managed))
        findings: list[SidecarReport] = []
        self._decided = {name: known for name, known in self._decided.items() if name in names}
        self._failures = {name: text for name, text in self._failures.items() if name in names}
        for place, name in enumerate(names):
            self._heartbeat.beat()
            self._metrics.queue_depth.set(len(names) - place)
            case = Case(claims.get(name, ()), folders.get(name, Folder()), volume_id)
            findings += self._act_on(name, case).findings
        self._metrics.queue_depth.set(0)
        rivals = {finding.resource_uid for finding in findings if finding.reason is Reason.CONFLICT}
        now = time.monotonic()
        self._reverted = [each for each in self._reverted if now - each[0] < REVERTED_SECONDS]
        findings += [finding for _, finding in self._reverted]
        return [*findings, *self._set_aside(claims), *self._replaced(claims, rivals)]

    def _act_on(self, name: str, case: Case) -> Decision:
        known = self._decided.get(name)
        if known is not None and known[0] == case:
            return known[1]
        if self._is_away and not case.claims:
            return Decision()  # whose resource it is nobody knows now
        decision = decide(name, case.claims, case.folder, case.volume_id)
        if not decision.changes:
            self._decided[name] = case, decision
            return decision
        try:
            done = self._volume.change(name, lambda folder: decide(name, case.claims, folder, case.volume_id))
        except (VecstowError, OSError) as error:
            return self._failed(name, case, str(error))
        self._failures.pop(name, None)
        if done.changes:
            self._metrics.reconciles.inc()
        if done.reverted is not None:
            self._reverted.append((time.monotonic(), stamped(done.reverted)))
        return done

    def _failed(self, name: str, case: Case, reason: str) -> Decision:
        self._metrics.errors.labels("volume").inc()
        if self._failures.get(name) != reason:
            log.error("manifest could not be changed", collection=name, reason=reason)
        self._failures[name] = reason
        problem = f"the manifest cannot be written: {reason}"
        return Decision(findings=tuple(_failed(name, claim, problem) for claim in case.claims))

    def _set_aside(self, claims: dict[str, tuple[Observed, ...]]) -> Iterable[SidecarReport]:
        """Evidence of damaged manifests that nobody has said to have looked at.

        What is older than a resource is not of its manifest.
        """
        for name, folders in self._volume.evidence().items():
            for claim in claims.get(name, ()):
                own = {folder for folder in folders if _follows(folder, claim)}
                for folder in sorted(own - set(claim.acknowledged))[-1:]:
                    yield SidecarReport(
                        name, claim.uid, Reason.MANIFEST_SET_ASIDE,
                        f"the manifest was damaged and is written anew; .quarantine/{folder} has the old one",
                        f"when you have looked at it: kubectl annotate --overwrite vcol {claim.name} "
                        f"{Annotation.ACKNOWLEDGED.value}={','.join(folders)}",
                    )  # fmt: skip

    def _replaced(
        self, claims: dict[str, tuple[Observed, ...]], rivals: Container[str]
    ) -> Iterable[SidecarReport]:
        """Report the collections that resources replaced, until the manager removes the annotation."""
        for name, wanting in claims.items():
            for claim in wanting:
                if Annotation.REPLACE not in claim.annotations or claim.uid in rivals:
                    continue
                for folder, manifest in self._volume.deleted(name).items():
                    if claim.may_replace(mark_of(manifest)) and _follows(folder, claim):
                        yield replaced(name, claim, folder, manifest)
                        break

    def _poke(self, findings: Sequence[SidecarReport]) -> None:
        try:
            self._beside.poke(findings)
        except EngineAway as away:
            self._metrics.errors.labels("engine").inc()
            reason = str(away)
            is_news = isinstance(away, EngineRefuses) and reason != self._refused
            (log.error if is_news else log.debug)("engine was not told", reason=reason)
            self._refused = reason
        else:
            self._refused = None


def _waits_for_drop(claim: Observed) -> bool:
    return claim.is_deleting and not claim.is_retained


def stamped(finding: SidecarReport) -> SidecarReport:
    """The same with the time in it: who reads it again and again tells one occurrence from the next."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return dataclasses.replace(finding, message=f"{finding.message} (since {now})")


def _by_collection(resources: Iterable[Observed]) -> dict[str, tuple[Observed, ...]]:
    claims: defaultdict[str, list[Observed]] = defaultdict(list)
    for resource in resources:
        claims[resource.collection_name].append(resource)
    return {name: tuple(sorted(wanting, key=lambda r: r.uid)) for name, wanting in claims.items()}


def _follows(folder: str, claim: Observed) -> bool:
    """Whether this folder of `.quarantine/` or `.deleted/` was made after the resource."""
    times = _TIME.findall(folder)
    return bool(times) and times[-1] >= _compact(claim.created_at)


def _compact(rfc3339: str) -> str:
    """A time as names of folders have it, so that text compares as time does."""
    return rfc3339.replace("-", "").replace(":", "")


def _failed(name: str, claim: Observed, problem: str) -> SidecarReport:
    return SidecarReport(name, claim.uid, Reason.STORAGE_FAILED, problem)
