"""The one change that the manager makes to a resource in a pass, and the events of it: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vecstow_operator.manager import status
from vecstow_operator.manager.assessment import Assessment, assess, is_released
from vecstow_operator.manager.engines import CollectionState, EngineView
from vecstow_operator.manager.resources import Age, CachedResource
from vecstow_operator.manager.status import Document, Transition
from vecstow_operator.observed import Observed
from vecstow_operator.vocabulary import Annotation, EventReason, Reason

PENDING_SECONDS: Final = 3.0
"""The time that an engine has to follow a new generation before the status becomes Pending: most take less.
Until then the status stays that of the generation before, with its `observedGeneration`."""


@dataclass(frozen=True, slots=True)
class NoChange:
    """Nothing to write now."""

    is_up_to_date: bool
    """Whether the resource needs no write until it or its engine changes."""


@dataclass(frozen=True, slots=True)
class SetFinalizer:
    """The finalizer comes or goes."""

    is_held: bool


@dataclass(frozen=True, slots=True)
class RemoveAnnotation:
    """An annotation that has done its work goes."""

    annotation: Annotation


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """The status becomes this one."""

    status: Document


@dataclass(frozen=True, slots=True)
class Decision:
    """The change of one resource, and its events."""

    cached: CachedResource
    engine: EngineView
    change: NoChange | SetFinalizer | RemoveAnnotation | WriteStatus
    event: Transition | None = None
    """The event to post after the change."""
    reverted: tuple[str, ...] | None = None
    """Drift that the sidecar reports; None: the reports were not read."""


def decide(cached: CachedResource, engine: EngineView, age: Age) -> Decision:
    """Return the decision about one resource. The finalizer comes first, then the status."""
    resource = cached.resource
    if resource.is_deleting and resource.has_finalizer and is_released(resource, engine):
        return Decision(cached, engine, SetFinalizer(is_held=False), removal_event(resource, engine, age))
    if _is_held_wrongly(cached):
        return Decision(cached, engine, SetFinalizer(is_held=not resource.has_finalizer))
    assessment = assess(resource, engine)
    if assessment.replaced is not None and resource.annotations.get(Annotation.REPLACE):
        change: RemoveAnnotation | NoChange | WriteStatus = RemoveAnnotation(Annotation.REPLACE)
        event = Transition(EventReason.REPLACED, assessment.replaced.text, is_warning=True)
        return Decision(cached, engine, change, event, assessment.reverted)
    if _is_acceptance_used(resource, assessment):
        change = RemoveAnnotation(Annotation.ACCEPT_EMPTY)
    else:
        change = _status_change(cached, assessment, age)
    return Decision(cached, engine, change, reverted=assessment.reverted)


def _is_held_wrongly(cached: CachedResource) -> bool:
    """Whether a living resource has the finalizer without `deletionPolicy: Delete`, or lacks it with that.

    A paused resource that has a status stays as it is.
    """
    resource = cached.resource
    if resource.is_deleting or (resource.is_paused and cached.status.get("conditions")):
        return False
    return resource.is_retained == resource.has_finalizer


def _status_change(cached: CachedResource, assessment: Assessment, age: Age) -> NoChange | WriteStatus:
    wanted = status.build(cached.resource, assessment, cached.status, age.now_rfc3339)
    if status.is_same(wanted, cached.status) and not age.is_look_due:
        return NoChange(is_up_to_date=True)
    if age.seconds_of_generation < PENDING_SECONDS and _may_be_followed_soon(cached, assessment):
        return NoChange(is_up_to_date=False)
    if not status.is_due(wanted, cached.status, age.seconds_since_patch):
        return NoChange(is_up_to_date=False)
    return WriteStatus(wanted)


def _may_be_followed_soon(cached: CachedResource, assessment: Assessment) -> bool:
    """Whether the resource is only new, or its generation is, and the engine does not follow it yet."""
    is_new = not cached.status.get("conditions")
    is_followed = assessment.is_confirmed or cached.resource.is_paused
    return not is_followed and (is_new or assessment.reason is Reason.PENDING)


def _is_acceptance_used(resource: Observed, assessment: Assessment) -> bool:
    """Whether the data that was accepted as lost is served again: a later loss needs a new acceptance."""
    accepted = resource.annotations.get(Annotation.ACCEPT_EMPTY)
    is_served = assessment.is_confirmed and assessment.reason is Reason.SERVED
    return accepted is not None and is_served and assessment.known.collection_uid == accepted


def removal_event(resource: Observed, engine: EngineView, age: Age) -> Transition | None:
    """Return the event of a deletion that is done; None for a resource that never had a collection."""
    uid = resource.known.collection_uid
    is_dropped = engine.exists and _is_dropped(resource, engine.collection(resource.collection_name), age)
    if is_dropped and uid is None and not age.was_followed:
        return None
    outcome = "is served no more" if is_dropped else "stays as it is"
    if is_dropped and uid is not None:
        outcome += "; what it still had is in .deleted/"
    reason = EventReason.DROPPED if is_dropped else EventReason.RELEASED
    return Transition(reason, f"collection {resource.collection_name!r} {outcome}", is_warning=False)


def _is_dropped(resource: Observed, collection: CollectionState | None, age: Age) -> bool:
    """Whether the engine serves nothing of the resource; another resource may have the name by now."""
    if collection is None:
        return True
    if resource.known.collection_uid is not None:
        return collection.collection_uid != resource.known.collection_uid
    return age.was_followed and not resource.is_retained
