"""A pass of the sidecar: observe everything, decide for each collection, act where one differs, report."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.manifest import ManagedBy
from vecstow_operator.health import Metrics
from vecstow_operator.kube import LIST_SECONDS_MAX, Away, Cluster
from vecstow_operator.observed import Observed, Report, observed
from vecstow_operator.sidecar.aliases import AliasReconciler
from vecstow_operator.sidecar.collection_folders import CollectionFolders
from vecstow_operator.sidecar.decision import Claims, Decision, Folder, decide
from vecstow_operator.sidecar.reports import (
    EngineAway,
    EngineClient,
    EngineRefuses,
    RevertedDrift,
    manifests_set_aside,
    replacements,
    storage_failed,
)

log = structlog.stdlib.get_logger(__name__)


class ClaimList:
    """The resources of this engine, by the last complete list. Times are monotonic seconds."""

    def __init__(self, cluster: Cluster, engine: str, metrics: Metrics) -> None:
        self._cluster = cluster
        self._engine = engine
        self._metrics = metrics
        self._by_uid: dict[str, tuple[str, Observed]] = {}
        """The resourceVersion of each resource, and the resource."""
        self._listed_at = float("-inf")
        self.claims: Claims | None = None
        """None until a list was complete."""
        self.is_away = False
        """Whether the last list failed: then `claims` are those of an earlier one."""

    def refresh(self, *, is_woken: bool, now: float) -> None:
        """List the resources when that is due. An API server that is away raises nothing."""
        if not (is_woken or self.is_away or now - self._listed_at >= LIST_SECONDS_MAX):
            return
        try:
            listed = self._listed()
        except Away as away:
            self._metrics.errors.labels("api_server").inc()
            if not self.is_away:
                log.warning("resources are unknown", reason=str(away))
            self.is_away = True
            return
        if self.is_away:
            log.info("resources are known again", count=len(listed))
        self.is_away = False
        self._listed_at = now
        self._by_uid = listed
        self.claims = _by_collection(resource for _, resource in listed.values())
        self._metrics.resources.set(len(listed))
        self._metrics.pass_was_complete()

    def _listed(self) -> dict[str, tuple[str, Observed]]:
        """Return a complete list, by uid. An unchanged version is not parsed again. Raises Away."""
        listed: dict[str, tuple[str, Observed]] = {}
        for document in self._cluster.resources(self._engine):
            self._metrics.heartbeat.beat()
            uid, version = document["metadata"]["uid"], document["metadata"]["resourceVersion"]
            known = self._by_uid.get(uid)
            is_same = known is not None and known[0] == version
            listed[uid] = known if known is not None and is_same else (version, observed(document))
        waits_for_drop = any(r.is_deleting and not r.is_retained for _, r in listed.values())
        if waits_for_drop and self._cluster.definition_ends():
            raise Away("the definition is being deleted: no resource says what to drop")
        return listed


def _by_collection(resources: Iterable[Observed]) -> Claims:
    claims: defaultdict[str, list[Observed]] = defaultdict(list)
    for resource in resources:
        claims[resource.collection_name].append(resource)
    return {name: tuple(sorted(rivals, key=lambda r: r.uid)) for name, rivals in claims.items()}


@dataclass(frozen=True, slots=True)
class Case:
    """All that one decision depends on."""

    claims: tuple[Observed, ...]
    folder: Folder
    volume_id: str | None


class SidecarReconciler:
    """Not thread-safe: one loop calls it."""

    def __init__(
        self,
        cluster: Cluster,
        engine: str,
        volume: CollectionFolders,
        engine_client: EngineClient,
        metrics: Metrics,
    ) -> None:
        self._claims = ClaimList(cluster, engine, metrics)
        self._volume = volume
        self._engine_client = engine_client
        self._metrics = metrics
        self._unchanged: dict[str, tuple[Case, Decision]] = {}
        """Decisions without a change, by collection, which hold while the case stays the same."""
        self._failures: dict[str, str] = {}
        """The reason why the last change failed, by collection. It is logged once; each pass tries again."""
        self._reverted = RevertedDrift()
        self._aliases = AliasReconciler(volume, metrics)
        self._refusal: str | None = None
        """The reason why the engine took no report, until it takes one. A refused key is logged once."""

    @property
    def knows_all(self) -> bool:
        """Whether the last list was complete."""
        return self._claims.claims is not None and not self._claims.is_away

    def run_pass(self, *, is_woken: bool) -> None:
        """Reconcile everything once. An API server or an engine that is away raises nothing."""
        with self._metrics.pass_seconds.time():
            self._claims.refresh(is_woken=is_woken, now=time.monotonic())
            claims = self._claims.claims
            if claims is None or not self._volume.is_there:
                return
            try:
                cases = self._observe(claims)
                decisions = self._decide(cases)
                outcomes = self._act(cases, decisions)
                reports = self._reports(claims, outcomes)
                reports += self._aliases.run(claims, is_complete=self.knows_all, now=time.monotonic())
            except OSError as error:
                reports = self._unreadable_volume(claims, error)
            self._report(reports)

    def _observe(self, claims: Claims) -> dict[str, Case]:
        """Return a case for each collection that resources claim or own, sorted by name. Raises OSError."""
        folders = self._volume.look()
        volume_id = self._volume.volume_id()
        managed = {
            n for n, f in folders.items() if f.manifest and f.manifest.managed_by is ManagedBy.KUBERNETES
        }
        return {
            name: Case(claims.get(name, ()), folders.get(name) or self._absent(name), volume_id)
            for name in sorted(claims.keys() | managed)
        }

    def _absent(self, name: str) -> Folder:
        return Folder(is_alias=self._volume.is_alias(name))

    def _decide(self, cases: Mapping[str, Case]) -> dict[str, Decision]:
        """Return a decision for each case."""
        self._unchanged = {name: known for name, known in self._unchanged.items() if name in cases}
        self._failures = {name: reason for name, reason in self._failures.items() if name in cases}
        return {name: self._decision(name, case) for name, case in cases.items()}

    def _decision(self, name: str, case: Case) -> Decision:
        self._metrics.heartbeat.beat()
        known = self._unchanged.get(name)
        if known is not None and known[0] == case:
            return known[1]
        if self._claims.is_away and not case.claims:
            return Decision()  # the owner of the manifest is unknown while the API server is away
        try:
            decision = decide(case.claims, case.folder, case.volume_id)
        except Exception as error:  # noqa: BLE001 - a defect that one collection shows must not stop the others
            return self._failed_change(name, case, error)
        if not decision.changes:
            self._unchanged[name] = case, decision
            self._failures.pop(name, None)
        return decision

    def _act(self, cases: Mapping[str, Case], decisions: Mapping[str, Decision]) -> list[Decision]:
        """Change the manifests that differ. Return the decisions that were carried out."""
        outcomes = []
        remaining = sum(decision.changes for decision in decisions.values())
        for name, decision in decisions.items():
            self._metrics.queue_depth.set(remaining)
            if decision.changes:
                self._metrics.heartbeat.beat()
                outcomes.append(self._change(name, cases[name]))
                remaining -= 1
            else:
                outcomes.append(decision)
        self._metrics.queue_depth.set(0)
        return outcomes

    def _change(self, name: str, case: Case) -> Decision:
        """Decide again under the lock of the manifests, and write one. Return that decision."""
        try:
            done = self._volume.change(name, lambda folder: decide(case.claims, folder, case.volume_id))
        except Exception as error:  # noqa: BLE001 - a defect that one collection shows must not stop the others
            return self._failed_change(name, case, error)
        self._failures.pop(name, None)
        if done.changes:
            self._metrics.reconciles.inc()
        if done.reverted is not None:
            self._reverted.add(done.reverted, time.monotonic())
        return done

    def _failed_change(self, name: str, case: Case, error: Exception) -> Decision:
        """Return the reports of an error, which is logged when it is new."""
        is_foreseen = isinstance(error, VecstowError | OSError)
        self._metrics.errors.labels("volume" if is_foreseen else "operator").inc()
        reason = str(error) if is_foreseen else repr(error)
        if self._failures.get(name) != reason:
            trace = None if is_foreseen else error
            log.error("manifest could not be changed", collection=name, reason=reason, exc_info=trace)
        self._failures[name] = reason
        problem = f"the manifest cannot be written: {reason}"
        return Decision(reports=storage_failed(case.claims, problem))

    def _reports(self, claims: Claims, outcomes: Sequence[Decision]) -> list[Report]:
        """Return all that the engine is to know after this pass. Raises OSError."""
        reports = [report for outcome in outcomes for report in outcome.reports]
        reports += self._reverted.lasting(time.monotonic())
        reports += manifests_set_aside(self._volume, claims)
        return [*reports, *replacements(self._volume, claims, reports)]

    def _unreadable_volume(self, claims: Claims, error: OSError) -> list[Report]:
        self._metrics.errors.labels("volume").inc()
        log.error("volume cannot be read", reason=str(error))
        problem = f"the volume cannot be read: {error}"
        return [report for rivals in claims.values() for report in storage_failed(rivals, problem)]

    def _report(self, reports: Sequence[Report]) -> None:
        """Send the reports to the engine, which rescans its manifests then."""
        try:
            self._engine_client.poke(reports)
        except EngineAway as away:
            self._metrics.errors.labels("engine").inc()
            reason = str(away)
            is_news = isinstance(away, EngineRefuses) and reason != self._refusal
            (log.error if is_news else log.debug)("engine did not get the report", reason=reason)
            self._refusal = reason
        else:
            self._refusal = None
