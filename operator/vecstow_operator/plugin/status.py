"""`kubectl vecstow status`: how each collection stands, by the engines' answers now."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import typer
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from vecstow_operator.manager.assessment import FROM_STATE, Assessment, assess
from vecstow_operator.manager.engines import CollectionState, EngineView, orphans
from vecstow_operator.observed import Observed, Report
from vecstow_operator.plugin.command import AsJson, Names, in_session, print_answer, table
from vecstow_operator.plugin.session import Session
from vecstow_operator.vocabulary import Label, Reason

COLUMNS: Final = ("resource", "collection", "engine", "state", "reason", "vectors")
NO_RESOURCE: Final = "-"
ORPHAN: Final = "Orphan"
PAUSED: Final = "Paused"
WHOLE: Final = (Reason.SERVED.value, ORPHAN, PAUSED)
"""Reasons of collections that are served without anything withheld."""
VOLUME: Final = "data"
"""The name of the engine's volume in its pod."""
TERMINATING: Final = "ClaimTerminating"
RECIPE: Final = 'docs/operations.md, "The volume of before"'
_LOSSES: Final = (Reason.VOLUME_REPLACED.value, Reason.DATA_MISSING.value)
LEASE: Final = "vecstow-manager"
STALE_SECONDS: Final = 60.0
"""More than the clocks of two machines should differ, and four times the duration of a Lease."""
AWAY: Final = "what kubectl get vcol shows is of the time in its column OBSERVED"


@in_session
def status(names: Names = None, *, session: Session, as_json: AsJson = False) -> None:
    """Print how each collection stands, by the answers of the engines now.

    Exit code 1 when one of them is not served whole, whether it has a resource, is paused, or neither.
    """
    session.refuse_incomplete()
    claims = claims_of(session.api, session.namespace, session.pods)
    lines = [
        line
        for line in with_claims(report(session.resources, session.engines, session.namespace), claims)
        if not names or line.resource in names or line.collection in names
    ]
    print_answer([dataclasses.asdict(line) for line in lines], _text(lines), as_json=as_json)
    if (away := missing_manager(session.api, session.namespace)) is not None:
        typer.echo(f"warning: {away}", err=True)
    if any(line.reason not in WHOLE for line in lines):
        raise typer.Exit(1)


def _text(lines: list[Line]) -> str:
    """Return a table of the lines, and the message of each that is not Served."""
    text = [table(COLUMNS, ([getattr(line, column) for column in COLUMNS] for line in lines))]
    for line in lines:
        if line.reason != "Served":
            text.append(f"\n{line.resource if line.resource != '-' else line.collection}: {line.message}")
            if line.next_command is not None:
                text.append(f"  next: {line.next_command}")
    return "\n".join(text)


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
        engine = engines[engine_name]
        orphan = engine.collection(name)
        assert orphan is not None
        found = _of_orphan(orphan) or (Reason.VOLUME_FULL if engine.is_full else None)
        adopt = f"kubectl vecstow adopt -n {namespace} {name}"
        yield Line(
            resource=NO_RESOURCE,
            collection=name,
            engine=engine_name,
            state=orphan.state,
            reason=ORPHAN if found is None else found.value,
            vectors=orphan.vector_count,
            message=orphan.reason or "no resource declares it",
            next_command=adopt if found is None else _next(found, engine_name, namespace, name),
        )


def _followed(resource: Observed, there: CollectionState | None) -> Observed:
    """Return a paused resource with the generation that its engine follows, as the wanted one."""
    if not resource.is_paused or there is None or there.generation is None:
        return resource
    return dataclasses.replace(resource, generation=there.generation)


def _of_orphan(orphan: CollectionState) -> Reason | None:
    """Return why a collection without a resource is not served whole; None when it is."""
    if orphan.state == "degraded":
        return Reason.POINTS_WITHHELD
    return None if orphan.state == "ready" else FROM_STATE.get(orphan.state, Reason.PENDING)


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
        Reason.QUARANTINED: f"{plugin} repair {where} --dry-run",
        Reason.POINTS_WITHHELD: f"{plugin} repair {where} --dry-run",
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


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim that an engine's pod mounts."""

    name: str
    volume: str
    """The PersistentVolume."""
    is_ending: bool


def claims_of(api: client.ApiClient, namespace: str, pods: Iterable[Any]) -> dict[str, Claim]:
    """Return the claim of each engine, by its name; those that the caller may not read are left out."""
    core, found = client.CoreV1Api(api), {}
    for pod in pods:
        for name in _names(pod):
            try:
                claim: Any = core.read_namespaced_persistent_volume_claim(name, namespace)
            except ApiException:
                continue
            is_ending = claim.metadata.deletion_timestamp is not None
            volume = claim.spec.volume_name or "none"
            found[pod.metadata.labels[Label.ENGINE]] = Claim(name, volume, is_ending)
    return found


def _names(pod: Any) -> Iterator[str]:
    for volume in pod.spec.volumes or ():
        if volume.name == VOLUME and volume.persistent_volume_claim is not None:
            yield volume.persistent_volume_claim.claim_name


def with_claims(lines: Iterable[Line], claims: Mapping[str, Claim]) -> Iterator[Line]:
    """Yield each line, with the facts about the claim of its engine that matter to it."""
    for line in lines:
        claim = claims.get(line.engine)
        yield line if claim is None else _with_claim(line, claim)


def _with_claim(line: Line, claim: Claim) -> Line:
    if claim.is_ending and line.reason in (*WHOLE, *_LOSSES):
        return dataclasses.replace(
            line,
            reason=TERMINATING if line.reason in WHOLE else line.reason,
            message=f"claim {claim.name} is being deleted, and goes when the pod ends, with PersistentVolume "
            f"{claim.volume} where its reclaim policy is Delete; {RECIPE}, keeps it",
            next_command=f"kubectl patch pv {claim.volume} --patch "
            """'{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}'""",
        )
    if line.reason in _LOSSES:
        bound = f"claim {claim.name} is bound to PersistentVolume {claim.volume}; {RECIPE}, binds another"
        return dataclasses.replace(line, message=f"{line.message}; {bound}", next_command="kubectl get pv")
    return line


def missing_manager(api: client.ApiClient, namespace: str) -> str | None:
    """Return a sentence that no manager is at work; None when one is, or its Lease may not be read."""
    try:
        lease: Any = client.CoordinationV1Api(api).read_namespaced_lease(LEASE, namespace)
    except ApiException as error:
        is_missing = error.status == HTTPStatus.NOT_FOUND
        return f"no manager has run in namespace {namespace}: no status is written" if is_missing else None
    return sentence_of(lease.spec, datetime.datetime.now(datetime.UTC))


def sentence_of(spec: Any, now: datetime.datetime) -> str | None:
    """Return a sentence that the holder of a Lease is away at that time; None: it is not. Pure."""
    if not spec.holder_identity:
        return f"no manager runs: the last one ended in order; {AWAY}"
    if spec.renew_time is None or (now - spec.renew_time).total_seconds() > STALE_SECONDS:
        return f"manager {spec.holder_identity} has not renewed its Lease since {spec.renew_time}; {AWAY}"
    return None
