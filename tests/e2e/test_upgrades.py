"""Other images and other values under a running client."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.images import IMAGE
from tests.e2e.load import DIMENSION, Load
from tests.e2e.release import Release, Values
from tests.e2e.settings import PAUSE_IMAGE
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(900)

OTHER_TAG = "other"
CHANGES: tuple[Values, ...] = (
    {"engine.settings.retention-hours": 48, "engine.logLevel": "debug", "engine.logFormat": "text"},
    {"engine.resources.limits.memory": "1Gi", "sidecar.tickSeconds": 1, "manager.tickSeconds": 1},
    {"networkPolicy.enabled": False, "podDisruptionBudget.enabled": False, "manager.enabled": False},
)


@pytest.fixture
def loaded(release: Release) -> Release:
    release.node.tag_image(IMAGE, other())
    release.install()
    release.declare("notes", DIMENSION)
    return release


def other() -> str:
    return f"{IMAGE.rpartition(':')[0]}:{OTHER_TAG}"


def test_an_upgrade_and_a_rollback_fail_no_request(loaded: Release, record_property: Any) -> None:
    with Load(loaded, "notes") as load:
        load.wait_for_more()
        loaded.upgrade({"image.tag": OTHER_TAG})
        assert engine_image(loaded) == other()
        load.wait_for_more()
        loaded.helm("rollback", "1", "--wait", "--timeout=170s")
        assert engine_image(loaded) == IMAGE
        load.wait_for_more()
    load.verify()
    assert not load.broken
    record_property("points acknowledged", len(load.acknowledged))


def test_a_rollback_recovers_from_an_image_that_does_not_start(loaded: Release) -> None:
    repository, _, tag = PAUSE_IMAGE.rpartition(":")
    with Load(loaded, "notes") as load:
        load.wait_for_more()
        loaded.upgrade({"image.repository": repository, "image.tag": tag}, wait=False)
        wait_for(lambda: engine_image(loaded) == PAUSE_IMAGE, "a pod of the broken image")
        loaded.helm("rollback", "1", "--wait", "--timeout=170s")
        load.wait_for_more()
    load.verify()
    assert not load.broken


def test_other_values_are_taken_by_an_upgrade(loaded: Release) -> None:
    with Load(loaded, "notes") as load:
        for change in CHANGES:
            load.wait_for_more()
            loaded.upgrade(change)
            load.wait_for_more()
            load.verify()
    assert not load.broken
    loaded.upgrade()
    loaded.wait_ready("notes")


def engine_image(release: Release) -> str:
    pods = release.get("pods", f"--field-selector=metadata.name={release.pod}")["items"]
    return str(pods[0]["spec"]["containers"][0]["image"]) if pods else ""
