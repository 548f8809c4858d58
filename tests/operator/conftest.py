"""Fixtures of the operator's tests: the resource's definition, and a running site for a module's tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.operator.site import CRD, CRD_READER, Site, running


@pytest.fixture(scope="session", autouse=True)
def definition(cluster: ControlPlane) -> None:
    """The API server knows the resource, and lets the roles read its definition."""
    cluster.kubectl("apply", "-f", str(CRD), "-f", str(CRD_READER))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRD))


@pytest.fixture(scope="module")
def shared(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site for all tests of a module that take it; each has collections of its own in it."""
    name = f"shared-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    with running(cluster, name, tmp_path_factory.mktemp("site")) as site:
        yield site
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def site(cluster: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Site]:
    """A site of the test's own."""
    with running(cluster, namespace, tmp_path) as site:
        yield site
