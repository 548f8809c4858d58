"""A pass of the manager: observe everything, decide for each resource, act where one differs, report."""

from __future__ import annotations

import datetime
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import structlog

from vecstow_engine.model.backoff import Backoff
from vecstow_operator.health import Metrics
from vecstow_operator.kube import Away, Changed, Cluster
from vecstow_operator.manager.decision import (
    Decision,
    NoChange,
    RemoveAnnotation,
    SetFinalizer,
    WriteStatus,
    decide,
)
from vecstow_operator.manager.engines import EngineList, EngineView, orphans
from vecstow_operator.manager.events import EventRecorder
from vecstow_operator.manager.refusals import Refusals
from vecstow_operator.manager.resources import CachedResource, History, ResourceList
from vecstow_operator.manager.state_poller import StatePoller
from vecstow_operator.manager.status import COUNT_SECONDS_MIN, reason_of_not_ready
from vecstow_operator.manager.writer import ResourceWriter
from vecstow_operator.vocabulary import Reason

WRITE_BACKOFF: Final = Backoff(first_seconds=4.0, seconds_max=300.0)
"""The pauses between writes of one resource that the API server refuses."""
LOOKS_PER_SECOND_MAX: Final = 5.0
"""Writes of a status in which only `observedAt` changes: with many resources each is refreshed less often."""

Pair = tuple[CachedResource, EngineView]
"""A resource and its engine, as a pass saw them."""

log = structlog.stdlib.get_logger(__name__)


class ManagerReconciler:
    """Not thread-safe: one loop calls it."""

    def __init__(
        self,
        cluster: Cluster,
        poller: StatePoller,
        metrics: Metrics,
        tick_seconds: float,
        stopped: threading.Event | None = None,
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._poller = poller
        self.writer = ResourceWriter(cluster, metrics, stopped or threading.Event())
        self._events = EventRecorder(self.writer, cluster.namespace)
        self._resources = ResourceList(cluster, metrics)
        self._engines = EngineList(tick_seconds)
        self._history = History()
        self._refusals = Refusals(WRITE_BACKOFF)
        self._up_to_date: dict[str, Pair] = {}
        """The resources that need no write until they or their engines change, by uid."""
        self._is_away = False
        """Whether the last pass got no complete answer from the API server."""

    @property
    def knows_all(self) -> bool:
        """Whether the last list was complete."""
        return self._resources.is_complete

    def run_pass(self, *, is_woken: bool) -> None:
        """Reconcile everything once. An API server or an engine that is away raises nothing."""
        self.writer.begin_pass()
        with self._metrics.pass_seconds.time():
            try:
                if self._observe(is_woken=is_woken):
                    self.writer.release_all()
                    return
            except Away as away:
                self._report_away(away)
                return
            self._act(self._decide())
            self._report()

    def close(self) -> None:
        """Stop the threads."""
        self.writer.close()
        self._poller.close()

    # Observe ----------------------------------------------------------------------------------------------

    def _observe(self, *, is_woken: bool) -> bool:
        """Read resources and engines. Return whether the namespace or the definition is being deleted.

        Raises Away.
        """
        if self._cluster.namespace_ends():
            return True
        now = time.monotonic()
        if self._resources.refresh(is_woken=is_woken, now=now):
            self._history.follow(self._resources.by_uid, now)
            self._events.forget_all_but(self._resources.by_uid)
        stateful_sets, pods = self._cluster.stateful_sets(), self._cluster.pods()
        self._metrics.heartbeat.beat()
        resources = [cached.resource for cached in self._resources.by_uid.values()]
        views = self._poller.views(stateful_sets, pods)
        self._engines.refresh(views, {resource.engine for resource in resources}, now)
        self._metrics.orphans.set(len(orphans(self._engines.by_name, resources)))
        self._metrics.pass_was_complete()
        if self._definition_ends():
            return True
        self._is_away = False
        return False

    def _definition_ends(self) -> bool:
        """Whether resources are deleted because their definition is: their collections stay."""
        is_any_deleted = any(
            cached.resource.is_deleting and cached.resource.has_finalizer
            for cached in self._resources.by_uid.values()
        )
        if not is_any_deleted or not self._cluster.definition_ends():
            return False
        log.warning("definition is being deleted: resources are released, and their collections stay")
        return True

    # Decide -----------------------------------------------------------------------------------------------

    def _decide(self) -> Iterator[Decision]:
        """Yield a decision for each resource that is due; lazily, since each holds a status document."""
        now, now_rfc3339 = time.monotonic(), _rfc3339()
        look_seconds = max(COUNT_SECONDS_MIN, len(self._resources.by_uid) / LOOKS_PER_SECOND_MAX)
        looked_after = _rfc3339(-look_seconds)
        due = self._due(now, looked_after)
        self._metrics.queue_depth.set(len(due))
        for cached, engine in due:
            try:
                age = self._history.age(cached, engine, now, now_rfc3339, looked_after)
                decision = decide(cached, engine, age)
            except Exception as error:  # noqa: BLE001 - a defect that one resource shows must not stop the others
                self._note_failure(cached, error)
                self._metrics.queue_depth.dec()
            else:
                yield decision

    def _due(self, now: float, looked_after: str) -> list[Pair]:
        """Return the resources that may need a write; an `observedAt` before `looked_after` needs one."""
        pairs = {
            uid: (cached, self._engines.view(cached.resource.engine, now))
            for uid, cached in self._resources.by_uid.items()
        }
        self._up_to_date = {
            uid: pair for uid, pair in self._up_to_date.items() if uid in pairs and _is_same(pair, pairs[uid])
        }
        self._refusals.forget_all_but(pairs)
        return [
            (cached, engine)
            for uid, (cached, engine) in pairs.items()
            if (uid not in self._up_to_date or cached.observed_at < looked_after)
            and self._refusals.reason(uid, cached.version, now) is None
        ]

    # Act --------------------------------------------------------------------------------------------------

    def _act(self, decisions: Iterable[Decision]) -> None:
        """Carry out the decisions, several at once."""
        for pair in self.writer.side_by_side(self._carry_out, decisions):
            self._metrics.queue_depth.dec()
            if pair is not None:
                self._up_to_date[pair[0].resource.uid] = pair

    def _carry_out(self, decision: Decision) -> Pair | None:
        """Write one change and post its event. Return the resource and its engine when that was all."""
        if self.writer.pass_ends_early:
            return None
        resource = decision.cached.resource
        try:
            is_up_to_date = self._write(decision)
            if decision.event is not None:
                self._events.post(resource, decision.event)
        except Exception as error:  # noqa: BLE001 - a defect that one resource shows must not stop the others
            self._note_failure(decision.cached, error)
            return None
        self._refusals.forget(resource.uid)
        return (decision.cached, decision.engine) if is_up_to_date else None

    def _write(self, decision: Decision) -> bool:
        """Make the change. Return whether the resource is up to date then. Raises Changed or Away."""
        cached = decision.cached
        if decision.reverted is not None:
            self._events.post_drift(cached.resource, decision.reverted)
        match decision.change:
            case NoChange(is_up_to_date):
                return is_up_to_date
            case SetFinalizer(is_held):
                self.writer.set_finalizer(cached, is_held=is_held)
            case RemoveAnnotation(annotation):
                self.writer.patch_metadata(cached, {"annotations": {annotation.value: None}})
            case WriteStatus(status):
                return not self._write_status(cached, status)
        return False

    def _write_status(self, cached: CachedResource, wanted: dict[str, object]) -> bool:
        """Apply a status and post its events. Return whether the API server's copy changed."""
        applied = self.writer.apply_status(cached, wanted)
        if applied is None:
            return False  # other field managers set the rest, and keep it
        now = time.monotonic()
        self._resources.replace(applied)
        self._history.note_patch(cached.resource, now)
        self._events.post_transitions(cached.resource, wanted, cached.status, now)
        return True

    def _note_failure(self, cached: CachedResource, error: Exception) -> None:
        """Begin a pause. A changed resource is listed again; any other error is logged when it is new."""
        name, reason = cached.resource.name, str(error)
        is_new = self._refusals.add(cached.resource.uid, cached.version, reason, time.monotonic())
        if isinstance(error, Changed):
            self._resources.is_stale = True
            log.debug("resource changed meanwhile", resource=name, reason=reason)
        elif isinstance(error, Away):
            self._metrics.errors.labels("api_server").inc()
            self.writer.note_silence(error)
            if is_new:
                log.warning("resource was not changed", resource=name, reason=reason)
        else:
            self._metrics.errors.labels("operator").inc()
            if is_new:
                log.error("resource could not be reconciled", resource=name, exc_info=error)

    # Report -----------------------------------------------------------------------------------------------

    def _report(self) -> None:
        """Count the resources that are not Ready, and post the events of long waits."""
        resources = self._resources.by_uid
        reasons = Counter(reason_of_not_ready(cached.status) for cached in resources.values())
        for reason in Reason:
            self._metrics.not_ready.labels(reason.value).set(reasons[reason])
        self._events.post_overdue(resources, time.monotonic())

    def _report_away(self, away: Away) -> None:
        """Count an API server that is away, log it once, and conclude nothing."""
        self._resources.is_complete = False
        self._engines.forget_missing()
        self._metrics.errors.labels("api_server").inc()
        if not self._is_away:
            log.warning("nothing is known", reason=str(away))
        self._is_away = True


def _is_same(one: Pair, other: Pair) -> bool:
    return one[1] is other[1] and one[0] == other[0]


def _rfc3339(seconds: float = 0.0) -> str:
    """Return the time so many seconds from now."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
