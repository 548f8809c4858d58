"""Events about resources: their form, and when each is posted.

A change of the spec or a restart of the engine makes a resource wait for a moment. The conditions show that
moment. An event reports it only when it lasts.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

from kubernetes.client import CoreV1Event, V1EventSource, V1ObjectMeta, V1ObjectReference

from vecstow_operator.kube import EVENT_CHARACTERS_MAX
from vecstow_operator.manager.resources import CachedResource
from vecstow_operator.manager.status import Document, Transition, is_ready, not_ready, transitions
from vecstow_operator.manager.writer import ResourceWriter
from vecstow_operator.observed import Observed
from vecstow_operator.vocabulary import GROUP, MANAGER_FIELDS, VERSION, EventReason

LASTING_SECONDS: Final = 30.0
"""The longest wait without an event: most starts of an engine take less."""


class EventDelay:
    """Transitions that are held back. A new process starts without any: it posts fewer events, none twice."""

    def __init__(self) -> None:
        self._held_back: dict[str, tuple[float, Transition]] = {}
        """The monotonic time since which a resource is not ready, and the event to post, by its uid."""

    def immediate(
        self, uid: str, wanted: Document, before: Mapping[str, Any], now: float
    ) -> Iterator[Transition]:
        """Yield the events to post now that the status `wanted` replaced `before`; hold the others back."""
        was_held_back = uid in self._held_back
        for transition in transitions(wanted, before):
            if transition.passes:
                self._held_back[uid] = now, transition
            elif transition.reason is EventReason.NOT_READY:
                self._held_back.pop(uid, None)
                yield transition
            elif transition.reason is not EventReason.READY or not was_held_back:
                yield transition
        if is_ready(wanted):
            self._held_back.pop(uid, None)
        elif uid in self._held_back:
            self._held_back[uid] = self._held_back[uid][0], not_ready(wanted)

    def overdue(self, now: float) -> Iterator[tuple[str, Transition]]:
        """Yield each event whose resource has waited for too long by now, once, with the resource's uid."""
        for uid, (since, transition) in list(self._held_back.items()):
            if now - since >= LASTING_SECONDS:
                del self._held_back[uid]
                yield uid, transition

    def forget_all_but(self, uids: Container[str]) -> None:
        """Forget resources that are gone."""
        self._held_back = {uid: event for uid, event in self._held_back.items() if uid in uids}


class EventRecorder:
    """Posts events. Several threads may use it for different resources."""

    def __init__(self, writer: ResourceWriter, namespace: str) -> None:
        self._writer = writer
        self._namespace = namespace
        self._delay = EventDelay()
        self._reverted: dict[str, tuple[str, ...]] = {}
        """Drift that has its event already, by the resource's uid, while the sidecar reports it."""

    def post(self, resource: Observed, transition: Transition) -> None:
        """Post one event now."""
        self._writer.post_event(event_of(resource, transition, self._namespace))

    def post_transitions(
        self, resource: Observed, wanted: Document, before: Mapping[str, Any], now: float
    ) -> None:
        """Post the events of a status that was written; waits that are new become events only later."""
        for transition in self._delay.immediate(resource.uid, wanted, before, now):
            self.post(resource, transition)

    def post_drift(self, resource: Observed, reverted: tuple[str, ...]) -> None:
        """Post one event for each drift that the sidecar reverted. The sidecar reports it for a while."""
        known = self._reverted.pop(resource.uid, ())
        for message in reverted:
            if message not in known:
                self.post(resource, Transition(EventReason.DRIFT_REVERTED, message, is_warning=True))
        if reverted:
            self._reverted[resource.uid] = reverted

    def post_overdue(self, resources: Mapping[str, CachedResource], now: float) -> None:
        """Post the events of waits that have lasted too long. `resources` are all that are left, by uid."""
        self._delay.forget_all_but(resources)
        if self._writer.pass_ends_early:
            return

        def post(overdue: tuple[str, Transition]) -> None:
            uid, transition = overdue
            if not self._writer.pass_ends_early:
                self.post(resources[uid].resource, transition)

        for _ in self._writer.side_by_side(post, self._delay.overdue(now)):
            pass

    def forget_all_but(self, resources: Mapping[str, CachedResource]) -> None:
        """Forget the drift of resources that are gone."""
        self._reverted = {uid: known for uid, known in self._reverted.items() if uid in resources}


def event_of(resource: Observed, transition: Transition, namespace: str) -> CoreV1Event:
    """Return the event of one occurrence, which happens now."""
    now = datetime.datetime.now(datetime.UTC)
    return CoreV1Event(
        metadata=V1ObjectMeta(name=f"{resource.name[:200]}.{uuid.uuid4().hex[:16]}", namespace=namespace),
        involved_object=V1ObjectReference(
            api_version=f"{GROUP}/{VERSION}",
            kind="VectorCollection",
            name=resource.name,
            namespace=namespace,
            uid=resource.uid,
        ),
        reason=transition.reason.value,
        message=transition.message[:EVENT_CHARACTERS_MAX],
        type="Warning" if transition.is_warning else "Normal",
        first_timestamp=now,
        last_timestamp=now,
        count=1,
        source=V1EventSource(component=MANAGER_FIELDS),
        reporting_component=MANAGER_FIELDS,
    )
