"""The resources of the namespace, by the last complete list, and what the manager remembers of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vecstow_operator.health import Metrics
from vecstow_operator.kube import LIST_SECONDS_MAX, Cluster
from vecstow_operator.manager import status
from vecstow_operator.manager.assessment import is_followed
from vecstow_operator.manager.engines import EngineView
from vecstow_operator.observed import Observed, observed

ALIKE_MAX: Final = 10_000
"""The documents that are kept because others may have the same content."""


@dataclass(frozen=True, slots=True)
class CachedResource:
    """One resource as it was read."""

    resource: Observed
    version: str
    """The resourceVersion."""
    status: Mapping[str, Any]
    finalizers: tuple[str, ...]

    @property
    def observed_at(self) -> str:
        """RFC 3339: the time of the manager's last look, by the status; empty when it has none."""
        return str(self.status.get("observedAt", ""))


class ResourceCache:
    """Builds resources whose equal parts are the same object. Thread-safe."""

    def __init__(self) -> None:
        self._kept: dict[str, Mapping[str, Any]] = {}

    def of(self, document: Mapping[str, Any]) -> CachedResource:
        """Return a resource from the API server's JSON."""
        metadata, known = document["metadata"], status.own(document.get("status") or {})
        if "conditions" in known:
            known["conditions"] = [self._alike(condition) for condition in known["conditions"]]
        return CachedResource(
            observed({**document, "spec": self._alike(document.get("spec") or {})}),
            metadata["resourceVersion"],
            known,
            tuple(metadata.get("finalizers") or ()),
        )

    def _alike(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the first document of the same content, which must not be changed."""
        if len(self._kept) > ALIKE_MAX:
            self._kept = {}
        return self._kept.setdefault(repr(document), document)


class ResourceList:
    """The last complete list, and the manager's own writes since. Times are monotonic seconds."""

    def __init__(self, cluster: Cluster, metrics: Metrics) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._cache = ResourceCache()
        self._listed_at = float("-inf")
        self.is_stale = False
        """Whether some resource is not as it was listed: the next pass lists again."""
        self.by_uid: dict[str, CachedResource] = {}
        self.is_complete = False
        """Whether the last list was complete, and all else that the pass read."""

    def refresh(self, *, is_woken: bool, now: float) -> bool:
        """List the resources when that is due; return whether it was. Raises Away."""
        is_due = now - self._listed_at >= LIST_SECONDS_MAX
        if not (is_woken or is_due or self.is_stale or not self.is_complete):
            return False
        self.by_uid = {cached.resource.uid: cached for cached in self._listed()}
        self._listed_at, self.is_complete, self.is_stale = now, True, False
        self._metrics.resources.set(len(self.by_uid))
        return True

    def replace(self, document: Mapping[str, Any]) -> None:
        """Take over a document as the API server returned it from a write."""
        written = self._cache.of(document)
        self.by_uid[written.resource.uid] = written

    def _listed(self) -> Iterator[CachedResource]:
        """Yield each resource. An unchanged one stays the same object: thousands twice need much memory."""
        for document in self._cluster.resources():
            self._metrics.heartbeat.beat()
            metadata = document["metadata"]
            known = self.by_uid.get(metadata["uid"])
            is_same = known is not None and known.version == metadata["resourceVersion"]
            yield known if known is not None and is_same else self._cache.of(document)


@dataclass(frozen=True, slots=True)
class Age:
    """The age of the manager's knowledge of one resource."""

    now_rfc3339: str
    seconds_of_generation: float
    """The time since this generation was first listed."""
    seconds_since_patch: float
    is_look_due: bool
    """Whether `observedAt` is to be refreshed."""
    was_followed: bool
    """Whether an engine has followed the resource."""


class History:
    """When resources were seen and written, and which an engine followed. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._first_seen: dict[tuple[str, int], float] = {}
        """When each generation was first listed, by uid and generation."""
        self._patched_at: dict[str, float] = {}
        """When each status was last written, by uid."""
        self._followed: set[str] = set()
        """Uids of resources that an engine has followed."""

    def follow(self, listed: Mapping[str, CachedResource], now: float) -> None:
        """Take over a new list of resources, by uid: new generations are seen now, the gone forgotten."""
        versions = [(uid, cached.resource.generation) for uid, cached in listed.items()]
        self._first_seen = {version: self._first_seen.get(version, now) for version in versions}
        self._patched_at = {uid: at for uid, at in self._patched_at.items() if uid in listed}
        self._followed &= listed.keys()

    def note_patch(self, resource: Observed, now: float) -> None:
        """Record that a status was written."""
        self._patched_at[resource.uid] = now

    def age(
        self, cached: CachedResource, engine: EngineView, now: float, now_rfc3339: str, looked_after: str
    ) -> Age:
        """Return the age of the knowledge of one resource; an `observedAt` before `looked_after` is due."""
        resource = cached.resource
        if is_followed(resource, engine):
            self._followed.add(resource.uid)
        return Age(
            now_rfc3339=now_rfc3339,
            seconds_of_generation=now - self._first_seen[resource.uid, resource.generation],
            seconds_since_patch=now - self._patched_at.get(resource.uid, float("-inf")),
            is_look_due=cached.observed_at < looked_after,
            was_followed=resource.uid in self._followed,
        )
