"""The engines of a namespace, as the API server and their own state documents show them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vecstow_operator.observed import Observed
from vecstow_operator.vocabulary import Reason


@dataclass(frozen=True, slots=True)
class Row:
    """What an engine says of one collection."""

    name: str
    state: str
    reason: str | None = None
    collection_uid: str | None = None
    resource_uid: str | None = None
    generation: int | None = None
    vector_count: int = 0
    indexed: int = 0
    rebuilt: int | None = None
    """Vectors in the graph to come, while another one serves."""

    @property
    def serves(self) -> bool:
        """Whether it answers reads."""
        return self.state in ("ready", "degraded", "read_only")


@dataclass(frozen=True, slots=True)
class SidecarReport:
    """What the sidecar beside it says of one resource."""

    reason: Reason
    message: str
    hint: str | None = None

    @property
    def text(self) -> str:
        """For a condition's message."""
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


@dataclass(frozen=True, slots=True)
class EngineState:
    """One answer to `GET /state`."""

    volume_id: str
    rows: Mapping[str, Row]
    """By the collection's name."""
    told: Mapping[str, tuple[SidecarReport, ...]]
    """By the resource's uid."""
    failure: str | None = None
    """Why no collection comes or goes."""
    is_full: bool = False
    """The volume has no room: writes are refused."""
    is_unsupervised: bool = False
    """No sidecar has reported to the engine for a minute: what it last found may be old."""

    def knows(self, resource_uid: str) -> bool:
        """Whether a manifest of that resource is followed."""
        return any(row.resource_uid == resource_uid for row in self.rows.values())


@dataclass(frozen=True, slots=True)
class EnginePod:
    """One pod of an engine. `state` is None when it did not answer as itself: `problem` says why."""

    name: str
    uid: str
    state: EngineState | None = None
    problem: str = "it was not asked yet"
    refuses_key: bool = False
    """The problem is the key with which it was asked."""
    is_routed: bool = True
    """It is ready, and has been for long enough that Services send to it."""


@dataclass(frozen=True, slots=True)
class EngineView:
    """All that a namespace has of one engine."""

    name: str
    exists: bool = False
    """There is a StatefulSet or a pod of it."""
    wanted_pods: int = 0
    """What the StatefulSet asks for."""
    pods: tuple[EnginePod, ...] = field(default=())
    """Sorted by name, so that the one that serves comes first."""
    is_gone: bool = False
    """It does not exist, and has not for so long that it is not just being made anew."""

    @property
    def is_scaled_down(self) -> bool:
        """It has no pods, and wants none."""
        return self.exists and not self.wanted_pods and not self.pods

    @property
    def is_full(self) -> bool:
        """Whether the volume that clients write to has no room."""
        return any(pod.state is not None and pod.state.is_full for pod in self.serving)

    @property
    def serving(self) -> tuple[EnginePod, ...]:
        """The one pod that clients reach: its StatefulSet's first, and no other while that is away."""
        return tuple(pod for pod in self.pods[:1] if self.wanted_pods < 2 or pod.name.endswith("-0"))

    def row(self, name: str) -> Row | None:
        """The collection of that name, whoever's, as the first pod has it that has one."""
        rows = (pod.state.rows.get(name) for pod in self.pods if pod.state is not None)
        return next((row for row in rows if row is not None), None)


def orphans(engines: Mapping[str, EngineView], resources: Iterable[Observed]) -> list[tuple[str, str]]:
    """Engine and name of each collection that no resource declares."""
    declared = {(resource.engine, resource.collection_name) for resource in resources}
    served = {
        (engine.name, name)
        for engine in engines.values()
        for pod in engine.pods
        if pod.state is not None
        for name in pod.state.rows
    }
    return sorted(served - declared)


def parse_state(document: Mapping[str, Any]) -> EngineState:
    """The `data` of a state document. Raises one of `kube.NOT_UNDERSTOOD` for what is none."""
    rows = [_row(row) for row in document["collections"]]
    told: dict[str, tuple[SidecarReport, ...]] = {}
    for finding in (document["findings"] or {}).get("resources", ()):
        uid = str(finding["resource_uid"])
        told[uid] = (*told.get(uid, ()), _told(finding))
    return EngineState(
        volume_id=str(document["volume_id"]),
        rows={row.name: row for row in rows},
        told=told,
        failure=document.get("failure"),
        is_full=document.get("volume_full") is True,
        is_unsupervised=document.get("findings_stale") is True,
    )


def _told(finding: Mapping[str, Any]) -> SidecarReport:
    """A newer sidecar may have words of its own: they are told as they are, of this resource alone."""
    word, message, hint = finding["reason"], str(finding["message"]), finding.get("hint")
    if word not in set(Reason):
        return SidecarReport(Reason.UNKNOWN, f"{word}: {message}", hint)
    return SidecarReport(Reason(word), message, hint)


def _row(row: Mapping[str, Any]) -> Row:
    return Row(
        name=str(row["name"]),
        state=str(row["state"]),
        reason=row.get("reason"),
        collection_uid=row.get("collection_uid"),
        resource_uid=row.get("resource_uid"),
        generation=row.get("generation"),
        vector_count=int(row.get("vector_count") or 0),
        indexed=int(row.get("indexed") or 0),
        rebuilt=row.get("rebuilt"),
    )
