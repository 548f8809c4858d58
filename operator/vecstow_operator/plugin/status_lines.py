"""The lines of `kubectl vecstow`: the state of each collection, the next command, a repair. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vecstow_operator.manager.assessment import FROM_STATE, Assessment, assess
from vecstow_operator.manager.engines import CollectionState, EngineView, orphans
from vecstow_operator.observed import Observed, Report
from vecstow_operator.vocabulary import Reason

NO_RESOURCE: Final = "-"
ORPHAN: Final = "Orphan"
PAUSED: Final = "Paused"
WHOLE: Final = (Reason.SERVED.value, ORPHAN, PAUSED)
"""Reasons of collections that are served without anything withheld."""


@dataclass(frozen=True, slots=True)
class Line:
    """One collection."""

    resource: str
    collection: str
    engine: str
    state: str
    reason: str
    vectors: int
    message: str
    next_command: str | None = None


def report(resources: list[Observed], engines: dict[str, EngineView], namespace: str) -> Iterator[Line]:
    """Yield a line for each collection, by the engines' states: the manager may be away."""
    for resource in sorted(resources, key=lambda resource: resource.name):
        engine = engines.get(resource.engine, EngineView(resource.engine))
        there = engine.collection(resource.collection_name)
        assessment = assess(_followed(resource, there), engine)
        reason = _reason(assessment)
        yield Line(
            resource=resource.name,
            collection=resource.collection_name,
            engine=resource.engine,
            state=there.state if there is not None else "unknown",
            reason=PAUSED if resource.is_paused and reason is Reason.SERVED else reason.value,
            vectors=there.vector_count if there is not None and there.serves else resource.known.vector_count,
            message=_message(assessment) + ("; spec.paused" if resource.is_paused else ""),
            next_command=_next(reason, resource.engine, namespace, resource.name),
        )
    for engine_name, name in orphans(engines, resources):
        there = engines[engine_name].collection(name)
        assert there is not None
        found = _of_orphan(there) or (Reason.VOLUME_FULL if engines[engine_name].is_full else None)
        adopt = f"kubectl vecstow adopt -n {namespace} {name}"
        yield Line(
            NO_RESOURCE, name, engine_name, there.state, found.value if found is not None else ORPHAN,
            there.vector_count, there.reason or "no resource declares it",
            adopt if found is None else _next(found, engine_name, namespace, name),
        )  # fmt: skip


def _followed(resource: Observed, there: CollectionState | None) -> Observed:
    """Return a paused resource with the generation that its engine follows, as the wanted one."""
    if not resource.is_paused or there is None or there.generation is None:
        return resource
    return dataclasses.replace(resource, generation=there.generation)


def _of_orphan(there: CollectionState) -> Reason | None:
    """Return why a collection without a resource is not served whole; None when it is."""
    if there.state == "ready":
        return None
    return (
        Reason.POINTS_WITHHELD if there.state == "degraded" else FROM_STATE.get(there.state, Reason.PENDING)
    )


def _message(assessment: Assessment) -> str:
    degraded = _degraded(assessment)
    return degraded.text if degraded is not None else assessment.message


def _degraded(assessment: Assessment) -> Report | None:
    """Return the report on a served collection that needs attention."""
    return assessment.degraded if assessment.reason is Reason.SERVED else None


def _reason(assessment: Assessment) -> Reason:
    degraded = _degraded(assessment)
    return degraded.reason if degraded is not None else assessment.reason


def _next(reason: Reason, engine: str, namespace: str, name: str) -> str | None:
    """Return the command that helps, or shows more."""
    plugin, inside, where = "kubectl vecstow", f"-n {namespace}", f"-n {namespace} {name}"
    of_engine = f"{inside} -l vecstow.dev/engine={engine}"
    commands = {
        # The volume comes first: `accept-empty` is right only when the volume is lost for good.
        Reason.DATA_MISSING: f"kubectl describe pvc {inside}",
        Reason.VOLUME_REPLACED: f"kubectl describe pvc {inside}",
        Reason.QUARANTINED: f"{plugin} repair {where}",
        Reason.POINTS_WITHHELD: f"{plugin} repair {where}",
        Reason.VOLUME_FULL: f"{plugin} cleanup {inside}",
        Reason.READ_ONLY: f"{plugin} check {where}",
        Reason.ENGINE_MISSING: f"kubectl get statefulset {inside} -l vecstow.dev/engine",
        Reason.ENGINE_SCALED_DOWN: f"kubectl scale statefulset {of_engine} --replicas=1",
        Reason.ENGINE_UNREACHABLE: f"kubectl get pods {of_engine} -o wide",
        Reason.ENGINE_NOT_READY: f"kubectl describe pod {of_engine}",
        Reason.CONFLICT: f"kubectl get vcol {inside}",
        Reason.INVALID: f"kubectl edit vcol {where}",
    }
    return commands.get(reason)


def repaired(
    collection: str, answer: Mapping[str, Any], where: str, counted: int | None = None
) -> Iterator[str]:
    """Yield lines on the steps of a repair, done or planned; `where` is the engine's container, for kubectl.

    `counted` is the last count of vectors in the resource's status.
    """
    plan = answer["plan"]
    for number, step in enumerate(plan["steps"], start=1):
        yield f"{collection}: step {number}: {step['does']}, because {step['because']}"
    for warning in plan["warnings"]:
        yield f"{collection}: note: {warning}"
    outcome = answer["outcome"]
    if outcome == "sound":
        yield f"{collection}: sound, nothing to do"
    elif outcome == "impossible":
        yield f"{collection}: cannot be repaired: {plan['impossible']}"
    else:
        saved = plan["kept"] + plan["restored"]
        summary = plan["summary"] or "no point is touched"
        yield f"{collection}: {outcome}: {summary}"
        if counted is not None and plan["summary"] and saved < counted:
            missing = f"{counted - saved} of the {counted} points that were counted last are missing"
            yield f"{collection}: {missing}"
    if answer["quarantine"]:
        yield f"{collection}: what was damaged lies in {answer['quarantine']} on the volume"
        if plan["lost"] or plan["lost_records"]:
            lost = f"$VECSTOW_DATA/{answer['quarantine']}/lost.jsonl"
            yield f"  next: look at what is lost: kubectl exec {where} -- sh -c 'cat \"{lost}\"'"
    if plan["hint"]:
        yield f"  next: {plan['hint']}"
