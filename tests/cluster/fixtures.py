"""A cluster for tests: one for the whole run, a namespace for each test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.cluster.binaries import NotBuilt, built
from tests.cluster.control_plane import ControlPlane
from tests.cluster.folder import temporary_folder

REQUIRED = "VECSTOW_REQUIRE_CLUSTER"
"""The environment variable that turns a skip into a failure."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[ControlPlane]:
    """A control plane. Without the programs the test is skipped, unless REQUIRED is set."""
    try:
        programs = built()
    except NotBuilt as reason:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(str(reason))
    with temporary_folder() as folder, ControlPlane(programs, folder) as raised:
        yield raised


@pytest.fixture
def namespace(cluster: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own; afterwards it is asked to go, and not waited for."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
