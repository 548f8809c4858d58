"""How one resource stands, by the states of its engine's pods: pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from vecstow_operator.manager.engines import EnginePod, EngineView, Row, SidecarReport
from vecstow_operator.observed import Known, Loss, Observed
from vecstow_operator.vocabulary import Annotation, Reason

FROM_SIDECAR: Final = (
    Reason.CONFLICT, Reason.INVALID, Reason.NEWER_FORMAT, Reason.STORAGE_FAILED, Reason.DATA_MISSING,
    Reason.VOLUME_REPLACED,
)  # fmt: skip
"""Findings that keep a collection from being ready, the gravest first."""
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
class Replica:
    """One pod's answer, as the status lists it."""

    pod: str
    pod_uid: str
    resource_uid: str | None
    generation: int | None
    state: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """How a resource stands now: the parts of a status that do not depend on the status before."""

    reason: Reason
    """SERVED, or the reason why the resource is not Ready."""
    message: str
    degraded: SidecarReport | None = None
    indexing: str | None = None
    """The progress of the graph, while it is being built and searches go on."""
    replaced: SidecarReport | None = None
    """The collection that this resource replaced, while it still has the annotation."""
    reverted: tuple[str, ...] = ()
    """Drift that the sidecar has reverted lately."""
    is_confirmed: bool = False
    """Whether the serving pod follows this generation of this resource."""
    known: Known = field(default_factory=Known)
    replicas: tuple[Replica, ...] = ()
    is_answered: bool = True
    """Whether the serving pod answered; otherwise it is unknown whether the collection is served."""
    is_supervised: bool = True
    """Whether a sidecar reports to the serving pod; otherwise a rival would be unknown."""


def assess(resource: Observed, engine: EngineView) -> Assessment:
    """Return how the resource stands. It is served when the pod that clients reach serves this generation.

    Further pods only degrade the resource: data on their volumes takes nothing from clients.
    """
    rows = [(pod, _own_row(resource, pod)) for pod in engine.serving]
    reason, message = next(_objections(resource, engine, rows), (Reason.SERVED, f"served by {engine.name}"))
    confirmed = bool(rows) and all(_is_confirmed(resource, row) for _, row in rows)
    known = _known(resource, rows) if confirmed or resource.is_paused else resource.known
    return Assessment(
        reason=reason,
        message=message,
        degraded=next(_degradations(resource, engine, rows, known.loss), None),
        indexing=next(_indexing(rows), None),
        replaced=next(_reports(resource, rows, (Reason.REPLACED,)), None),
        reverted=tuple(report.text for report in _reports(resource, rows, (Reason.DRIFT_REVERTED,))),
        is_confirmed=confirmed,
        known=known,
        replicas=tuple(_replica(pod, _own_row(resource, pod)) for pod in engine.pods),
        is_answered=all(pod.state is not None for pod, _ in rows),
        is_supervised=not any(pod.state is not None and pod.state.is_unsupervised for pod, _ in rows),
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
    return any(_own_row(resource, pod) is not None for pod in engine.pods)


_Rows = list[tuple[EnginePod, Row | None]]


def _own_row(resource: Observed, pod: EnginePod) -> Row | None:
    """Return the pod's row of the resource's collection; None when another resource owns it."""
    row = pod.state.rows.get(resource.collection_name) if pod.state is not None else None
    return row if row is not None and row.resource_uid == resource.uid else None


def _is_confirmed(resource: Observed, row: Row | None) -> bool:
    return row is not None and row.generation == resource.generation


def _needs_nothing(resource: Observed, row: Row | None) -> bool:
    """Whether the resource needs nothing more of the engine."""
    return not resource.is_deleting and _is_confirmed(resource, row)


def _objections(resource: Observed, engine: EngineView, rows: _Rows) -> Iterator[tuple[Reason, str]]:
    """Yield the reasons why the resource is not Ready, most important first."""
    if resource.is_deleting and not resource.has_finalizer:
        yield Reason.DELETING, "Vecstow is done with it; a finalizer of another program keeps it"
    if not engine.exists:
        yield Reason.ENGINE_MISSING, f"no engine {engine.name!r} is in this namespace"
    if engine.is_scaled_down:
        yield Reason.ENGINE_SCALED_DOWN, f"engine {engine.name!r} is scaled to zero"
    if not rows:
        yield Reason.ENGINE_UNREACHABLE, f"engine {engine.name!r} has no pod yet"
    yield from _without_answer(rows)
    for report in _reports(resource, rows, FROM_SIDECAR):
        yield report.reason, report.text
    for pod, row in rows:
        if pod.state is not None and pod.state.failure and not _needs_nothing(resource, row):
            yield Reason.STORAGE_FAILED, f"pod {pod.name}: {pod.state.failure}"
    if resource.is_deleting:
        yield Reason.DELETING, f"waits until engine {engine.name!r} has put the collection away"
    for pod, row in rows:
        yield from _in_row(resource, pod, row)
        if not pod.is_routed:
            yield Reason.ENGINE_NOT_READY, f"pod {pod.name} serves it, and no Service sends to the pod yet"


def _without_answer(rows: _Rows) -> Iterator[tuple[Reason, str]]:
    for pod, _ in rows:
        if pod.refuses_key:
            hint = 'the engine must know it with the role monitor: docs/operations.md, "Keys"'
            yield Reason.KEY_REFUSED, f"pod {pod.name} cannot be asked: {pod.problem}; {hint}"
        elif pod.state is None:
            yield Reason.ENGINE_UNREACHABLE, f"pod {pod.name} does not answer: {pod.problem}"


def _in_row(resource: Observed, pod: EnginePod, row: Row | None) -> Iterator[tuple[Reason, str]]:
    if row is None or not _is_confirmed(resource, row):
        if pod.state is not None and pod.state.is_unsupervised:
            yield Reason.SIDECAR_SILENT, _silence(pod).text
        yield Reason.PENDING, f"pod {pod.name} does not follow generation {resource.generation} yet"
        return
    if row.state not in READY_STATES:
        message = row.reason or f"the collection is {row.state}"
        hint = f"; kubectl vecstow repair {resource.name}" if row.state == QUARANTINED_STATE else ""
        yield FROM_STATE.get(row.state, Reason.PENDING), message + hint
    known = resource.known
    if _has_lost(resource, row):
        yield Reason.DATA_MISSING, f"pod {pod.name} has none of the {known.vector_count} vectors"
    if _is_other(resource, pod, row):
        yield (
            Reason.VOLUME_REPLACED,
            f"pod {pod.name} has another collection of that name; the {known.vector_count} vectors were on "
            f"volume {known.volume_id}",
        )


def _silence(pod: EnginePod) -> SidecarReport:
    return SidecarReport(
        Reason.SIDECAR_SILENT,
        f"no sidecar reports to the engine of pod {pod.name}: conflicts, drift and lost data are not found",
        f"kubectl logs {pod.name} --container sidecar says why; a key of the role sidecar may be wrong",
    )


def _has_lost(resource: Observed, row: Row) -> bool:
    """Whether the engine has no data where there were vectors, and the loss is not accepted."""
    lost = resource.known.collection_uid
    return row.collection_uid is None and lost is not None and not resource.accepts_loss_of(lost)


def _is_other(resource: Observed, pod: EnginePod, row: Row) -> bool:
    """Whether the engine has other data on another volume, and the loss is not accepted."""
    return pod.state is not None and resource.is_other_than_known(row.collection_uid, pod.state.volume_id)


def _degradations(
    resource: Observed, engine: EngineView, rows: _Rows, loss: Loss | None
) -> Iterator[SidecarReport]:
    for pod, _ in rows:
        if pod.state is not None and pod.state.is_full:
            yield SidecarReport(
                Reason.VOLUME_FULL,
                f"the volume of pod {pod.name} is full: writes get 507, reads are answered",
                "kubectl vecstow cleanup frees the room of dropped collections",
            )
    for _, row in rows:
        if row is not None and row.state == "degraded":
            message = row.reason or "points fail their checks and are withheld"
            yield SidecarReport(Reason.POINTS_WITHHELD, message, f"kubectl vecstow repair {resource.name}")
    if loss is not None and loss.missing is not None:
        yield SidecarReport(
            Reason.POINTS_LOST,
            f"{loss.missing} of the {loss.counted} vectors that were counted last are missing "
            "since a repair; lost.jsonl in .quarantine/ lists what is known of each loss",
            f"when you have looked at it: kubectl annotate --overwrite vcol {resource.name} "
            f"{Annotation.ACKNOWLEDGED.value}={','.join([*resource.acknowledged, loss.collection_uid])}",
        )
    yield from _reports(resource, rows, (Reason.MANIFEST_SET_ASIDE, Reason.UNKNOWN))
    for pod, _ in rows:
        if pod.state is not None and pod.state.is_unsupervised:
            yield _silence(pod)
    if len(engine.pods) > 1:
        yield SidecarReport(
            Reason.EXTRA_REPLICAS,
            f"engine {engine.name!r} has {len(engine.pods)} pods, each with its own volume: clients reach "
            "the first alone",
            "scale it to one",
        )


def _reports(resource: Observed, rows: _Rows, reasons: tuple[Reason, ...]) -> Iterator[SidecarReport]:
    """Yield the sidecar's reports on the resource that have one of these reasons, in the order of those."""
    states = [pod.state for pod, _ in rows if pod.state is not None]
    reports = [report for state in states for report in state.reports.get(resource.uid, ())]
    for reason in reasons:
        yield from (report for report in reports if report.reason is reason)


def _indexing(rows: _Rows) -> Iterator[str]:
    for pod, row in rows:
        if row is None or not row.serves:
            continue
        if row.rebuilt is not None:
            share = _share(row.rebuilt, row.vector_count)
            yield f"pod {pod.name} has {share} % of the vectors in a new graph; the old one answers searches"
        elif row.indexed < row.vector_count:
            share = _share(row.indexed, row.vector_count)
            yield f"pod {pod.name} has {share} % of the vectors in the graph; the others are searched exactly"


def _share(part: int, whole: int) -> int:
    """Return the share in per cent, in steps."""
    return 100 * part // max(1, whole) // INDEXED_STEP * INDEXED_STEP


def _known(resource: Observed, rows: _Rows) -> Known:
    """Return the data that the next start must find again. Data that is lost or not served stays known.

    Its uid alone follows the manifest: the sidecar misses that incarnation, and a person accepts its loss.
    """
    pod, row = rows[0] if rows else (None, None)
    if pod is None or pod.state is None or row is None or _is_other(resource, pod, row):
        return resource.known
    if not row.serves or _has_lost(resource, row):
        uid = row.collection_uid or resource.known.collection_uid
        return dataclasses.replace(resource.known, collection_uid=uid, loss=_loss(resource, uid, None))
    loss = _loss(resource, row.collection_uid, row.vector_count)
    return Known(row.collection_uid, pod.state.volume_id, row.vector_count, loss)


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


def _replica(pod: EnginePod, row: Row | None) -> Replica:
    if row is None:
        return Replica(pod.name, pod.uid, None, None, UNKNOWN_STATE)
    return Replica(pod.name, pod.uid, row.resource_uid, row.generation, row.state)
