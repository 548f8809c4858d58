"""The resources that claim collections of this engine, by the last complete list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import structlog

from vecstow_operator.health import Heartbeat, Metrics
from vecstow_operator.kube import LIST_SECONDS_MAX, Away, Cluster
from vecstow_operator.observed import Observed, observed

Claims = Mapping[str, tuple[Observed, ...]]
"""All resources that want the name of a collection, by that name."""

log = structlog.stdlib.get_logger(__name__)


class ClaimList:
    """Times are monotonic seconds."""

    def __init__(self, cluster: Cluster, engine: str, metrics: Metrics, heartbeat: Heartbeat) -> None:
        self._cluster = cluster
        self._engine = engine
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._by_uid: dict[str, tuple[str, Observed]] = {}
        """The resourceVersion of each resource, and the resource."""
        self._listed_at = float("-inf")
        self.claims: Claims | None = None
        """None until a list was complete."""
        self.is_away = False
        """Whether the last list failed: then `claims` are those of an earlier one."""

    def refresh(self, *, is_woken: bool, now: float) -> None:
        """List the resources when that is due. An API server that is away raises nothing."""
        if not (is_woken or self.is_away or now - self._listed_at >= LIST_SECONDS_MAX):
            return
        try:
            listed = self._listed()
        except Away as away:
            self._report_away(away)
            return
        if self.is_away:
            log.info("resources are known again", count=len(listed))
        self.is_away = False
        self._listed_at = now
        self._by_uid = listed
        self.claims = _by_collection(resource for _, resource in listed.values())
        self._metrics.resources.set(len(listed))
        self._metrics.pass_was_complete()

    def _listed(self) -> dict[str, tuple[str, Observed]]:
        """Return a complete list, by uid. An unchanged version is not parsed again. Raises Away."""
        listed: dict[str, tuple[str, Observed]] = {}
        for document in self._cluster.resources(self._engine):
            self._heartbeat.beat()
            uid, version = document["metadata"]["uid"], document["metadata"]["resourceVersion"]
            known = self._by_uid.get(uid)
            is_same = known is not None and known[0] == version
            listed[uid] = known if known is not None and is_same else (version, observed(document))
        waits_for_drop = any(r.is_deleting and not r.is_retained for _, r in listed.values())
        if waits_for_drop and self._cluster.definition_ends():
            raise Away("the definition is being deleted: no resource says what to drop")
        return listed

    def _report_away(self, away: Away) -> None:
        """Count an API server that is away, and log it once."""
        self._metrics.errors.labels("api_server").inc()
        if not self.is_away:
            log.warning("resources are unknown", reason=str(away))
        self.is_away = True


def _by_collection(resources: Iterable[Observed]) -> Claims:
    claims: defaultdict[str, list[Observed]] = defaultdict(list)
    for resource in resources:
        claims[resource.collection_name].append(resource)
    return {name: tuple(sorted(rivals, key=lambda r: r.uid)) for name, rivals in claims.items()}
