"""Asking each engine pod for its state: one request a tick, and no answer to parse while nothing changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import urllib3

from vecstow_operator.keys import EngineKey
from vecstow_operator.kube import NOT_UNDERSTOOD
from vecstow_operator.manager.engines import EnginePod, EngineState, EngineView, parse_state
from vecstow_operator.vocabulary import Label

TIMEOUT: Final = urllib3.Timeout(connect=1.0, read=10.0)
AT_ONCE: Final = 8
"""Pods asked at the same time."""
CONTAINER: Final = "engine"
PORT_NAME: Final = "http"
PORT_DEFAULT: Final = 3030


@dataclass(frozen=True, slots=True)
class Address:
    """Where a pod answers, and as whom."""

    pod: str
    uid: str
    engine: str
    ip: str | None
    port: int

    @property
    def url(self) -> str:
        """Of its state."""
        host = f"[{self.ip}]" if self.ip is not None and ":" in self.ip else self.ip
        return f"http://{host}:{self.port}/state"


class Asking:
    """Remembers the last answer of each pod."""

    def __init__(self, key: EngineKey | None = None) -> None:
        self._key = key or EngineKey()
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False, maxsize=AT_ONCE)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ask")
        self._answers: dict[str, tuple[str, EngineState]] = {}
        """By the pod's uid: its ETag and what it was."""

    def views(self, stateful_sets: Iterable[Any], pods: Sequence[Any]) -> dict[str, EngineView]:
        """Every engine of the namespace, by name, with what its pods say now."""
        addresses = [address_of(pod) for pod in pods if stays(pod)]
        asked = list(self._threads.map(self._ask, addresses))
        self._answers = {a.uid: self._answers[a.uid] for a in addresses if a.uid in self._answers}
        engines = (address.engine for address in addresses)
        return engine_views(stateful_sets, pods, list(zip(engines, asked, strict=True)))

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, address: Address) -> EnginePod:
        if address.ip is None:
            return EnginePod(address.pod, address.uid, problem="it has no address yet")
        try:
            return EnginePod(address.pod, address.uid, self._state(address))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return EnginePod(address.pod, address.uid, problem=str(error))
        except NOT_UNDERSTOOD as error:
            return EnginePod(address.pod, address.uid, problem=f"its answer is not understood: {error!r}")

    def _state(self, address: Address) -> EngineState:
        etag, known = self._answers.get(address.uid, ("", None))
        answer = self._pool.request(
            "GET", address.url,
            headers=self._key.headers() | ({"If-None-Match": etag} if etag else {}),
        )  # fmt: skip
        if answer.status == 304 and known is not None:
            return known
        if answer.status != 200:
            raise ValueError(f"status {answer.status}: {answer.data[:200].decode(errors='replace')}")
        document = json.loads(answer.data)["data"]
        if (document["engine"], document["pod_uid"]) != (address.engine, address.uid):
            raise ValueError(f"engine {document['engine']!r} of pod {document['pod_uid']!r} answers there")
        state = parse_state(document)
        self._answers[address.uid] = answer.headers.get("etag", ""), state
        return state


def engine_views(
    stateful_sets: Iterable[Any], pods: Iterable[Any], asked: Iterable[tuple[str, EnginePod]]
) -> dict[str, EngineView]:
    """By name, every engine that has a StatefulSet or a pod, and be it one that ends.

    `asked` has each pod that stays, with its engine's name.
    """
    wanted: dict[str, int] = {}
    for stateful_set in stateful_sets:
        name = stateful_set.metadata.labels[Label.ENGINE]
        wanted[name] = wanted.get(name, 0) + (stateful_set.spec.replicas or 0)
    staying: dict[str, list[EnginePod]] = {pod.metadata.labels[Label.ENGINE]: [] for pod in pods}
    for engine, pod in sorted(asked, key=lambda each: each[1].name):
        staying[engine].append(pod)
    return {
        name: EngineView(
            name, exists=True, wanted_pods=wanted.get(name, 0), pods=tuple(staying.get(name, ()))
        )
        for name in wanted.keys() | staying.keys()
    }


def stays(pod: Any) -> bool:
    """Whether it is not ending: what it serves counts."""
    return pod.metadata.deletion_timestamp is None


def address_of(pod: Any) -> Address:
    """Where a pod of an engine answers."""
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
    )
