"""A node for the whole run, and for each test a namespace whose Pod Security is the strictest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.folder import temporary_folder
from tests.e2e.node import Node
from tests.e2e.release import Release, install_crds, make_namespace
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured with `record_property`; no test asserts it."""
    passed = terminalreporter.getreports("passed")
    lines = [
        f"{report.location[2]}: {name}: {value}"
        for report in passed
        for name, value in report.user_properties
    ]
    if lines:
        terminalreporter.section("measured")
        terminalreporter.write("\n".join(lines) + "\n")
