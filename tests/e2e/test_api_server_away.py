"""The API server goes: searches and writes go on, and so does what happens to pods."""

from __future__ import annotations

import os
import time

import pytest

from tests.e2e.load import DIMENSION, Load
from tests.e2e.node import Node
from tests.e2e.release import Release
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(1200)

AWAY_SECONDS = float(os.environ.get("VECSTOW_AWAY_SECONDS", "300"))
UNTOUCHED = {"engine": 0, "sidecar": 0}


def test_an_engine_serves_and_is_restarted_without_the_api_server(node: Node, release: Release) -> None:
    release.install()
    release.declare("notes", DIMENSION)
    manager = managers(release)
    with Load(release, "notes") as load:
        load.wait_for_more()
        with node.cluster.without_api_server():
            ends = time.monotonic() + AWAY_SECONDS
            load.wait_for_more(500)
            release.kill_container("engine")
            load.wait_for_more(500)
            while time.monotonic() < ends:
                load.wait_for_more(1)
        load.wait_for_more()
    load.verify()
    wait_for(lambda: release.restarts() == UNTOUCHED | {"engine": 1}, lambda: str(release.restarts()))
    assert managers(release) == manager
    release.wait_ready("notes")


def test_a_node_rebooted_without_the_api_server_serves_when_it_is_back(node: Node, release: Release) -> None:
    release.install()
    release.declare("notes", DIMENSION)
    with Load(release, "notes") as load:
        load.wait_for_more()
        with node.cluster.without_api_server():
            node.reboot(ready=False)
        release.served("notes")
        load.wait_for_more()
    load.verify()
    release.wait_ready("notes")


def managers(release: Release) -> list[tuple[str, int]]:
    """Pod and restarts of each."""
    pods = release.get("pods", "--selector=app.kubernetes.io/component=manager")["items"]
    return [(pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods]
