"""A node for the whole run, and for each test a namespace whose Pod Security is the strictest."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.cluster.folder import temporary_folder
from tests.e2e.node import Node
from tests.e2e.release import CRDS, Release
from tests.e2e.supplies import supplies


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    made = supplies()
    with temporary_folder() as folder, Node(made, folder) as raised:
        yield raised


@pytest.fixture(scope="session")
def crds(node: Node) -> None:
    install_crds(node)


@pytest.fixture
def namespace(node: Node) -> Iterator[str]:
    name = make_namespace(node)
    yield name
    node.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def release(node: Node, crds: None, namespace: str) -> Release:
    """Keys and a volume are there; nothing is installed yet."""
    found = Release(node, namespace)
    found.make_keys()
    node.add_volume(namespace)
    return found


def install_crds(node: Node) -> None:
    node.helm("upgrade", "--install", "vecstow-crds", CRDS, "--namespace=default")


def make_namespace(node: Node, name: str | None = None) -> str:
    name = name or f"test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    # Made by a controller, and without it no pod is admitted.
    node.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=60s")
    return name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests measured by the way, with `record_property`: nothing of it is asserted."""
    passed = terminalreporter.getreports("passed")
    lines = [
        f"{report.location[2]}: {name}: {value}"
        for report in passed
        for name, value in report.user_properties
    ]
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write("\n".join(lines) + "\n")
