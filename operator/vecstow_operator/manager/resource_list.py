"""The resources of the namespace, by the last complete list and the manager's own writes since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vecstow_operator.health import Heartbeat
from vecstow_operator.kube import LIST_SECONDS_MAX, Cluster
from vecstow_operator.manager.resource_cache import CachedResource, ResourceCache
from vecstow_operator.metrics import Metrics


class ResourceList:
    """Times are monotonic seconds."""

    def __init__(self, cluster: Cluster, metrics: Metrics, heartbeat: Heartbeat) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._cache = ResourceCache()
        self._listed_at = float("-inf")
        self._is_stale = False
        self.by_uid: dict[str, CachedResource] = {}
        self.is_complete = False
        """Whether the last list was complete, and all else that the pass read."""

    def refresh(self, *, is_woken: bool, now: float) -> bool:
        """List the resources when that is due; return whether it was. Raises Away."""
        is_due = now - self._listed_at >= LIST_SECONDS_MAX
        if not (is_woken or is_due or self._is_stale or not self.is_complete):
            return False
        self.by_uid = {cached.resource.uid: cached for cached in self._listed()}
        self._listed_at, self.is_complete, self._is_stale = now, True, False
        self._metrics.resources.set(len(self.by_uid))
        return True

    def replace(self, document: Mapping[str, Any]) -> None:
        """Take over a document as the API server returned it from a write."""
        written = self._cache.of(document)
        self.by_uid[written.resource.uid] = written

    def mark_stale(self) -> None:
        """List again in the next pass: some resource is not as it was listed."""
        self._is_stale = True

    def mark_incomplete(self) -> None:
        """List again in the next pass: nothing is known until then."""
        self.is_complete = False

    def _listed(self) -> Iterator[CachedResource]:
        """Yield each resource. An unchanged one stays the same object: thousands twice need much memory."""
        for document in self._cluster.resources():
            self._heartbeat.beat()
            metadata = document["metadata"]
            known = self.by_uid.get(metadata["uid"])
            is_same = known is not None and known.version == metadata["resourceVersion"]
            yield known if known is not None and is_same else self._cache.of(document)
