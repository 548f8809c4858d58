"""Resources by the Python client: what the API server keeps, and what it says when it refuses."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.cluster.control_plane import ControlPlane
from vecstow_operator.vocabulary import GROUP, MANAGER_FIELDS, PLURAL, VERSION

Document = dict[str, Any]

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


class Refused(Exception):
    """Raised when the API server says no; the message is what kubectl would print."""


class Resources:
    """The resources of one namespace, as the administrator. A dry run leaves nothing behind."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._objects = client.CustomObjectsApi(api)
        self.api = api
        self.namespace = namespace
        self._place = (GROUP, VERSION, namespace, PLURAL)

    # Only tried -------------------------------------------------------------------------------------------

    def try_create(self, document: Document) -> Document:
        """As `kubectl apply` makes one: strict about unknown fields."""
        return self._said(
            self._objects.create_namespaced_custom_object, document, dry_run="All", field_validation="Strict"
        )

    def try_apply(self, document: Document) -> None:
        """As `kubectl apply --server-side` makes one: the client gives nothing back of what is new."""
        name = document["metadata"]["name"]
        self._said(
            self._objects.patch_namespaced_custom_object, name, document,
            dry_run="All", field_manager="test", _content_type=APPLY,
        )  # fmt: skip

    def try_replace(self, document: Document) -> Document:
        """As `kubectl replace`: what is left out goes."""
        name = document["metadata"]["name"]
        version = self.get(name)["metadata"]["resourceVersion"]
        whole = document | {"metadata": document["metadata"] | {"resourceVersion": version}}
        return self._said(self._objects.replace_namespaced_custom_object, name, whole, dry_run="All")

    def try_merge(self, name: str, spec: Document) -> Document:
        """As `kubectl patch --type=merge`; None takes a field away."""
        return self._said(
            self._objects.patch_namespaced_custom_object, name, {"spec": spec},
            dry_run="All", _content_type=MERGE,
        )  # fmt: skip

    # Done -------------------------------------------------------------------------------------------------

    def create(self, document: Document) -> Document:
        """Returns what is kept."""
        return self._said(self._objects.create_namespaced_custom_object, document)

    def get(self, name: str) -> Document:
        """As it is now."""
        return self._said(self._objects.get_namespaced_custom_object, name)

    def names(self, field_selector: str) -> list[str]:
        """Return the names of the resources that the API server selects."""
        found = self._said(self._objects.list_namespaced_custom_object, field_selector=field_selector)
        return [item["metadata"]["name"] for item in found["items"]]

    def apply_status(self, name: str, status: Document, manager: str = MANAGER_FIELDS) -> Document:
        """By server-side apply, under that manager's name; returns the resource."""
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "VectorCollection",
            "metadata": {"name": name},
            "status": status,
        }
        return self._said(
            self._objects.patch_namespaced_custom_object_status, name, body,
            field_manager=manager, force=True, _content_type=APPLY,
        )  # fmt: skip

    def _said(self, call: Any, *arguments: object, **options: object) -> Document:
        try:
            answer: Document = call(*self._place, *copy.deepcopy(arguments), **options)
        except ApiException as error:
            raise Refused(json.loads(error.body or "{}")["message"]) from None
        return answer


@contextmanager
def declaring(cluster: ControlPlane) -> Iterator[Resources]:
    """In a namespace of their own; nothing reconciles them."""
    configuration = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    name = f"declared-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    with client.ApiClient(configuration) as api:
        yield Resources(api, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
