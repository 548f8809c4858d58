"""A pass of the manager: observe, decide for each resource, act where something differs."""

from __future__ import annotations

import contextlib
import datetime
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import structlog

from vecstow_operator.health import Heartbeat
from vecstow_operator.kube import LIST_SECONDS_MAX, Away, Changed, Cluster, Silent
from vecstow_operator.manager import status
from vecstow_operator.manager.assessment import Assessment, assess, is_released
from vecstow_operator.manager.backoff import Backoff
from vecstow_operator.manager.engines import EngineView, Row, orphans
from vecstow_operator.manager.event_delay import EventDelay
from vecstow_operator.manager.events import event_of
from vecstow_operator.manager.missing_engines import MissingEngines
from vecstow_operator.manager.resource_cache import CachedResource, ResourceCache
from vecstow_operator.manager.state_poller import StatePoller
from vecstow_operator.manager.status import COUNT_SECONDS_MIN
from vecstow_operator.metrics import Metrics
from vecstow_operator.observed import Observed, finalizers
from vecstow_operator.vocabulary import Annotation, EventReason, Reason

log = structlog.stdlib.get_logger(__name__)

PATCHES_AT_ONCE: Final = 4
END_AGAIN_SECONDS: Final = 1.0
LOOKS_PER_SECOND_MAX: Final = 5.0
"""Patches for the time of the look alone: with many resources each status is refreshed less often."""
PENDING_SECONDS: Final = 3.0
"""What is new in a resource is given so long before anybody is told that it waits: most is followed by then.
Until then the status is of the generation before, and says so."""

_Of = TypeVar("_Of")
_To = TypeVar("_To")


class Manager:
    """Not thread-safe: one loop calls it."""

    def __init__(
        self,
        cluster: Cluster,
        poller: StatePoller,
        metrics: Metrics,
        heartbeat: Heartbeat,
        tick_seconds: float,
        stopped: threading.Event | None = None,
    ) -> None:
        self._cluster = cluster
        self._poller = poller
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._stopped = stopped or threading.Event()
        self._is_silent = False
        """In this pass a change was not answered: others would wait as long."""
        self._made = ResourceCache()
        self._resources: dict[str, CachedResource] = {}
        """By uid, as last listed."""
        self._engines: Mapping[str, EngineView] = {}
        self._settled: dict[str, tuple[CachedResource, EngineView]] = {}
        """By uid: what needs no patch while neither of the two changes."""
        self._patched_at: dict[str, float] = {}
        self._looked_after = ""
        """RFC 3339: statuses of an earlier look are due."""
        self._first_seen: dict[tuple[str, int], float] = {}
        """By uid and generation."""
        self._missing_engines = MissingEngines(tick_seconds)
        self._followed: set[str] = set()
        """Uids of resources that an engine has followed."""
        self._reverted: dict[str, tuple[str, ...]] = {}
        """By uid: drift that people heard of, while the sidecar reports it."""
        self._event_delay = EventDelay()
        self._backoff = Backoff()
        self._listed_at = float("-inf")
        self._knows_all = False
        self._is_stale = False
        """Some resource is not as it was listed."""
        self._is_away = False
        self._threads = ThreadPoolExecutor(PATCHES_AT_ONCE, thread_name_prefix="patch")

    @property
    def knows_all(self) -> bool:
        """Whether the last list was complete."""
        return self._knows_all

    def run_pass(self, *, is_woken: bool) -> None:
        """Look at everything once. Neither an API server nor an engine that is away makes it raise."""
        self._is_silent = False
        with self._metrics.timed_pass():
            try:
                if self._cluster.namespace_ends():
                    self.release_all()
                    return
                self._observe(is_woken=is_woken)
                if self._definition_ends():
                    self.release_all()
                    return
            except Away as away:
                self._knows_all = False
                self._missing_engines.forget()
                self._away(away)
                return
            self._is_away = False
            self._act()
            self._count()
            self._tell_what_lasts()

    def _definition_ends(self) -> bool:
        """Whether resources are deleted because their definition is: their collections stay."""
        waits = any(i.resource.is_deleting and i.resource.has_finalizer for i in self._resources.values())
        if not waits or not self._cluster.definition_ends():
            return False
        log.warning("definition is being deleted: resources are let go, and their collections stay")
        return True

    def release_all(self) -> int:
        """Let go of every resource: with the namespace goes the right to do so later.

        Returns how many were still held when they were read. Raises Away when some are held still.
        """
        self._is_silent = False
        held = [item for item in map(self._made.of, self._cluster.resources()) if item.resource.has_finalizer]
        refused = [away for away in self._side_by_side(self._let_go, held) if away is not None]
        if refused:
            raise Away(f"{len(refused)} of {len(held)} resources are held still: {refused[0]}")
        return len(held)

    def end(self, seconds: float) -> None:
        """Let go of every resource of a namespace that ends, and try again for so long."""
        until = time.monotonic() + seconds
        while True:
            try:
                if self._cluster.namespace_ends():
                    self.release_all()
                return
            except Away as away:
                if time.monotonic() >= until:
                    log.warning("whoever is held still, kubectl vecstow release lets go", reason=str(away))
                    return
            time.sleep(END_AGAIN_SECONDS)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._poller.close()

    def _side_by_side(self, do: Callable[[_Of], _To], each: Iterable[_Of]) -> Iterator[_To]:
        """What it does to each, in their order."""
        for done in self._threads.map(do, each):
            self._heartbeat.beat()
            yield done

    @property
    def _ends_early(self) -> bool:
        """Whether this pass is to do no more."""
        return self._is_silent or self._stopped.is_set()

    def _away(self, away: Away) -> None:
        self._metrics.errors.labels("api_server").inc()
        if not self._is_away:
            log.warning("nothing is known", reason=str(away))
        self._is_away = True

    def _observe(self, *, is_woken: bool) -> None:
        now = time.monotonic()
        is_due = now - self._listed_at >= LIST_SECONDS_MAX
        if is_woken or is_due or self._is_away or self._is_stale:
            items = list(self._list())
            self._resources = {item.resource.uid: item for item in items}
            versions = [(item.resource.uid, item.resource.generation) for item in items]
            self._first_seen = {version: self._first_seen.get(version, now) for version in versions}
            self._followed &= self._resources.keys()
            self._reverted = {u: told for u, told in self._reverted.items() if u in self._resources}
            self._patched_at = {u: at for u, at in self._patched_at.items() if u in self._resources}
            self._listed_at, self._knows_all, self._is_stale = now, True, False
            self._metrics.resources.set(len(items))
        stateful_sets, pods = self._cluster.stateful_sets(), self._cluster.pods()
        self._heartbeat.beat()
        views = self._poller.views(stateful_sets, pods)
        # All rows are compared here, once, and not for each resource.
        self._engines = {n: old if (old := self._engines.get(n)) == new else new for n, new in views.items()}
        missing = {item.resource.engine for item in self._resources.values()} - self._engines.keys()
        self._missing_engines.saw(missing, now)
        self._metrics.orphans.set(len(orphans(self._engines, (i.resource for i in self._resources.values()))))
        self._metrics.pass_was_complete()

    def _list(self) -> Iterator[CachedResource]:
        """Who is as it was stays the same object: thousands of them twice are tens of megabytes."""
        for document in self._cluster.resources():
            self._heartbeat.beat()
            metadata = document["metadata"]
            old = self._resources.get(metadata["uid"])
            is_same = old is not None and old.version == metadata["resourceVersion"]
            yield old if old is not None and is_same else self._made.of(document)

    def _act(self) -> None:
        pairs = {uid: (item, self._engine(item)) for uid, item in self._resources.items()}
        self._settled = {u: pair for u, pair in self._settled.items() if u in pairs and _same(pair, pairs[u])}
        now = time.monotonic()
        self._backoff.forget_all_but(pairs)
        self._looked_after = _rfc3339(-max(COUNT_SECONDS_MIN, len(pairs) / LOOKS_PER_SECOND_MAX))
        due = [
            (item, engine)
            for uid, (item, engine) in pairs.items()
            if (uid not in self._settled or self._is_old(item))
            and not self._backoff.keeps(uid, item.version, now)
        ]
        self._metrics.queue_depth.set(len(due))
        for place, settled in enumerate(self._side_by_side(self._settle, due), start=1):
            self._metrics.queue_depth.set(len(due) - place)
            if settled is not None:
                self._settled[settled[0].resource.uid] = settled

    def _is_old(self, item: CachedResource) -> bool:
        """Whether its status says that the manager looked too long ago."""
        return str(item.status.get("observedAt", "")) < self._looked_after

    def _engine(self, item: CachedResource) -> EngineView:
        name = item.resource.engine
        if name in self._engines:
            return self._engines[name]
        return EngineView(name, is_gone=self._missing_engines.is_gone(name, time.monotonic()))

    def _settle(self, pair: tuple[CachedResource, EngineView]) -> tuple[CachedResource, EngineView] | None:
        """Act on one resource; returns the pair when nothing was to be done."""
        item, engine = pair
        if self._ends_early:
            return None
        try:
            acted = self._acted(item, engine)
        except Changed as changed:
            log.debug("resource changed meanwhile", resource=item.resource.name, reason=str(changed))
            self._is_stale = True
            self._refused(item, changed)
            return None
        except Away as away:
            self._metrics.errors.labels("api_server").inc()
            self._hear(away)
            if self._refused(item, away):
                log.warning("resource was not changed", resource=item.resource.name, reason=str(away))
            return None
        self._backoff.forget(item.resource.uid)
        return None if acted else pair

    def _refused(self, item: CachedResource, why: Exception) -> bool:
        return self._backoff.add(item.resource.uid, item.version, str(why), time.monotonic())

    def _acted(self, item: CachedResource, engine: EngineView) -> bool:
        resource = item.resource
        if resource.is_paused and not resource.is_deleting and item.status.get("conditions"):
            return self._patch_status(item, engine)
        if resource.is_deleting and resource.has_finalizer:
            if is_released(resource, engine):
                self._hold(item, held=False)
                self._tell(item, engine)
                return True
        elif not resource.is_deleting and resource.is_retained == resource.has_finalizer:
            self._hold(item, held=not resource.has_finalizer)
            return True
        return self._patch_status(item, engine)

    def _patch_status(self, item: CachedResource, engine: EngineView) -> bool:
        """Whether it is settled only later: a patch was made, or is due in a while."""
        resource, now = item.resource, time.monotonic()
        assessment = assess(resource, engine)
        if any(replica.resource_uid == resource.uid for replica in assessment.replicas):
            self._followed.add(resource.uid)
        self._tell_of_drift(resource, assessment)
        if assessment.replaced is not None and resource.annotations.get(Annotation.REPLACE):
            self._patch_metadata(item, {"annotations": {Annotation.REPLACE.value: None}})
            self._warn(resource, EventReason.REPLACED, assessment.replaced.text)
            return True
        if _is_back(resource, assessment):
            self._patch_metadata(item, {"annotations": {Annotation.ACCEPT_EMPTY.value: None}})
            return True
        wanted = status.build(resource, assessment, item.status, _rfc3339())
        if status.is_same(wanted, item.status) and not self._is_old(item):
            return False
        seconds_seen = now - self._first_seen[resource.uid, resource.generation]
        if seconds_seen < PENDING_SECONDS and _may_pass(item, assessment):
            return True
        if not status.is_due(wanted, item.status, now - self._patched_at.get(resource.uid, float("-inf"))):
            return True
        applied = self._cluster.apply_status(resource.name, item.version, wanted)
        if applied is None:
            return False  # the rest is somebody else's, and stays
        self._resources[resource.uid] = self._made.of(applied)
        self._patched_at[resource.uid] = now
        self._metrics.reconciles.inc()
        for transition in self._event_delay.heard(resource.uid, wanted, item.status, now):
            self._post(resource, transition)
        return True

    def _tell_of_drift(self, resource: Observed, assessment: Assessment) -> None:
        """Once for each time that the sidecar put something right: it reports that for a while."""
        known = self._reverted.pop(resource.uid, ())
        for message in assessment.reverted:
            if message not in known:
                self._warn(resource, EventReason.DRIFT_REVERTED, message)
        if assessment.reverted:
            self._reverted[resource.uid] = assessment.reverted

    def _count(self) -> None:
        reasons = Counter(status.reason_of_not_ready(item.status) for item in self._resources.values())
        for reason in Reason:
            self._metrics.not_ready.labels(reason.value).set(reasons[reason])

    def _tell_what_lasts(self) -> None:
        self._event_delay.forget_all_but(self._resources)
        if not self._ends_early:
            for _ in self._side_by_side(self._tell_one, self._event_delay.lasting(time.monotonic())):
                pass

    def _tell_one(self, lasting: tuple[str, status.Transition]) -> None:
        uid, transition = lasting
        if not self._ends_early:
            self._post(self._resources[uid].resource, transition)

    def _hold(self, item: CachedResource, *, held: bool) -> None:
        self._patch_metadata(item, {"finalizers": finalizers(item.finalizers, held=held)})

    def _let_go(self, item: CachedResource) -> Away | None:
        """Returns why it is held still."""
        if self._is_silent:
            return Silent("the API server does not answer")
        try:
            with contextlib.suppress(Changed):  # the next pass sees it anew
                self._hold(item, held=False)
        except Away as away:
            self._hear(away)
            return away
        return None

    def _hear(self, error: Exception) -> None:
        if isinstance(error, Silent):
            self._is_silent = True

    def _patch_metadata(self, item: CachedResource, changed: Mapping[str, Any]) -> None:
        self._cluster.patch_metadata(item.resource.name, item.resource.uid, item.version, changed)
        self._metrics.reconciles.inc()

    def _tell(self, item: CachedResource, engine: EngineView) -> None:
        resource = item.resource
        is_dropped = engine.exists and self._is_dropped(resource, engine.row(resource.collection_name))
        if is_dropped and resource.known.collection_uid is None and resource.uid not in self._followed:
            return  # it never had a collection
        what = "is served no more" if is_dropped else "stays as it is"
        if is_dropped and resource.known.collection_uid is not None:
            what += "; what it still had is in .deleted/"
        reason = EventReason.DROPPED if is_dropped else EventReason.RELEASED
        message = f"collection {resource.collection_name!r} {what}"
        self._post(resource, status.Transition(reason, message, is_warning=False))

    def _is_dropped(self, resource: Observed, row: Row | None) -> bool:
        """Whether nothing of its own is served; a rival may have taken the name by now."""
        if row is None:
            return True
        if resource.known.collection_uid is not None:
            return row.collection_uid != resource.known.collection_uid
        return resource.uid in self._followed and not resource.is_retained

    def _warn(self, resource: Observed, reason: EventReason, message: str) -> None:
        self._post(resource, status.Transition(reason, message, is_warning=True))

    def _post(self, resource: Observed, transition: status.Transition) -> None:
        try:
            self._cluster.post_event(event_of(resource, transition, self._cluster.namespace))
        except (Away, Changed) as error:
            self._hear(error)
            log.debug("event was not posted", resource=resource.name, reason=str(error))


def _may_pass(item: CachedResource, assessment: Assessment) -> bool:
    """Whether the resource, or its generation, only waits to be followed."""
    is_new = not item.status.get("conditions")
    is_followed = assessment.is_confirmed or item.resource.is_paused
    return not is_followed and (is_new or assessment.reason is Reason.PENDING)


def _is_back(resource: Observed, assessment: Assessment) -> bool:
    """Whether what was accepted as lost is served again: to lose it once more is another loss."""
    accepted = resource.annotations.get(Annotation.ACCEPT_EMPTY)
    is_served = assessment.is_confirmed and assessment.reason is Reason.SERVED
    return accepted is not None and is_served and assessment.known.collection_uid == accepted


def _same(one: tuple[CachedResource, EngineView], other: tuple[CachedResource, EngineView]) -> bool:
    return one[1] is other[1] and one[0] == other[0]


def _rfc3339(seconds: float = 0.0) -> str:
    """So many seconds from now."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
