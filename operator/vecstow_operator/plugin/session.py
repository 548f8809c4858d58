"""The subject of one command of the plugin: a namespace, its content, and one engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client

from vecstow_operator.keys import EngineKey
from vecstow_operator.kube import Changed
from vecstow_operator.kubeconfig import client_of
from vecstow_operator.observed import Observed
from vecstow_operator.plugin.proxy import EngineProxy
from vecstow_operator.plugin.survey import Survey, survey


class Refused(Exception):
    """Raised when a command cannot do its work; the message has the reason."""


@dataclass(frozen=True, slots=True)
class Session:
    """One look at a namespace, with the rights and the key of the caller."""

    api: client.ApiClient
    namespace: str
    found: Survey

    @classmethod
    def open(cls, context: str | None, namespace: str | None, key_file: Path | None) -> Session:
        """Look at the namespace, by default the context's. Raises Unconfigured or Away."""
        api, own = client_of(context)
        namespace = namespace or own
        return cls(api, namespace, survey(api, namespace, EngineKey(key_file)))

    def document(self, name: str) -> dict[str, Any]:
        """Return the resource of that name. Raises Refused."""
        for document in self.found.documents:
            if document["metadata"]["name"] == name:
                return document
        raise Refused(f"vectorcollection/{name} does not exist")

    def resource(self, name: str) -> Observed:
        """Return the resource of that name, as decisions see it. Raises Refused."""
        for resource in self.found.resources:
            if resource.name == name:
                return resource
        raise Refused(f"vectorcollection/{name} does not exist")

    def patch(self, document: Mapping[str, Any], changed: dict[str, Any]) -> None:
        """Change the metadata of exactly the object that was read. Raises Refused or Away."""
        metadata = document["metadata"]
        name, version = metadata["name"], metadata["resourceVersion"]
        try:
            self.found.cluster.patch_metadata(name, metadata["uid"], version, changed)
        except Changed as error:
            raise Refused(f"vectorcollection/{name} changed meanwhile ({error}): try again") from error

    def collection(self, name: str, engine: str | None) -> tuple[EngineProxy, str]:
        """Return engine and collection of the resource of that name, or of a collection without a resource.

        Raises Refused.
        """
        for resource in self.found.resources:
            if resource.name == name:
                return self.engine(resource.engine), resource.collection_name
        return self.engine(engine), name

    def counted(self, name: str) -> int | None:
        """Return the last count of vectors in the resource's status; None without a resource."""
        counts = (each.known.vector_count for each in self.found.resources if each.name == name)
        return next(counts, None)

    def engine(self, name: str | None) -> EngineProxy:
        """Return the engine of that name; None: the only one. Raises Refused."""
        proxies = self.found.proxies
        if name is None and len(proxies) == 1:
            [proxy] = proxies.values()
            return proxy
        if not proxies:
            raise Refused("no engine of this namespace has a pod")
        if name is None:
            raise Refused(f"there are {len(proxies)} engines with pods; say --engine NAME")
        if name not in proxies:
            raise Refused(f"engine {name!r} has no pod")
        return proxies[name]

    def refuse_incomplete(self) -> None:
        """Raise Refused where an engine did not answer because a key or a right is missing."""
        if self.found.refusals:
            raise Refused(self.found.refusals[0])


def refuse_missing(names: Iterable[str] | None, there: set[str], what: str) -> None:
    """Raise Refused for the first name that is not there."""
    missing = sorted(set(names or ()) - there)
    if missing:
        raise Refused(f"{what} is called {missing[0]!r}")
