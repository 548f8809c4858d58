"""Pods, containers and the whole node killed while a client writes: nothing acknowledged is lost."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from statistics import median
from typing import Any

import pytest

from tests.e2e.load import DIMENSION, Load
from tests.e2e.node import Node
from tests.e2e.release import Release
from tests.operator.waiting import wait_for

pytestmark = pytest.mark.timeout(1800)

KILLS = int(os.environ.get("VECSTOW_KILLS", "50"))
REBOOTS = int(os.environ.get("VECSTOW_REBOOTS", "5"))
# The kernel takes the process that may go first: it is told so of the engine, and then memory runs out.
RUNS_OUT_OF_MEMORY = """
open("/proc/1/oom_score_adj", "w").write("1000")
kept = []
while True: kept.append(bytes(1 << 20))
"""
KINDS = ("delete", "force delete", "SIGKILL", "SIGKILL of the sidecar", "OOM kill")


def test_pods_killed_in_every_way_lose_nothing(release: Release, record_property: Any) -> None:
    release.install({"engine.resources.limits.memory": "400Mi"})
    release.declare("notes", DIMENSION)
    seconds: dict[str, list[float]] = defaultdict(list)
    with Load(release, "notes") as load:
        for number in range(KILLS):
            kind = KINDS[number % len(KINDS)]
            load.wait_for_more()
            before = identity(release)
            kill(release, kind)
            began = time.monotonic()
            wait_for(lambda before=before: identity(release) != before, f"{kind}: another one")  # type: ignore[misc]
            release.served("notes", f"{kind}: served again")
            seconds[kind].append(time.monotonic() - began)
            wait_for(release.pod_ready, f"{kind}: Ready again", 180)
        load.wait_for_more()
    load.verify()
    for kind, taken in seconds.items():
        record_property(f"{kind}: served again, seconds", f"{median(taken):.1f} ({max(taken):.1f} at most)")
    record_property("points acknowledged", len(load.acknowledged))
    record_property("requests without an answer", sum(load.broken.values()))


def identity(release: Release) -> tuple[object, ...]:
    """Of the pod and the containers that run now."""
    found = release.get("pods", f"--field-selector=metadata.name={release.pod}")["items"]
    if not found:
        return ()
    status = found[0]["status"]
    known = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return (found[0]["metadata"]["uid"], *(container["restartCount"] for container in known))


def kill(release: Release, kind: str) -> None:
    if kind == "delete":
        release.kubectl("delete", "pod", release.pod, "--wait=false")
    elif kind == "force delete":
        release.kubectl("delete", "pod", release.pod, "--force", "--grace-period=0")
    elif kind == "SIGKILL":
        release.kill_container("engine")
    elif kind == "SIGKILL of the sidecar":
        release.kill_container("sidecar")
    else:
        with pytest.raises(Exception, match=r"137|terminated"):
            release.execute("python3", "-c", RUNS_OUT_OF_MEMORY)
        wait_for(lambda: was_out_of_memory(release), "the kernel's kill")


def was_out_of_memory(release: Release) -> bool:
    [status] = release.pod_status()["containerStatuses"]
    ended = status["lastState"].get("terminated") or status["state"].get("terminated") or {}
    return ended.get("reason") == "OOMKilled"


def test_a_node_rebooted_under_load_loses_nothing(node: Node, release: Release, record_property: Any) -> None:
    release.install()
    release.declare("notes", DIMENSION)
    seconds = []
    with Load(release, "notes") as load:
        for _ in range(REBOOTS):
            load.wait_for_more()
            began = time.monotonic()
            node.reboot()
            release.served("notes", "served after a reboot")
            seconds.append(time.monotonic() - began)
        load.wait_for_more()
    load.verify()
    release.wait_ready("notes")
    record_property(
        "served again after a reboot, seconds", f"{median(seconds):.1f} ({max(seconds):.1f} at most)"
    )
