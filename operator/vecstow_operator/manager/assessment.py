"""How one resource stands, by the states of its engine's pods: pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vecstow_operator.manager.engines import CollectionState, EnginePod, EngineView
from vecstow_operator.observed import Known, Loss, Observed, Report, report_on
from vecstow_operator.vocabulary import Annotation, Reason

FROM_SIDECAR: Final = (
    Reason.CONFLICT,
    Reason.INVALID,
    Reason.NEWER_FORMAT,
    Reason.STORAGE_FAILED,
    Reason.DATA_MISSING,
    Reason.VOLUME_REPLACED,
)
"""Reports that keep a collection from being ready, the gravest first."""
QUARANTINED_STATE: Final = "quarantined"
FROM_STATE: Final = {
    "recovering": Reason.RECOVERING,
    "read_only": Reason.READ_ONLY,
    QUARANTINED_STATE: Reason.QUARANTINED,
    "foreign": Reason.FOREIGN,
}
"""States of a collection that is not ready."""
READY_STATES: Final = ("ready", "degraded")
UNKNOWN_STATE: Final = "unknown"
INDEXED_STEP: Final = 10
"""Per cent: progress is shown in steps, so that not every tick changes a status."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """How a resource stands now: the parts of a status that do not depend on the status before."""

    reason: Reason
    """SERVED, or the reason why the resource is not Ready."""
    message: str
    degraded: Report | None = None
    indexing: str | None = None
    """The progress of the graph, while it is being built and searches go on."""
    replaced: Report | None = None
    """The collection that this resource replaced, while it still has the annotation."""
    reverted: tuple[str, ...] = ()
    """Drift that the sidecar has reverted lately."""
    is_confirmed: bool = False
    """Whether the serving pod follows this generation of this resource."""
    known: Known = field(default_factory=Known)
    aliases: tuple[str, ...] = ()
    """The aliases under which the serving pod answers for the resource's collection."""
    replicas: tuple[Mapping[str, Any], ...] = ()
    """The answer of each pod, as the status lists it."""
    is_answered: bool = True
    """Whether the serving pod answered; otherwise it is unknown whether the collection is served."""
    is_supervised: bool = True
    """Whether a sidecar reports to the serving pod; otherwise a rival would be unknown."""


def assess(resource: Observed, engine: EngineView) -> Assessment:
    """Return how the resource stands. It is served when the pod that clients reach serves this generation.

    Further pods only degrade the resource: data on their volumes takes nothing from clients.
    """
    pairs = [(pod, _own_collection(resource, pod)) for pod in engine.serving]
    reason, message = next(_objections(resource, engine, pairs), (Reason.SERVED, f"served by {engine.name}"))
    confirmed = bool(pairs) and all(_is_confirmed(resource, own) for _, own in pairs)
    known = _known(resource, pairs) if confirmed or resource.is_paused else resource.known
    return Assessment(
        reason=reason,
        message=message,
        degraded=next(_degradations(resource, engine, pairs, known.loss), None),
        indexing=next(_indexing(pairs), None),
        replaced=next(_reports(resource, pairs, (Reason.REPLACED,)), None),
        reverted=tuple(report.text for report in _reports(resource, pairs, (Reason.DRIFT_REVERTED,))),
        is_confirmed=confirmed,
        known=known,
        aliases=next((own.aliases for _, own in pairs if own is not None), ()),
        replicas=tuple(_replica(pod, _own_collection(resource, pod)) for pod in engine.pods),
        is_answered=all(pod.state is not None for pod, _ in pairs),
        is_supervised=not any(pod.state is not None and pod.state.is_unsupervised for pod, _ in pairs),
    )


def is_released(resource: Observed, engine: EngineView) -> bool:
    """Whether a resource that is being deleted may lose its finalizer.

    The drop comes first, unless the engine is gone for good: then no drop is possible.
    """
    if not engine.exists:
        return engine.is_gone
    return len(engine.pods) >= max(1, engine.wanted_pods) and all(
        pod.state is not None
        and not pod.state.knows(resource.uid)
        and any(report.reason is Reason.DELETING for report in pod.state.reports.get(resource.uid, ()))
        for pod in engine.pods
    )


def is_followed(resource: Observed, engine: EngineView) -> bool:
    """Whether a pod of the engine has a collection of this resource."""
    return any(_own_collection(resource, pod) is not None for pod in engine.pods)


_Pairs = list[tuple[EnginePod, CollectionState | None]]


def _own_collection(resource: Observed, pod: EnginePod) -> CollectionState | None:
    """Return the resource's collection as the pod has it; None when another resource owns it."""
    own = pod.state.collections.get(resource.collection_name) if pod.state is not None else None
    return own if own is not None and own.resource_uid == resource.uid else None


def _is_confirmed(resource: Observed, own: CollectionState | None) -> bool:
    return own is not None and own.generation == resource.generation


def _needs_nothing(resource: Observed, own: CollectionState | None) -> bool:
    """Whether the resource needs nothing more of the engine."""
    return not resource.is_deleting and _is_confirmed(resource, own)


def _objections(resource: Observed, engine: EngineView, pairs: _Pairs) -> Iterator[tuple[Reason, str]]:
    """Yield the reasons why the resource is not Ready, most important first."""
    if resource.is_deleting and not resource.has_finalizer:
        yield Reason.DELETING, "Vecstow is done with it; a finalizer of another program keeps it"
    if not engine.exists:
        yield Reason.ENGINE_MISSING, f"no engine {engine.name!r} is in this namespace"
    if engine.is_scaled_down:
        yield Reason.ENGINE_SCALED_DOWN, f"engine {engine.name!r} is scaled to zero"
    if not pairs:
        yield Reason.ENGINE_UNREACHABLE, f"engine {engine.name!r} has no pod yet"
    yield from _without_answer(pairs)
    for report in _reports(resource, pairs, FROM_SIDECAR):
        yield report.reason, report.text
    for pod, own in pairs:
        if pod.state is not None and pod.state.failure and not _needs_nothing(resource, own):
            yield Reason.STORAGE_FAILED, f"pod {pod.name}: {pod.state.failure}"
    if resource.is_deleting:
        yield Reason.DELETING, f"waits until engine {engine.name!r} has put the collection away"
    for pod, own in pairs:
        yield from _in_pod(resource, pod, own)
        if not pod.is_routed:
            yield Reason.ENGINE_NOT_READY, f"pod {pod.name} serves it, and no Service sends to the pod yet"


def _without_answer(pairs: _Pairs) -> Iterator[tuple[Reason, str]]:
    for pod, _ in pairs:
        if pod.refuses_key:
            hint = 'the engine must know it with the role monitor: docs/operations.md, "Keys"'
            yield Reason.KEY_REFUSED, f"pod {pod.name} cannot be asked: {pod.problem}; {hint}"
        elif pod.state is None:
            yield Reason.ENGINE_UNREACHABLE, f"pod {pod.name} does not answer: {pod.problem}"


def _in_pod(resource: Observed, pod: EnginePod, own: CollectionState | None) -> Iterator[tuple[Reason, str]]:
    if own is None or not _is_confirmed(resource, own):
        if pod.state is not None and pod.state.is_unsupervised:
            yield Reason.SIDECAR_SILENT, _silence(resource, pod).text
        yield Reason.PENDING, f"pod {pod.name} does not follow generation {resource.generation} yet"
        return
    if own.state not in READY_STATES:
        message = own.reason or f"the collection is {own.state}"
        hint = f"; kubectl vecstow repair {resource.name} --dry-run" if own.state == QUARANTINED_STATE else ""
        yield FROM_STATE.get(own.state, Reason.PENDING), message + hint
    known = resource.known
    if _has_lost(resource, own):
        yield Reason.DATA_MISSING, f"pod {pod.name} has none of the {known.vector_count} vectors"
    if _is_other(resource, pod, own):
        yield (
            Reason.VOLUME_REPLACED,
            f"pod {pod.name} has another collection of that name; the {known.vector_count} vectors were on "
            f"volume {known.volume_id}",
        )
    yield from _without_alias(resource, pod, own)


def _without_alias(resource: Observed, pod: EnginePod, own: CollectionState) -> Iterator[tuple[Reason, str]]:
    """Yield a reason while the engine lacks a declared alias, unless the sidecar says why it is refused."""
    reports = pod.state.reports.get(resource.uid, ()) if pod.state is not None else ()
    missing = [alias for alias in resource.aliases if alias not in own.aliases]
    if missing and not any(report.reason is Reason.ALIAS_REFUSED for report in reports):
        yield Reason.PENDING, f"pod {pod.name} does not answer under the alias {missing[0]!r} yet"


def _silence(resource: Observed, pod: EnginePod) -> Report:
    return report_on(
        resource,
        Reason.SIDECAR_SILENT,
        f"no sidecar reports to the engine of pod {pod.name}: conflicts, drift and lost data are not found",
        f"kubectl logs {pod.name} --container sidecar says why; a key of the role sidecar may be wrong",
    )


def _has_lost(resource: Observed, own: CollectionState) -> bool:
    """Whether the engine has no data where there were vectors, and the loss is not accepted."""
    lost = resource.known.collection_uid
    return own.collection_uid is None and lost is not None and not resource.accepts_loss_of(lost)


def _is_other(resource: Observed, pod: EnginePod, own: CollectionState) -> bool:
    """Whether the engine has other data on another volume, and the loss is not accepted."""
    return pod.state is not None and resource.is_other_than_known(own.collection_uid, pod.state.volume_id)


def _degradations(
    resource: Observed, engine: EngineView, pairs: _Pairs, loss: Loss | None
) -> Iterator[Report]:
    for pod, _ in pairs:
        if pod.state is not None and pod.state.is_full:
            yield report_on(
                resource,
                Reason.VOLUME_FULL,
                f"the volume of pod {pod.name} is full: writes get 507, reads are answered",
                "kubectl vecstow cleanup frees the room of dropped collections",
            )
    for _, own in pairs:
        if own is not None and own.state == "degraded":
            message = own.reason or "points fail their checks and are withheld"
            hint = f"kubectl vecstow repair {resource.name} --dry-run"
            yield report_on(resource, Reason.POINTS_WITHHELD, message, hint)
    if loss is not None and loss.missing is not None:
        yield report_on(
            resource,
            Reason.POINTS_LOST,
            f"{loss.missing} of the {loss.counted} vectors that were counted last are missing "
            "since a repair; lost.jsonl in .quarantine/ lists what is known of each loss",
            f"when you have looked at it: kubectl annotate --overwrite vcol {resource.name} "
            f"{Annotation.ACKNOWLEDGED.value}={','.join([*resource.acknowledged, loss.collection_uid])}",
        )
    yield from _reports(resource, pairs, (Reason.MANIFEST_SET_ASIDE, Reason.ALIAS_REFUSED, Reason.UNKNOWN))
    for pod, _ in pairs:
        if pod.state is not None and pod.state.is_unsupervised:
            yield _silence(resource, pod)
    if len(engine.pods) > 1:
        yield report_on(
            resource,
            Reason.EXTRA_REPLICAS,
            f"engine {engine.name!r} has {len(engine.pods)} pods, each with its own volume: clients reach "
            "the first alone",
            "scale it to one",
        )


def _reports(resource: Observed, pairs: _Pairs, reasons: tuple[Reason, ...]) -> Iterator[Report]:
    """Yield the sidecar's reports on the resource that have one of these reasons, in the order of those."""
    states = [pod.state for pod, _ in pairs if pod.state is not None]
    reports = [report for state in states for report in state.reports.get(resource.uid, ())]
    for reason in reasons:
        yield from (report for report in reports if report.reason is reason)


def _indexing(pairs: _Pairs) -> Iterator[str]:
    for pod, own in pairs:
        if own is None or not own.serves:
            continue
        if own.rebuilt is not None:
            share = _share(own.rebuilt, own.vector_count)
            yield f"pod {pod.name} has {share} % of the vectors in a new graph; the old one answers searches"
        elif own.indexed < own.vector_count:
            share = _share(own.indexed, own.vector_count)
            yield f"pod {pod.name} has {share} % of the vectors in the graph; the others are searched exactly"


def _share(part: int, whole: int) -> int:
    """Return the share in per cent, in steps."""
    return 100 * part // max(1, whole) // INDEXED_STEP * INDEXED_STEP


def _known(resource: Observed, pairs: _Pairs) -> Known:
    """Return the data that the next start must find again. Data that is lost or not served stays known.

    For such data only the uid is updated, from the manifest. The sidecar reports that incarnation as lost,
    and a person accepts the loss of that uid.
    """
    pod, own = pairs[0] if pairs else (None, None)
    if pod is None or pod.state is None or own is None or _is_other(resource, pod, own):
        return resource.known
    if not own.serves or _has_lost(resource, own):
        uid = own.collection_uid or resource.known.collection_uid
        return dataclasses.replace(resource.known, collection_uid=uid, loss=_loss(resource, uid, None))
    loss = _loss(resource, own.collection_uid, own.vector_count)
    return Known(own.collection_uid, pod.state.volume_id, own.vector_count, loss)


def _loss(resource: Observed, uid: str | None, count: int | None) -> Loss | None:
    """Return the loss of a repair: only a repair gives data another uid. `count`: None until it is served."""
    known, loss = resource.known, resource.known.loss
    if uid is None:
        return None
    if known.collection_uid != uid and resource.has_lost_data:
        earlier = loss.missing if loss is not None and loss.missing is not None else 0
        loss = Loss(uid, known.vector_count + earlier)
    if loss is not None and loss.missing is None and count is not None:
        loss = dataclasses.replace(loss, missing=max(0, loss.counted - count))
    is_over = loss is None or loss.missing == 0 or loss.collection_uid in resource.acknowledged
    return None if is_over else loss


def _replica(pod: EnginePod, own: CollectionState | None) -> dict[str, Any]:
    document = {
        "pod": pod.name,
        "podUid": pod.uid,
        "resourceUid": own and own.resource_uid,
        "generation": own and own.generation,
        "state": UNKNOWN_STATE if own is None else own.state,
    }
    return {key: value for key, value in document.items() if value is not None}
