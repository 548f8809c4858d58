"""What the plugin knows of a namespace: resources, engines' pods, and what these say now."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kubernetes import client

from vecstow_operator.kube import Cluster
from vecstow_operator.manager.asking import address_of, engine_views
from vecstow_operator.manager.engines import EnginePod, EngineView, parse_state
from vecstow_operator.observed import Observed, observed
from vecstow_operator.plugin.proxy import EngineProxy, NoAnswer


@dataclass(slots=True)
class Survey:
    """One look at a namespace."""

    documents: list[dict[str, Any]]
    """All resources."""
    engines: dict[str, EngineView] = field(default_factory=dict)
    proxies: dict[str, EngineProxy] = field(default_factory=dict)
    """By engine: its first pod."""

    @property
    def resources(self) -> list[Observed]:
        """The same, as decisions see them."""
        return [observed(document) for document in self.documents]


def survey(api: client.ApiClient, namespace: str) -> Survey:
    """Ask everybody once. Raises Away."""
    cluster = Cluster(namespace, api)
    found = Survey(cluster.resources())
    asked: list[tuple[str, EnginePod]] = []
    for pod in sorted(cluster.pods(), key=lambda pod: pod.metadata.name):
        address = address_of(pod)
        proxy = EngineProxy(api, namespace, address.pod, address.port)
        found.proxies.setdefault(address.engine, proxy)
        asked.append((address.engine, _asked(proxy, address.uid)))
    found.engines = engine_views(cluster.stateful_sets(), asked)
    return found


def _asked(proxy: EngineProxy, uid: str) -> EnginePod:
    try:
        return EnginePod(proxy.pod, uid, parse_state(proxy.call("GET", "state")))
    except NoAnswer as error:
        return EnginePod(proxy.pod, uid, problem=str(error))
