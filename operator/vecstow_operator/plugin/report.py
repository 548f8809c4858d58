"""What `kubectl vecstow` prints: how each collection stands, what to type next, what a repair did. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vecstow_operator.manager.engines import EngineView, Told, orphans
from vecstow_operator.manager.verdict import Verdict, judge
from vecstow_operator.observed import Observed
from vecstow_operator.vocabulary import Reason

NO_RESOURCE = "-"


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
    """By what the engines say now, whatever the statuses say: the manager may be away."""
    for resource in sorted(resources, key=lambda resource: resource.name):
        engine = engines.get(resource.engine, EngineView(resource.engine))
        verdict = judge(resource, engine)
        row = engine.row(resource.collection_name)
        yield Line(
            resource=resource.name,
            collection=resource.collection_name,
            engine=resource.engine,
            state=row.state if row is not None else "unknown",
            reason="Paused" if resource.is_paused else _reason(verdict).value,
            vectors=row.vector_count if row is not None else resource.known.vector_count,
            message=degraded.text if (degraded := _degraded(verdict)) is not None else verdict.message,
            next_command=_next(resource, verdict, namespace),
        )
    for engine_name, name in orphans(engines, resources):
        row = engines[engine_name].row(name)
        assert row is not None
        yield Line(
            NO_RESOURCE, name, engine_name, row.state, "Orphan", row.vector_count,
            row.reason or "no resource declares it", f"kubectl vecstow adopt -n {namespace} {name}",
        )  # fmt: skip


def _degraded(verdict: Verdict) -> Told | None:
    """What needs looking at though it is served."""
    return verdict.degraded if verdict.reason is Reason.SERVED else None


def _reason(verdict: Verdict) -> Reason:
    degraded = _degraded(verdict)
    return degraded.reason if degraded is not None else verdict.reason


def _next(resource: Observed, verdict: Verdict, namespace: str) -> str | None:
    """The command that helps, or tells more."""
    plugin, reason = "kubectl vecstow", _reason(verdict)
    in_namespace = f"-n {namespace} {resource.name}"
    commands = {
        Reason.DATA_MISSING: f"{plugin} accept-empty {in_namespace}",
        Reason.VOLUME_REPLACED: f"{plugin} accept-empty {in_namespace}",
        Reason.QUARANTINED: f"{plugin} repair {in_namespace}",
        Reason.POINTS_WITHHELD: f"{plugin} repair {in_namespace}",
        Reason.READ_ONLY: f"{plugin} check {in_namespace}",
        Reason.ENGINE_MISSING: f"kubectl get statefulset -n {namespace} -l vecstow.dev/engine",
        Reason.ENGINE_SCALED_DOWN: f"kubectl get statefulset -n {namespace} -l vecstow.dev/engine",
        Reason.ENGINE_UNREACHABLE: (
            f"kubectl get pods -n {namespace} -l vecstow.dev/engine={resource.engine} -o wide"
        ),
        Reason.CONFLICT: f"kubectl get vcol -n {namespace}",
        Reason.INVALID: f"kubectl edit vcol {in_namespace}",
    }
    return commands.get(reason)


def repaired(collection: str, answer: Mapping[str, Any]) -> Iterator[str]:
    """What a repair did, or would do, for people."""
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
        points = f"{plan['kept']} points kept, {plan['restored']} from the log, {plan['lost']} lost"
        yield f"{collection}: {outcome}: {points}"
    if answer["quarantine"]:
        yield f"{collection}: what was damaged lies in {answer['quarantine']} on the volume"
    if plan["hint"]:
        yield f"  next: {plan['hint']}"
