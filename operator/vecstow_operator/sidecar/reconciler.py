"""A pass of the sidecar: observe everything, decide for each collection, act where one differs, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.manifest import ManagedBy
from vecstow_operator.health import Heartbeat, Metrics
from vecstow_operator.kube import Cluster
from vecstow_operator.observed import Observed
from vecstow_operator.sidecar.claim_list import ClaimList, Claims
from vecstow_operator.sidecar.collection_folders import CollectionFolders
from vecstow_operator.sidecar.decision import Decision, Folder, SidecarReport, decide
from vecstow_operator.sidecar.engine_client import EngineAway, EngineClient, EngineRefuses
from vecstow_operator.sidecar.reports import RevertedDrift, reports_on_volume, storage_failed

log = structlog.stdlib.get_logger(__name__)


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
        heartbeat: Heartbeat,
    ) -> None:
        self._claims = ClaimList(cluster, engine, metrics, heartbeat)
        self._volume = volume
        self._engine_client = engine_client
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._unchanged: dict[str, tuple[Case, Decision]] = {}
        """Decisions without a change, by collection, which hold while the case stays the same."""
        self._failures: dict[str, str] = {}
        """The reason why the last change failed, by collection. It is logged once; each pass tries again."""
        self._reverted = RevertedDrift()
        self._refusal: str | None = None
        """The reason why the engine took no report; logged once when a key would help."""

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
            name: Case(claims.get(name, ()), folders.get(name, Folder()), volume_id)
            for name in sorted(claims.keys() | managed)
        }

    def _decide(self, cases: Mapping[str, Case]) -> dict[str, Decision]:
        """Return a decision for each case."""
        self._unchanged = {name: known for name, known in self._unchanged.items() if name in cases}
        self._failures = {name: reason for name, reason in self._failures.items() if name in cases}
        return {name: self._decision(name, case) for name, case in cases.items()}

    def _decision(self, name: str, case: Case) -> Decision:
        self._heartbeat.beat()
        known = self._unchanged.get(name)
        if known is not None and known[0] == case:
            return known[1]
        if self._claims.is_away and not case.claims:
            return Decision()  # the owner of the manifest is unknown while the API server is away
        try:
            decision = decide(name, case.claims, case.folder, case.volume_id)
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
                self._heartbeat.beat()
                outcomes.append(self._change(name, cases[name]))
                remaining -= 1
            else:
                outcomes.append(decision)
        self._metrics.queue_depth.set(0)
        return outcomes

    def _change(self, name: str, case: Case) -> Decision:
        """Decide again under the lock of the manifests, and write one. Return that decision."""
        try:
            done = self._volume.change(name, lambda folder: decide(name, case.claims, folder, case.volume_id))
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
        return Decision(findings=storage_failed(name, case.claims, problem))

    def _reports(self, claims: Claims, outcomes: Sequence[Decision]) -> list[SidecarReport]:
        """Return all that the engine is to know after this pass. Raises OSError."""
        reports = [report for outcome in outcomes for report in outcome.findings]
        reports += self._reverted.lasting(time.monotonic())
        return [*reports, *reports_on_volume(self._volume, claims, reports)]

    def _unreadable_volume(self, claims: Claims, error: OSError) -> list[SidecarReport]:
        self._metrics.errors.labels("volume").inc()
        log.error("volume cannot be read", reason=str(error))
        problem = f"the volume cannot be read: {error}"
        return [report for name, rivals in claims.items() for report in storage_failed(name, rivals, problem)]

    def _report(self, reports: Sequence[SidecarReport]) -> None:
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
