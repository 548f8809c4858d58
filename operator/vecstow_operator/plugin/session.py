"""The subject of one command of the plugin: one look at a namespace, and requests to its engines.

Requests go through the API server's proxy of a pod.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from vecstow_operator.keys import EngineKey, NoKey
from vecstow_operator.kube import NOT_UNDERSTOOD, Changed, Cluster
from vecstow_operator.kubeconfig import client_of
from vecstow_operator.manager.engines import EnginePod, EngineView, parse_state
from vecstow_operator.manager.state_poller import UNOWNED, addresses_of, engine_views
from vecstow_operator.observed import Observed, observed
from vecstow_operator.vocabulary import PLUGIN_FIELDS

CONNECT_SECONDS_MAX: Final = 5.0
ANSWER_SECONDS_MAX: Final = 600.0
"""A check reads every row."""
STATE_SECONDS_MAX: Final = 10.0
"""The time limit for the state of a pod: a pod that hangs must not hide the others."""


class Refused(Exception):
    """Raised when a command cannot do its work; the message has the reason."""


class NoAnswer(Exception):
    """Raised when an engine refuses a request or cannot be reached; the message has the reason."""


class NotAllowed(NoAnswer):
    """Raised when the engine wants a key, or another one, or the API server wants a right."""


@dataclass(frozen=True, slots=True)
class EngineProxy:
    """One engine pod."""

    api: client.ApiClient
    namespace: str
    pod: str
    port: int
    key: EngineKey = field(default_factory=EngineKey)

    def call(
        self, method: str, *path: str, body: object = None, seconds_max: float = ANSWER_SECONDS_MAX
    ) -> Any:
        """Return the `data` of the answer. Raises NoAnswer or its subclass NotAllowed."""
        below = "/".join(quote(part, safe="") for part in path)
        where = f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}:{self.port}/proxy/{below}"
        try:
            headers = {"Accept": "application/json"} | self.key.headers()
        except NoKey as error:
            raise NoAnswer(str(error)) from error
        if body is not None:
            headers["Content-Type"] = "application/json"
        request = self.api.param_serialize(
            method, where, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        try:
            answer = self.api.call_api(*request, _request_timeout=(CONNECT_SECONDS_MAX, seconds_max))
            content: bytes = answer.read()
        except (ApiException, HTTPError, OSError) as error:
            raise NoAnswer(f"the API server does not answer: {error}") from error
        if answer.status != HTTPStatus.OK:
            message = f"pod {self.pod}: {_message(content) or f'{answer.status} {answer.reason}'}"
            if answer.status == HTTPStatus.UNAUTHORIZED:
                raise NotAllowed(f"{message}: export VECSTOW_API_KEY=…, or --key-file FILE")
            raise (NotAllowed if answer.status == HTTPStatus.FORBIDDEN else NoAnswer)(message)
        try:
            return json.loads(content)["data"]
        except (ValueError, TypeError, KeyError) as error:
            raise NoAnswer(f"pod {self.pod}: its answer is not understood: {error!r}") from error


def _message(content: bytes) -> str | None:
    """Return the message of the engine or of the API server."""
    try:
        document = json.loads(content)
        return str(document.get("error") or document["message"])
    except NOT_UNDERSTOOD:
        return None


@dataclass(slots=True)
class Session:
    """One look at a namespace, with the rights and the key of the caller."""

    api: client.ApiClient
    namespace: str
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

    @classmethod
    def open(cls, context: str | None, namespace: str | None, key_file: Path | None) -> Session:
        """Look at the namespace, by default the context's. Raises Unconfigured or Away."""
        api, own = client_of(context)
        return survey(api, namespace or own, EngineKey(key_file))

    def document(self, name: str) -> dict[str, Any]:
        """Return the resource of that name. Raises Refused."""
        for document in self.documents:
            if document["metadata"]["name"] == name:
                return document
        raise Refused(f"vectorcollection/{name} does not exist")

    def resource(self, name: str) -> Observed | None:
        """Return the resource of that name, as decisions see it; None without one."""
        return next((resource for resource in self.resources if resource.name == name), None)

    def patch(self, document: Mapping[str, Any], changed: dict[str, Any]) -> None:
        """Change the metadata of exactly the object that was read. Raises Refused or Away."""
        metadata = document["metadata"]
        name, version = metadata["name"], metadata["resourceVersion"]
        try:
            self.cluster.patch_metadata(name, metadata["uid"], version, changed)
        except Changed as error:
            raise Refused(f"vectorcollection/{name} changed meanwhile ({error}): try again") from error

    def collection(self, name: str, engine: str | None) -> tuple[EngineProxy, str]:
        """Return engine and collection of the resource of that name, or of a collection without a resource.

        Raises Refused.
        """
        resource = self.resource(name)
        if resource is not None:
            return self.engine(resource.engine), resource.collection_name
        return self.engine(engine), name

    def engine(self, name: str | None) -> EngineProxy:
        """Return the engine of that name; None: the only one. Raises Refused."""
        if name is None and len(self.proxies) == 1:
            [proxy] = self.proxies.values()
            return proxy
        if not self.proxies:
            raise Refused("no engine of this namespace has a pod")
        if name is None:
            raise Refused(f"there are {len(self.proxies)} engines with pods; say --engine NAME")
        if name not in self.proxies:
            raise Refused(f"engine {name!r} has no pod")
        return self.proxies[name]

    def refuse_incomplete(self) -> None:
        """Raise Refused where an engine did not answer because a key or a right is missing."""
        if self.refusals:
            raise Refused(self.refusals[0])


def survey(api: client.ApiClient, namespace: str, key: EngineKey) -> Session:
    """Request the state of every engine pod once. Raises Away."""
    cluster = Cluster(namespace, api, PLUGIN_FIELDS)
    found = Session(api, namespace, cluster, list(cluster.resources()))
    answers: list[tuple[str, EnginePod]] = []
    stateful_sets, found.pods = cluster.stateful_sets(), cluster.pods()
    for address in addresses_of(stateful_sets, found.pods):
        if not address.is_owned:
            answers.append((address.engine, EnginePod(address.pod, address.uid, problem=UNOWNED)))
            continue
        proxy = EngineProxy(api, namespace, address.pod, address.port, key)
        found.proxies.setdefault(address.engine, proxy)
        pod = pod_state(proxy, address.uid, found.refusals)
        answers.append((address.engine, dataclasses.replace(pod, is_routed=address.is_ready)))
    found.engines = engine_views(stateful_sets, found.pods, answers)
    return found


def pod_state(proxy: EngineProxy, uid: str, refusals: list[str]) -> EnginePod:
    """Return the pod with its state or its problem. Append a refusal to `refusals`."""
    try:
        state = parse_state(proxy.call("GET", "state", seconds_max=STATE_SECONDS_MAX))
        return EnginePod(proxy.pod, uid, state)
    except NoAnswer as error:
        if isinstance(error, NotAllowed):
            refusals.append(str(error))
        return EnginePod(proxy.pod, uid, problem=str(error))
    except NOT_UNDERSTOOD as error:
        return EnginePod(proxy.pod, uid, problem=f"its answer is not understood: {error!r}")


def refuse_missing(names: Iterable[str] | None, there: set[str], what: str) -> None:
    """Raise Refused for the first name that is not there."""
    missing = sorted(set(names or ()) - there)
    if missing:
        raise Refused(f"{what} is called {missing[0]!r}")
