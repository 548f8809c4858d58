"""The API server, seen from one namespace: complete lists, and the few changes that the manager makes.

Whatever keeps an answer from being whole is `Away`: then nothing is known, which is never the same as nothing
being there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from vecstow_operator.vocabulary import GROUP, MANAGER_FIELDS, PLURAL, VERSION, Label

CHUNK: Final = 500
"""Resources of one request."""
LIST_SECONDS_MAX: Final = 30.0
"""A role makes a complete list at least so often, whatever the watch says."""
TIMEOUT_SECONDS: Final = (5.0, 30.0)
"""To connect, and between two reads."""
RETRIES: Final = Retry(1, respect_retry_after_header=False)
"""Of a request without an answer: the API server may have closed the connection since the last one. More, or
a wait of the hours that an answer may ask for, would keep a pass from what else it has to do."""
NOT_UNDERSTOOD: Final = (AttributeError, KeyError, TypeError, ValueError)
"""What reading an answer raises that is another than was asked for."""
EVENT_CHARACTERS_MAX: Final = 1024
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_CHANGED: Final = (404, 409)
"""What a change of one object gets that is gone, or is another version."""


class Away(Exception):
    """Raised when the API server gave no whole answer: unreachable, refused, or without the resource."""


class Undefined(Away):
    """Raised when it does not know what was asked for: no object of that kind is there, either."""


class Silent(Away):
    """Raised when it gave none at all: whatever else is asked will wait as long."""


class Changed(Exception):
    """Raised when the object is gone, or is not as it was read: the next pass sees it anew."""


class Cluster:
    """Thread-safe. Whatever asks the API server raises Away, a list while it is read."""

    def __init__(self, namespace: str, api: client.ApiClient | None = None) -> None:
        self.namespace = namespace
        self._objects = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._apps = client.AppsV1Api(api)

    # What is there ----------------------------------------------------------------------------------------

    def resources(self, engine: str | None = None) -> Iterator[dict[str, Any]]:
        """Every VectorCollection, or those of one engine, without managedFields.

        A request for each `CHUNK`: whoever keeps less than the document has but so many in memory. It raises
        Away at any step, so nothing is known before the end.
        """
        return self._resources(None if engine is None else f"spec.engine={engine}")

    def stateful_sets(self) -> list[Any]:
        """Those of engines."""
        return self._listed(self._apps.list_namespaced_stateful_set)

    def pods(self) -> list[Any]:
        """Those of engines."""
        return self._listed(self._core.list_namespaced_pod)

    def namespace_ends(self) -> bool:
        """Whether the namespace is being deleted."""
        with _whole():
            found: Any = self._core.read_namespace(self.namespace, _request_timeout=TIMEOUT_SECONDS)
            return found.metadata.deletion_timestamp is not None

    # Changes ----------------------------------------------------------------------------------------------

    def apply_status(
        self, name: str, resource_version: str, status: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Make this all that the manager says of the object that was read; returns it, None when that
        changed nothing.

        Raises Changed.
        """
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "VectorCollection",
            "metadata": {"name": name, "resourceVersion": resource_version},
            "status": status,
        }
        with _unchanged(), _whole():
            applied: Any = self._objects.patch_namespaced_custom_object_status(
                GROUP, VERSION, self.namespace, PLURAL, name, body, field_manager=MANAGER_FIELDS,
                force=True, _content_type=_APPLY, _request_timeout=TIMEOUT_SECONDS,
            )  # fmt: skip
            return None if applied["metadata"]["resourceVersion"] == resource_version else dict(applied)

    def patch_metadata(self, name: str, uid: str, resource_version: str, changed: Mapping[str, Any]) -> None:
        """Of exactly the object that was read. Raises Changed."""
        metadata = {"uid": uid, "resourceVersion": resource_version, **changed}
        with _unchanged(), _whole():
            self._objects.patch_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name, {"metadata": metadata},
                _content_type=_MERGE, _request_timeout=TIMEOUT_SECONDS,
            )  # fmt: skip

    def post_event(self, event: client.CoreV1Event) -> None:
        """Tell people of something that happened. Raises Changed when the namespace is gone."""
        with _unchanged(), _whole():
            self._core.create_namespaced_event(self.namespace, event, _request_timeout=TIMEOUT_SECONDS)

    # Inside -----------------------------------------------------------------------------------------------

    def _resources(self, selector: str | None) -> Iterator[dict[str, Any]]:
        token: str | None = None
        while token != "":
            with _whole():
                page: Any = self._objects.list_namespaced_custom_object(
                    GROUP, VERSION, self.namespace, PLURAL, limit=CHUNK, _continue=token,
                    field_selector=selector, _request_timeout=TIMEOUT_SECONDS,
                )  # fmt: skip
                for item in page["items"]:
                    item["metadata"].pop("managedFields", None)
                token = page["metadata"].get("continue") or ""
            yield from page["items"]

    def _listed(self, call: Callable[..., Any]) -> list[Any]:
        with _whole():
            found = call(self.namespace, label_selector=Label.ENGINE.value, _request_timeout=TIMEOUT_SECONDS)
            items: list[Any] = found.items
        return items


def load_configuration() -> str:
    """Find the API server: the pod's own account, else a kubeconfig; returns the namespace.

    Raises ConfigException when there is neither.
    """
    try:
        config.load_incluster_config()
    except ConfigException:
        config.load_kube_config()
        _follow_kubeconfig()
        _, current = config.list_kube_config_contexts()
        return str(current["context"].get("namespace") or "default")
    finally:
        client.Configuration.get_default().retries = RETRIES
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="ascii") as stream:
        return stream.read().strip()


def client_of(context: str | None) -> client.ApiClient:
    """A client for a context of the kubeconfig; None: the current one. Raises ConfigException."""
    configuration = client.Configuration()
    config.load_kube_config(context=context, client_configuration=configuration)
    configuration.retries = RETRIES
    return client.ApiClient(configuration)


@dataclass(slots=True)
class _Kubeconfig:
    """Read again before a request when it was written anew: a pod's token is renewed in place, too.

    Every client has a copy of its configuration, and of this with it.
    """

    paths: list[Path]
    read: list[int]
    """When they were written."""

    def __call__(self, configuration: Any) -> None:
        written = _times(self.paths)
        if written != self.read:
            config.load_kube_config(client_configuration=configuration)
            configuration.refresh_api_key_hook = self
            self.read = written


def _follow_kubeconfig() -> None:
    paths = [Path(path).expanduser() for path in KUBE_CONFIG_DEFAULT_LOCATION.split(os.pathsep) if path]
    configuration: Any = client.Configuration.get_default()
    configuration.refresh_api_key_hook = _Kubeconfig(paths, _times(paths))


def _times(paths: Iterable[Path]) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths if path.exists()]


@contextmanager
def _whole() -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        kind = Undefined if error.status == HTTPStatus.NOT_FOUND else Away
        raise kind(f"the API server says {error.status} {error.reason}") from error
    except (HTTPError, OSError) as error:
        raise Silent(f"the API server does not answer: {error}") from error
    except ConfigException as error:
        raise Away(f"the credentials cannot be read: {error}") from error
    except NOT_UNDERSTOOD as error:
        raise Away(f"the API server's answer is not understood: {error!r}") from error


@contextmanager
def _unchanged() -> Iterator[None]:
    """Of one object some refusals are answers."""
    try:
        yield
    except Away as away:
        cause = away.__cause__
        if isinstance(cause, ApiException) and cause.status in _CHANGED:
            raise Changed(f"{cause.status} {cause.reason}") from cause
        raise
