"""A node for the whole run, and a namespace for each test, whose Pod Security is the strictest."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.cluster.folder import temporary_folder
from tests.e2e.node import Node
from tests.e2e.supplies import supplies


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    made = supplies()
    with temporary_folder() as folder, Node(made, folder) as raised:
        yield raised


@pytest.fixture
def namespace(node: Node) -> Iterator[str]:
    name = f"test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    # Made by a controller, and without it no pod is admitted.
    node.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=60s")
    yield name
    node.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
