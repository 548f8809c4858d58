"""One look at a namespace: resources, engines' pods, and their states."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

from kubernetes import client

from vecstow_operator.keys import EngineKey
from vecstow_operator.kube import NOT_UNDERSTOOD, Cluster
from vecstow_operator.manager.engines import EnginePod, EngineView, parse_state
from vecstow_operator.manager.state_poller import UNOWNED, addresses_of, engine_views
from vecstow_operator.observed import Observed, observed
from vecstow_operator.plugin.proxy import EngineProxy, NoAnswer, NotAllowed
from vecstow_operator.vocabulary import PLUGIN_FIELDS

STATE_SECONDS_MAX: Final = 10.0
"""The time limit for the state of a pod: a pod that hangs must not hide the others."""


@dataclass(slots=True)
class Survey:
    """One look at a namespace."""

    cluster: Cluster
    documents: list[dict[str, Any]]
    """All resources."""
    engines: dict[str, EngineView] = field(default_factory=dict)
    proxies: dict[str, EngineProxy] = field(default_factory=dict)
    """The first pod of each engine that its StatefulSet owns, by engine."""
    refusals: list[str] = field(default_factory=list)
    """The reasons why pods refused to show their states: a key or a right is missing."""
    pods: list[Any] = field(default_factory=list)
    """The pods of engines."""

    resources: list[Observed] = field(init=False)
    """The resources, as decisions see them."""

    def __post_init__(self) -> None:
        self.resources = [observed(document) for document in self.documents]


def survey(api: client.ApiClient, namespace: str, key: EngineKey) -> Survey:
    """Request the state of every engine pod once. Raises Away."""
    cluster = Cluster(namespace, api, PLUGIN_FIELDS)
    found = Survey(cluster, list(cluster.resources()))
    answers: list[tuple[str, EnginePod]] = []
    stateful_sets, pods = cluster.stateful_sets(), cluster.pods()
    for address in addresses_of(stateful_sets, pods):
        if not address.is_owned:
            answers.append((address.engine, EnginePod(address.pod, address.uid, problem=UNOWNED)))
            continue
        proxy = EngineProxy(api, namespace, address.pod, address.port, key)
        found.proxies.setdefault(address.engine, proxy)
        pod = pod_state(proxy, address.uid, found.refusals)
        answers.append((address.engine, dataclasses.replace(pod, is_routed=address.is_ready)))
    found.engines, found.pods = engine_views(stateful_sets, pods, answers), pods
    return found


def pod_state(proxy: EngineProxy, uid: str, refusals: list[str]) -> EnginePod:
    """Return the pod with its state or its problem. Append a refusal to `refusals`."""
    try:
        return EnginePod(
            proxy.pod, uid, parse_state(proxy.call("GET", "state", seconds_max=STATE_SECONDS_MAX))
        )
    except NoAnswer as error:
        if isinstance(error, NotAllowed):
            refusals.append(str(error))
        return EnginePod(proxy.pod, uid, problem=str(error))
    except NOT_UNDERSTOOD as error:
        return EnginePod(proxy.pod, uid, problem=f"its answer is not understood: {error!r}")
