"""The API server, as one namespace sees it: complete lists, and the few changes that the manager makes.

An answer that is not complete raises `Away`: then nothing is known, and nothing is concluded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from vecstow_operator.vocabulary import GROUP, MANAGER_FIELDS, PLURAL, VERSION, Label

CHUNK: Final = 500
"""Resources in one page of a list."""
LIST_SECONDS_MAX: Final = 30.0
"""The longest time between two complete lists, even when the watch reports no change."""
TIMEOUT_SECONDS: Final = (5.0, 30.0)
"""The limits to connect, and between two reads."""
UNDEFINED: Final = "VectorCollection is not defined in this cluster; the chart vecstow-crds defines it"
NOT_UNDERSTOOD: Final = (AttributeError, KeyError, TypeError, ValueError)
"""The errors of reading an answer of another form."""
EVENT_CHARACTERS_MAX: Final = 1024
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_DEFINITION: Final = ("apiextensions.k8s.io", "v1", "customresourcedefinitions", f"{PLURAL}.{GROUP}")
_CHANGED: Final = (404, 409)
"""The statuses of a change of an object that is gone, or has another version."""


class Away(Exception):
    """Raised when the API server gives no complete answer: it is unreachable, refuses, or lacks the kind."""


class Undefined(Away):
    """Raised when the API server does not know the kind: no object of it exists, either."""


class Silent(Away):
    """Raised when the API server gives no answer: each further request would wait as long."""


class Changed(Exception):
    """Raised when an object is gone, or is not as it was read: the next pass reads it again."""


class Cluster:
    """Requests to the API server. Thread-safe. Each method raises Away, and a list while it is read."""

    def __init__(
        self, namespace: str, api: client.ApiClient | None = None, fields: str = MANAGER_FIELDS
    ) -> None:
        """`fields` is the name of the writer in managedFields."""
        self.namespace = namespace
        self._where = (GROUP, VERSION, namespace, PLURAL)
        self._fields = fields
        self._objects = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._apps = client.AppsV1Api(api)

    # Reads ------------------------------------------------------------------------------------------------

    def resources(self, engine: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield every VectorCollection, or those of one engine, without managedFields.

        Only one page of `CHUNK` documents is in memory at a time. Any page may raise Away, so the list is
        complete only at its end.
        """
        selector = None if engine is None else f"spec.engine={engine}"
        token: str | None = None
        while token != "":
            with _whole():
                page: Any = self._objects.list_namespaced_custom_object(
                    *self._where,
                    limit=CHUNK,
                    _continue=token,
                    field_selector=selector,
                    _request_timeout=TIMEOUT_SECONDS,
                )
                for document in page["items"]:
                    document["metadata"].pop("managedFields", None)
                token = page["metadata"].get("continue") or ""
            yield from page["items"]

    def stateful_sets(self) -> list[Any]:
        """Return the StatefulSets of engines."""
        return self._listed(self._apps.list_namespaced_stateful_set)

    def pods(self) -> list[Any]:
        """Return the pods of engines."""
        return self._listed(self._core.list_namespaced_pod)

    def namespace_ends(self) -> bool:
        """Whether the namespace is being deleted."""
        with _whole():
            found: Any = self._core.read_namespace(self.namespace, _request_timeout=TIMEOUT_SECONDS)
            return found.metadata.deletion_timestamp is not None

    def definition_ends(self) -> bool:
        """Whether the definition of VectorCollection is being deleted, and each resource with it.

        The chart vecstow-crds lets every service account read that one definition. Without the right the
        answer is False.
        """
        try:
            with _whole():
                found: Any = self._objects.get_cluster_custom_object(
                    *_DEFINITION, _request_timeout=TIMEOUT_SECONDS
                )
                return found["metadata"].get("deletionTimestamp") is not None
        except Silent:
            raise
        except Away:
            return False

    # Changes ----------------------------------------------------------------------------------------------

    def apply_status(
        self, name: str, resource_version: str, status: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Apply a status to the object that was read. Return the new document, or None without a change.

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
                *self._where,
                name,
                body,
                field_manager=self._fields,
                force=True,
                _content_type=_APPLY,
                _request_timeout=TIMEOUT_SECONDS,
            )
            return None if applied["metadata"]["resourceVersion"] == resource_version else dict(applied)

    def patch_metadata(self, name: str, uid: str, resource_version: str, changed: Mapping[str, Any]) -> None:
        """Merge `changed` into the metadata of exactly the object that was read. Raises Changed."""
        metadata = {"uid": uid, "resourceVersion": resource_version, **changed}
        with _unchanged(), _whole():
            self._objects.patch_namespaced_custom_object(
                *self._where,
                name,
                {"metadata": metadata},
                field_manager=self._fields,
                _content_type=_MERGE,
                _request_timeout=TIMEOUT_SECONDS,
            )

    def post_event(self, event: client.CoreV1Event) -> None:
        """Post an event. Raises Changed when the namespace is gone."""
        with _unchanged(), _whole():
            self._core.create_namespaced_event(
                self.namespace, event, field_manager=self._fields, _request_timeout=TIMEOUT_SECONDS
            )

    # Inside -----------------------------------------------------------------------------------------------

    def _listed(self, call: Callable[..., Any]) -> list[Any]:
        with _whole():
            found = call(self.namespace, label_selector=Label.ENGINE.value, _request_timeout=TIMEOUT_SECONDS)
            objects: list[Any] = found.items
        return objects


def refusal(error: ApiException) -> str:
    """Return the API server's refusal in one line, with its message where it has one."""
    said = f"the API server says {error.status} {error.reason}"
    try:
        return f"{said}: {json.loads(error.body or '')['message']}"
    except (ValueError, TypeError, KeyError):
        # The API server answers in plain text for an unknown kind, and in JSON for an unknown object.
        undefined = error.status == HTTPStatus.NOT_FOUND
        return f"{said}: {UNDEFINED}" if undefined else said


@contextmanager
def _whole() -> Iterator[None]:
    """Turn each error of a request into Away, Undefined or Silent."""
    try:
        yield
    except ApiException as error:
        kind = Undefined if error.status == HTTPStatus.NOT_FOUND else Away
        raise kind(refusal(error)) from error
    except (HTTPError, OSError) as error:
        raise Silent(f"the API server does not answer: {error}") from error
    except ConfigException as error:
        raise Away(f"the credentials cannot be read: {error}") from error
    except NOT_UNDERSTOOD as error:
        raise Away(f"the API server's answer is not understood: {error!r}") from error


@contextmanager
def _unchanged() -> Iterator[None]:
    """Turn the refusals that mean another version, or a missing object, into Changed."""
    try:
        yield
    except Away as away:
        cause = away.__cause__
        if isinstance(cause, ApiException) and cause.status in _CHANGED:
            raise Changed(f"{cause.status} {cause.reason}") from cause
        raise
