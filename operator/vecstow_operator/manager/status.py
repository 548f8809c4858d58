"""The status of a resource as a document, and its transitions: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vecstow_operator.manager.assessment import Assessment
from vecstow_operator.observed import Known, Loss, Observed
from vecstow_operator.vocabulary import Condition, EventReason, Reason

MESSAGE_CHARACTERS_MAX: Final = 1024
COUNT_SECONDS_MIN: Final = 60.0
"""The time between two patches of a status in which only figures changed: the count of vectors, the progress
of the graph, the time of the look."""

PASSING: Final = frozenset(
    {
        Reason.PENDING,
        Reason.RECOVERING,
        Reason.ENGINE_UNREACHABLE,
        Reason.ENGINE_NOT_READY,
        Reason.DELETING,
        Reason.ENGINE_SCALED_DOWN,
    }
)
"""Reasons that pass by themselves, or when the engine comes."""

WITHOUT_ANSWER: Final = frozenset(
    {Reason.PENDING, Reason.RECOVERING, Reason.ENGINE_UNREACHABLE, Reason.KEY_REFUSED}
)
"""Reasons with which it is unknown whether points are withheld."""

GRAPH_CONDITIONS: Final = {(Condition.RECONCILING, Reason.INDEXING), (Condition.RECONCILING, Reason.NONE)}
"""Type and reason of the condition that shows the progress of the graph."""

FIGURES: Final = ("vectorCount", "observedAt")
"""Fields that change while all others stay."""

Document = dict[str, Any]
_TYPES: Final = frozenset(Condition)
_OF_DATA: Final = ("vectorCount", "collectionUid", "volumeId", "loss")


@dataclass(frozen=True, slots=True)
class Transition:
    """An event to post."""

    reason: EventReason
    message: str
    is_warning: bool
    passes: bool = False
    """Whether the state ends by itself: an event reports it only when it lasts."""


def build(resource: Observed, assessment: Assessment, before: Mapping[str, Any], now: str) -> Document:
    """Return the whole status; `now` (RFC 3339) is the time of conditions that changed.

    The status of a paused resource changes in the condition Paused and in its data: the data may be lost
    meanwhile.
    """
    if resource.is_paused:
        kept = {key: value for key, value in before.items() if key not in _OF_DATA}
        conditions = _with_pause(resource, before, now)
        return kept | _data(assessment.known) | {"observedAt": now, "conditions": conditions}
    conditions = _timed(resource, _conditions(assessment), before, now)
    if assessment.reason in WITHOUT_ANSWER and assessment.degraded is None:
        conditions = _still_degraded(conditions, _by_type(before))
    status: Document = {
        "observedGeneration": resource.generation,
        "collectionName": resource.collection_name,
        "observedAt": now,
        "conditions": conditions,
    }
    if assessment.aliases:
        status["aliases"] = list(assessment.aliases)
    if assessment.replicas:  # the API server returns no list for an empty one
        status["replicas"] = list(assessment.replicas)
    return status | _data(assessment.known)


def own(status: Mapping[str, Any]) -> Document:
    """Return the status without the conditions that other controllers set, which stay as they are."""
    if "conditions" not in status:
        return dict(status)
    return dict(status) | {"conditions": [c for c in status["conditions"] if c["type"] in _TYPES]}


def is_same(wanted: Document, before: Mapping[str, Any]) -> bool:
    """Whether only the time of the look differs."""
    return wanted | {"observedAt": None} == {**before, "observedAt": None}


def is_due(wanted: Document, before: Mapping[str, Any], seconds_since: float) -> bool:
    """Whether to patch the status now. `seconds_since` is the age of the resource's last patch.

    A change of figures alone, for example of vectors that are not in the graph yet, waits COUNT_SECONDS_MIN.
    All other changes show at once, and so does the end of the graph's building: a person may wait for it.
    """
    if _but_figures(wanted) != _but_figures(before) or (_is_indexing(before) and not _is_indexing(wanted)):
        return True
    return wanted != before and seconds_since >= COUNT_SECONDS_MIN


def transitions(wanted: Document, before: Mapping[str, Any]) -> Iterator[Transition]:
    """Yield the transitions that are worth an event, once each."""
    old, new = _by_type(before), _by_type(wanted)
    ready, was_ready = new.get(Condition.READY), old.get(Condition.READY)
    if ready is not None and (was_ready is None or was_ready["reason"] != ready["reason"]):
        if ready["status"] == "True":
            yield Transition(EventReason.READY, ready["message"], is_warning=False)
        elif is_ready(before) or _is_true(new, Condition.STALLED):
            yield not_ready(wanted)
    for condition, appears, ends in (
        (Condition.DEGRADED, EventReason.DEGRADED, EventReason.RECOVERED),
        (Condition.CONFLICT, EventReason.CONFLICT, None),
    ):
        is_so, was_so = _is_true(new, condition), _is_true(old, condition)
        is_other = is_so and was_so and new[condition]["reason"] != old[condition]["reason"]
        if (is_so and not was_so) or is_other:
            yield Transition(appears, new[condition]["message"], is_warning=True)
        elif was_so and not is_so and ends is not None:
            yield Transition(ends, new[condition]["message"], is_warning=False)


def is_ready(status: Mapping[str, Any]) -> bool:
    """Whether the condition Ready is true."""
    return _is_true(_by_type(status), Condition.READY)


def reason_of_not_ready(status: Mapping[str, Any]) -> str | None:
    """Return the reason of the condition Ready; None when it is true or missing."""
    for condition in status.get("conditions", ()):
        if condition["type"] == Condition.READY and condition["status"] != "True":
            return str(condition["reason"])
    return None


def not_ready(status: Mapping[str, Any]) -> Transition:
    """Return the event of a status whose condition Ready is not true."""
    ready = _by_type(status)[Condition.READY]
    message = f"{ready['reason']}: {ready['message']}"
    return Transition(
        EventReason.NOT_READY, message, is_warning=True, passes=Reason(ready["reason"]) in PASSING
    )


def _data(known: Known) -> Document:
    loss = None if known.loss is None else _loss(known.loss)
    values = (known.vector_count, known.collection_uid, known.volume_id, loss)
    return {key: value for key, value in zip(_OF_DATA, values, strict=True) if value is not None}


def _loss(loss: Loss) -> Document:
    document = {"collectionUid": loss.collection_uid, "counted": loss.counted, "missing": loss.missing}
    return {key: value for key, value in document.items() if value is not None}


_Fact = tuple[Condition, bool | None, Reason, str]
"""Type, status, reason and message of a condition; the status is None where it is unknown."""


def _conditions(assessment: Assessment) -> Iterator[_Fact]:
    reason, message = assessment.reason, assessment.message
    is_ready = reason is Reason.SERVED
    yield Condition.READY, is_ready if assessment.is_answered else None, reason, message
    if assessment.is_confirmed:
        yield Condition.SYNCED, True, Reason.CONFIRMED, "the engine follows this generation"
    else:
        yield Condition.SYNCED, False, reason if not is_ready else Reason.PENDING, message
    degraded = assessment.degraded
    if degraded is not None:
        yield Condition.DEGRADED, True, degraded.reason, degraded.text
    else:
        yield Condition.DEGRADED, False, Reason.SOUND, "nothing is withheld"
    yield _conflict(assessment)
    yield Condition.PAUSED, False, Reason.NOT_REQUESTED, "it is reconciled"
    yield from _progress(assessment, is_ready)


def _conflict(assessment: Assessment) -> _Fact:
    if assessment.reason is Reason.CONFLICT:
        return Condition.CONFLICT, True, assessment.reason, assessment.message
    if not assessment.is_supervised:
        return Condition.CONFLICT, None, Reason.SIDECAR_SILENT, "no sidecar reports to the engine"
    return Condition.CONFLICT, False, Reason.NO_RIVAL, "nothing else has the name"


def _still_degraded(conditions: list[Document], old: Mapping[str, Document]) -> list[Document]:
    """Keep a condition Degraded that was true: it is unknown whether it still is."""
    if not _is_true(old, Condition.DEGRADED):
        return conditions
    return [old[c["type"]] if c["type"] == Condition.DEGRADED else c for c in conditions]


def _progress(assessment: Assessment, is_ready: bool) -> Iterator[_Fact]:
    """Yield Reconciling and Stalled, as kstatus reads them."""
    if is_ready and assessment.indexing is not None:
        yield Condition.RECONCILING, True, Reason.INDEXING, assessment.indexing
    elif not is_ready and assessment.reason in PASSING:
        yield Condition.RECONCILING, True, assessment.reason, assessment.message
    else:
        yield Condition.RECONCILING, False, Reason.NONE, "nothing is under way"
    if not is_ready and assessment.reason not in PASSING:
        yield Condition.STALLED, True, assessment.reason, assessment.message
    else:
        yield Condition.STALLED, False, Reason.NONE, "nothing needs to be done"


def _timed(
    resource: Observed, conditions: Iterable[_Fact], before: Mapping[str, Any], now: str
) -> list[Document]:
    old = _by_type(before)
    return [
        {
            "type": kind.value,
            "status": _word(is_so),
            "reason": reason.value,
            "message": message[:MESSAGE_CHARACTERS_MAX],
            "observedGeneration": resource.generation,
            "lastTransitionTime": _since(old.get(kind), _word(is_so), now),
        }
        for kind, is_so, reason, message in conditions
    ]


def _word(is_so: bool | None) -> str:
    return "Unknown" if is_so is None else str(is_so)


def _since(old: Mapping[str, Any] | None, status: str, now: str) -> str:
    return old["lastTransitionTime"] if old is not None and old["status"] == status else now


def _with_pause(resource: Observed, before: Mapping[str, Any], now: str) -> list[Document]:
    message = "spec.paused: nothing is reconciled"
    if resource.is_deleting:
        message += ", and nothing is deleted before it is false"
    [paused] = _timed(resource, [(Condition.PAUSED, True, Reason.REQUESTED, message)], before, now)
    return list((_by_type(before) | {Condition.PAUSED.value: paused}).values())


def _by_type(status: Mapping[str, Any]) -> dict[str, Document]:
    return {condition["type"]: condition for condition in status.get("conditions", ())}


def _is_true(conditions: Mapping[str, Document], kind: Condition) -> bool:
    return conditions.get(kind, {}).get("status") == "True"


def _but_figures(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status without the count of vectors and the progress of the graph."""
    conditions = [c for c in status.get("conditions", ()) if not _is_of_graph(c)]
    return {k: v for k, v in status.items() if k not in FIGURES} | {"conditions": conditions}


def _is_indexing(status: Mapping[str, Any]) -> bool:
    return any(c["reason"] == Reason.INDEXING for c in status.get("conditions", ()))


def _is_of_graph(condition: Document) -> bool:
    return (condition["type"], condition["reason"]) in GRAPH_CONDITIONS
