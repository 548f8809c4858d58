"""The engines of a namespace, as the API server and their state documents show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from vecstow_operator.observed import Observed, Report, parse_report


@dataclass(frozen=True, slots=True)
class CollectionState:
    """One collection in the state of an engine."""

    name: str
    state: str
    reason: str | None = None
    collection_uid: str | None = None
    resource_uid: str | None = None
    generation: int | None = None
    vector_count: int = 0
    indexed: int = 0
    rebuilt: int | None = None
    """Vectors in the graph that is being built, while the old one serves."""
    aliases: tuple[str, ...] = ()
    """The second names under which the engine answers for it."""

    @property
    def serves(self) -> bool:
        """Whether the collection answers reads."""
        return self.state in ("ready", "degraded", "read_only")


@dataclass(frozen=True, slots=True)
class EngineState:
    """One answer to `GET /state`."""

    volume_id: str
    collections: Mapping[str, CollectionState]
    """The collections, by name."""
    reports: Mapping[str, tuple[Report, ...]]
    """The sidecar's reports, by the uid of their resource."""
    failure: str | None = None
    """The reason why the engine can neither create nor drop collections."""
    is_full: bool = False
    """Whether the volume has no room: writes are refused."""
    is_unsupervised: bool = False
    """Whether no sidecar has reported to the engine for a minute: its last reports may be old."""

    def knows(self, resource_uid: str) -> bool:
        """Whether the engine follows a manifest of that resource."""
        return any(each.resource_uid == resource_uid for each in self.collections.values())


@dataclass(frozen=True, slots=True)
class EnginePod:
    """One pod of an engine. `state` is None when no valid answer came; `problem` is the reason."""

    name: str
    uid: str
    state: EngineState | None = None
    problem: str = "it was not asked yet"
    refuses_key: bool = False
    """Whether the problem is the key of the request."""
    is_routed: bool = True
    """Whether the pod has been ready for long enough that Services send to it."""


@dataclass(frozen=True, slots=True)
class EngineView:
    """The StatefulSets and pods of one engine."""

    name: str
    exists: bool = False
    """Whether the engine has a StatefulSet or a pod."""
    wanted_pods: int = 0
    """The replicas of the StatefulSet."""
    pods: tuple[EnginePod, ...] = field(default=())
    """Sorted by name, so that the serving pod comes first."""
    is_gone: bool = False
    """Whether it is missing for too long to be just created again."""

    @property
    def is_scaled_down(self) -> bool:
        """Whether the engine has no pods and wants none."""
        return self.exists and not self.wanted_pods and not self.pods

    @property
    def is_full(self) -> bool:
        """Whether the volume that clients write to has no room."""
        return any(pod.state is not None and pod.state.is_full for pod in self.serving)

    @property
    def serving(self) -> tuple[EnginePod, ...]:
        """The one pod that clients reach: the first of the StatefulSet, and no other while that is away."""
        return tuple(pod for pod in self.pods[:1] if self.wanted_pods < 2 or pod.name.endswith("-0"))

    def collection(self, name: str) -> CollectionState | None:
        """Return the collection of that name in the first pod that has one, whichever resource owns it."""
        found = (
            pod.state.collections[name] for pod in self.pods if pod.state and name in pod.state.collections
        )
        return next(found, None)


ABSENCE_SECONDS: Final = 30.0
"""How long every pass must miss an engine before its resources are released without a drop. A StatefulSet may
be deleted and created again."""
GAP_TICKS_MAX: Final = 5
"""The longest gap between two passes that prove an absence. The gap is longer when another manager had the
Lease."""


class EngineList:
    """The engines as the last pass saw them, and the absences of others. Times are monotonic seconds."""

    def __init__(self, tick_seconds: float) -> None:
        self._gap_seconds_max = GAP_TICKS_MAX * tick_seconds
        self._missing_since: dict[str, float] = {}
        """The start of each absence, by engine. Only the observations of passes count."""
        self._refreshed_at = float("-inf")
        self.by_name: Mapping[str, EngineView] = {}

    def refresh(self, views: Mapping[str, EngineView], declared: Iterable[str], now: float) -> None:
        """Take over the views of a pass. `declared` are the names of engines that resources refer to."""
        # An unchanged view stays the same object, so that resources compare engines by identity.
        self.by_name = {
            name: known if (known := self.by_name.get(name)) == view else view for name, view in views.items()
        }
        if now - self._refreshed_at > self._gap_seconds_max:
            self.forget_missing()
        self._refreshed_at = now
        missing = set(declared) - self.by_name.keys()
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}

    def view(self, name: str, now: float) -> EngineView:
        """Return the engine of that name, or a view of a missing one."""
        if name in self.by_name:
            return self.by_name[name]
        is_gone = now - self._missing_since.get(name, now) >= ABSENCE_SECONDS
        return EngineView(name, is_gone=is_gone)

    def forget_missing(self) -> None:
        """Forget since when engines are missing: their present state is unknown."""
        self._missing_since = {}


def orphans(engines: Mapping[str, EngineView], resources: Iterable[Observed]) -> list[tuple[str, str]]:
    """Return engine and name of each collection that no resource declares."""
    declared = {(resource.engine, resource.collection_name) for resource in resources}
    served = {
        (engine.name, name)
        for engine in engines.values()
        for pod in engine.pods
        if pod.state is not None
        for name in pod.state.collections
    }
    return sorted(served - declared)


def parse_state(document: Mapping[str, Any]) -> EngineState:
    """Return a state from the `data` of its document. Raises one of `kube.NOT_UNDERSTOOD`."""
    collections = map(_collection, document["collections"])
    reports: dict[str, tuple[Report, ...]] = {}
    for report in map(parse_report, (document["findings"] or {}).get("resources", ())):
        reports[report.resource_uid] = (*reports.get(report.resource_uid, ()), report)
    return EngineState(
        volume_id=str(document["volume_id"]),
        collections={each.name: each for each in collections},
        reports=reports,
        failure=document.get("failure"),
        is_full=document.get("volume_full") is True,
        is_unsupervised=document.get("findings_stale") is True,
    )


def _collection(document: Mapping[str, Any]) -> CollectionState:
    return CollectionState(
        name=str(document["name"]),
        state=str(document["state"]),
        reason=document.get("reason"),
        collection_uid=document.get("collection_uid"),
        resource_uid=document.get("resource_uid"),
        generation=document.get("generation"),
        vector_count=int(document.get("vector_count") or 0),
        indexed=int(document.get("indexed") or 0),
        rebuilt=document.get("rebuilt"),
        aliases=tuple(document.get("aliases") or ()),
    )
