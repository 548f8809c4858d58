"""The states of all engine pods: one request for each pod and tick. An unchanged answer is not parsed."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import urllib3

from vecstow_engine.model.backoff import Backoff
from vecstow_operator.keys import REFUSALS, EngineKey, NoKey
from vecstow_operator.kube import NOT_UNDERSTOOD
from vecstow_operator.manager.engines import EnginePod, EngineState, EngineView, parse_state
from vecstow_operator.manager.refusals import Refusals
from vecstow_operator.vocabulary import Label

TIMEOUT: Final = urllib3.Timeout(connect=1.0, read=10.0)
REQUESTS_AT_ONCE: Final = 8
KEY_BACKOFF: Final = Backoff(first_seconds=4.0, seconds_max=30.0)
"""The pauses between requests with the same key to a pod that refuses it."""
ROUTED_SECONDS: Final = 2.0
"""The time from a pod's condition Ready until every node sends to it. Up to 1.7 s were measured."""
CONTAINER: Final = "engine"
PORT_NAME: Final = "http"
PORT_DEFAULT: Final = 3030
UNOWNED: Final = "no StatefulSet of its engine owns it, so it is not asked"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a pod, and the names that its answer must have."""

    pod: str
    uid: str
    engine: str
    ip: str | None
    port: int
    is_owned: bool
    """Whether a StatefulSet of the engine controls the pod. Only an owned pod is sent a key."""
    is_ready: bool = True
    """Whether the pod's condition Ready is true: Services send to no other."""

    @property
    def url(self) -> str:
        """The URL of the pod's state."""
        host = f"[{self.ip}]" if self.ip is not None and ":" in self.ip else self.ip
        return f"http://{host}:{self.port}/state"


class StatePoller:
    """Keeps the last answer of each pod. Not thread-safe: one loop calls it."""

    def __init__(self, key: EngineKey | None = None) -> None:
        self._key = key or EngineKey()
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False, maxsize=REQUESTS_AT_ONCE)
        self._threads = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="ask")
        self._answers: dict[str, tuple[str, EngineState]] = {}
        """The ETag and the state of each pod, by uid."""
        self._ready_since: dict[str, float] | None = None
        """When each pod became ready, by uid; None before the first pass: the times are unknown then."""
        self._refusals = Refusals(KEY_BACKOFF)

    def views(self, stateful_sets: Iterable[Any], pods: Sequence[Any]) -> dict[str, EngineView]:
        """Return every engine of the namespace, by name, with the states of its pods now."""
        stateful_sets = list(stateful_sets)
        addresses = addresses_of(stateful_sets, pods)
        routed = self._routed(addresses, time.monotonic())
        answers = [
            dataclasses.replace(pod, is_routed=pod.uid in routed)
            for pod in self._threads.map(self._ask, addresses)
        ]
        self._answers = {a.uid: self._answers[a.uid] for a in addresses if a.uid in self._answers}
        self._refusals.forget_all_but({address.uid for address in addresses})
        engines = (address.engine for address in addresses)
        return engine_views(stateful_sets, pods, list(zip(engines, answers, strict=True)))

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _routed(self, addresses: Iterable[Address], now: float) -> set[str]:
        """Return the uids of the pods that Services send to. Nodes learn late that a pod became ready."""
        known, begun = self._ready_since, float("-inf") if self._ready_since is None else now
        self._ready_since = {a.uid: (known or {}).get(a.uid, begun) for a in addresses if a.is_ready}
        return {uid for uid, since in self._ready_since.items() if now - since >= ROUTED_SECONDS}

    def _ask(self, address: Address) -> EnginePod:
        """Return the pod with its state, or with the problem that kept it from answering."""
        pod = partial(EnginePod, address.pod, address.uid)
        if not address.is_owned:
            return pod(problem=UNOWNED)
        if address.ip is None:
            return pod(problem="it has no address yet")
        try:
            state, refusal = self._answer(address)
        except NoKey as error:
            return pod(problem=str(error), refuses_key=True)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return pod(problem=str(error))
        except NOT_UNDERSTOOD as error:
            return pod(problem=f"its answer is not understood: {error!r}")
        return pod(state) if refusal is None else pod(problem=refusal, refuses_key=True)

    def _answer(self, address: Address) -> tuple[EngineState | None, str | None]:
        """Request the state. Return it, or why the pod refuses the key: waiting does not help then.

        A refused key is sent again after a pause, another key at once. Raises NoKey, ValueError, an urllib3
        error, or one of NOT_UNDERSTOOD.
        """
        key, now = self._key.headers(), time.monotonic()
        refusal = self._refusals.reason(address.uid, key, now)
        if refusal is not None:
            return None, refusal
        etag, state = self._answers.get(address.uid, ("", None))
        headers = {**key, "If-None-Match": etag} if etag else dict(key)
        answer = self._pool.request("GET", address.url, headers=headers)
        if answer.status in REFUSALS:
            refusal = f"it says {answer.status} to the manager's key ({self._key.source})"
            self._refusals.add(address.uid, key, refusal, now)
            return None, refusal
        if answer.status != 304 or state is None:
            state = _parsed(address, answer)
            self._answers[address.uid] = answer.headers.get("etag", ""), state
        self._refusals.forget(address.uid)
        return state, None


def _parsed(address: Address, answer: urllib3.BaseHTTPResponse) -> EngineState:
    """Return the state. Raises ValueError, or one of NOT_UNDERSTOOD."""
    if answer.status != 200:
        raise ValueError(f"status {answer.status}: {answer.data[:200].decode(errors='replace')}")
    document = json.loads(answer.data)["data"]
    if (document["engine"], document["pod_uid"]) != (address.engine, address.uid):
        raise ValueError(f"engine {document['engine']!r} of pod {document['pod_uid']!r} answers there")
    return parse_state(document)


def engine_views(
    stateful_sets: Iterable[Any], pods: Iterable[Any], answers: Iterable[tuple[str, EnginePod]]
) -> dict[str, EngineView]:
    """Return every engine that has a StatefulSet or a pod, by name; a pod that is ending counts.

    `answers` has each pod that stays, with its engine's name.
    """
    wanted: dict[str, int] = {}
    for stateful_set in stateful_sets:
        name = stateful_set.metadata.labels[Label.ENGINE]
        wanted[name] = wanted.get(name, 0) + (stateful_set.spec.replicas or 0)
    staying: dict[str, list[EnginePod]] = {pod.metadata.labels[Label.ENGINE]: [] for pod in pods}
    for engine, pod in sorted(answers, key=lambda each: each[1].name):
        staying[engine].append(pod)
    return {
        name: EngineView(
            name, exists=True, wanted_pods=wanted.get(name, 0), pods=tuple(staying.get(name, ()))
        )
        for name in wanted.keys() | staying.keys()
    }


def addresses_of(stateful_sets: Iterable[Any], pods: Iterable[Any]) -> list[Address]:
    """Return the addresses of the engines' pods, sorted by the pod's name; pods that are ending are left out.

    Anyone who may create pods can label one. A pod that no StatefulSet of its engine controls is left out,
    too. While an engine has no StatefulSet (`kubectl delete --cascade=orphan`), its pods are not owned.
    """
    owners: dict[str, list[Any]] = {}
    for stateful_set in stateful_sets:
        owners.setdefault(stateful_set.metadata.labels[Label.ENGINE], []).append(stateful_set.metadata)
    found = []
    for pod in pods:
        if pod.metadata.deletion_timestamp is not None:
            continue
        of_engine = owners.get(pod.metadata.labels[Label.ENGINE], [])
        is_owned = any(_controls(owner, pod.metadata) for owner in of_engine)
        if is_owned or not of_engine:
            found.append(_address(pod, is_owned=is_owned))
    return sorted(found, key=lambda address: address.pod)


def _controls(owner: Any, pod: Any) -> bool:
    """Whether the StatefulSet created the pod. Others can copy the reference, but not take the name."""
    return pod.name.rpartition("-")[0] == owner.name and any(
        reference.controller and reference.kind == "StatefulSet" and reference.uid == owner.uid
        for reference in pod.owner_references or ()
    )


def _address(pod: Any, *, is_owned: bool) -> Address:
    containers = {container.name: container for container in pod.spec.containers}
    ports = {
        port.name: port.container_port for port in getattr(containers.get(CONTAINER), "ports", None) or ()
    }
    return Address(
        pod=pod.metadata.name,
        uid=pod.metadata.uid,
        engine=pod.metadata.labels[Label.ENGINE],
        ip=pod.status.pod_ip,
        port=ports.get(PORT_NAME, PORT_DEFAULT),
        is_owned=is_owned,
        is_ready=any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ()),
    )
