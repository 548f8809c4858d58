"""Pods, containers and the whole node killed while a client writes: nothing acknowledged is lost."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest

from tests.e2e.load import DIMENSION, Load
from tests.e2e.node import Node
from tests.e2e.release import Release, make_namespace
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(1800)

AT_ONCE = 5
KILLS = int(os.environ.get("VECSTOW_KILLS", "50"))
REBOOTS = int(os.environ.get("VECSTOW_REBOOTS", "5"))
MEMORY_LIMIT = "300Mi"
# Each of these is smaller than the engine, so that the kernel takes the engine.
RUNS_OUT_OF_MEMORY = """
import os, time
open("/proc/1/oom_score_adj", "w").write("1000")
for _ in range(30):
    if os.fork() == 0:
        kept = b"x" * (20 << 20)
        time.sleep(60)
        os._exit(0)
    time.sleep(0.1)
"""
KINDS = {
    "delete": "pod",
    "force delete": "pod",
    "SIGKILL": "engine",
    "SIGKILL of the sidecar": "sidecar",
    "OOM kill": "engine",
}
"""The kinds of kill, and the part that is rebuilt after each."""


@pytest.fixture
def releases(node: Node, crds: None) -> Iterator[list[Release]]:
    """Side by side, each in a namespace of its own."""
    made = [Release(node, make_namespace(node)) for _ in range(AT_ONCE)]
    for release in made:
        release.make_keys()
        node.add_volume(release.namespace)
    yield made
    for release in made:
        node.kubectl("delete", "namespace", release.namespace, "--wait=false")


def test_pods_killed_in_every_way_lose_nothing(releases: list[Release], record_property: Any) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rounds = list(pool.map(killed_again_and_again, releases, range(AT_ONCE)))
    for kind in KINDS:
        gaps = [gap for each in rounds for gap in each.gaps[kind]]
        told = f"{median(gaps):.1f} ({max(gaps):.1f} at most, of {len(gaps)})"
        record_property(f"{kind}: seconds between two searches", told)
    record_property("points acknowledged", sum(each.acknowledged for each in rounds))
    record_property("requests without an answer", sum(each.broken for each in rounds))


@dataclass(frozen=True)
class Round:
    """The observations on one release."""

    gaps: dict[str, list[float]]
    acknowledged: int
    broken: int


def killed_again_and_again(release: Release, first: int) -> Round:
    release.install({"engine.resources.limits.memory": MEMORY_LIMIT})
    release.declare("notes", DIMENSION)
    gaps: dict[str, list[float]] = defaultdict(list)
    restarts = {"engine": 0, "sidecar": 0}
    with Load(release, "notes") as load:
        for number in range(first, first + KILLS // AT_ONCE):
            kind = list(KINDS)[number % len(KINDS)]
            load.wait_for_more(writes=20)
            before = identity(release)
            load.longest_gap = 0.0
            kill(release, kind)
            wait_for(lambda before=before: identity(release) != before, f"{kind}: another one", 180)  # type: ignore[misc]
            release.served("notes", f"{kind}: served again")
            wait_for(release.pod_ready, f"{kind}: Ready again", 180)
            restarts = {name: count + 1 if name == KINDS[kind] else count for name, count in restarts.items()}
            if KINDS[kind] == "pod":
                restarts = dict.fromkeys(restarts, 0)
            assert release.restarts() == restarts, kind
            load.wait_for_more(writes=20)
            gaps[kind].append(load.longest_gap)
    load.verify()
    return Round(gaps, len(load.acknowledged), sum(load.broken.values()))


def identity(release: Release) -> tuple[object, ...]:
    """Return the identity of the pod and of the containers that run now."""
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
