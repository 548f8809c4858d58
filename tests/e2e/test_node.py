"""The node that charts are installed on is a real one, in what those tests rely on."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.binaries import kubernetes_version
from tests.cluster.folder import temporary_folder
from tests.e2e.machine import CGROUP_PREFIX
from tests.e2e.node import Node
from tests.e2e.pods import pod, pod_spec, service, stateful_set
from tests.e2e.volumes import SMALL_BYTES, SMALL_STORAGE_CLASS, STORAGE_CLASS

pytestmark = pytest.mark.timeout(900)

SETTLE_SECONDS_MAX = 180
HTTP_SERVER = ("python3", "-m", "http.server", "--directory", "/opt", "8000")
COUNTS_ITS_STARTS = """
import time
with open("/data/starts", "a") as starts: starts.write("started\\n")
print(open("/data/starts").read().count("started"), flush=True)
while True: time.sleep(1)
"""
FILLS_ITS_VOLUME = """
import os, time
descriptor, block, full = os.open("/data/fill", os.O_CREAT | os.O_WRONLY), bytes(1 << 20), False
while True:
    try:
        os.write(descriptor, block)
        if full: print("room", flush=True); time.sleep(3600)
    except OSError as reason:
        if not full: print(os.strerror(reason.errno), flush=True)
        full = True
        time.sleep(0.1)
"""
# A Service has a pod a moment after that is ready.
ANSWERS = """
import sys, time, urllib.request
for _ in range(300):
    try: print(urllib.request.urlopen(sys.argv[1], timeout=60).status)
    except OSError: time.sleep(0.2)
    else: break
"""


class Placed:
    """Objects of one namespace."""

    def __init__(self, node: Node, namespace: str) -> None:
        self.node = node
        self.namespace = namespace

    def apply(self, *objects: dict[str, Any]) -> None:
        for each in objects:
            each["metadata"]["namespace"] = self.namespace
        self.node.apply(*objects)

    def pod(self, name: str) -> dict[str, Any]:
        return self.node.get("pod", name, f"--namespace={self.namespace}")

    def wait(self, name: str, condition: str) -> None:
        place = f"--namespace={self.namespace}"
        self.node.kubectl("wait", place, f"--for={condition}", name, "--timeout=80s")

    def logs(self, pod: str) -> str:
        return self.node.kubectl("logs", pod, f"--namespace={self.namespace}")


@pytest.fixture
def placed(node: Node, namespace: str) -> Placed:
    return Placed(node, namespace)


def test_the_node_is_ready_and_of_the_version_that_the_module_requires(node: Node) -> None:
    [found] = node.get("nodes")["items"]
    assert found["status"]["nodeInfo"]["kubeletVersion"] == kubernetes_version()
    assert [c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready"] == ["True"]


def test_the_image_runs_where_pod_security_is_restricted(placed: Placed) -> None:
    placed.apply(pod("once", "vecstow", "--version"))
    placed.wait("pod/once", "jsonpath={.status.phase}=Succeeded")
    assert placed.logs("once").strip() == f"vecstow {version('vecstow')}"


def test_a_pod_that_may_more_is_refused_there(placed: Placed) -> None:
    privileged = pod("privileged", "true")
    privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(Exception, match='violates PodSecurity "restricted'):
        placed.apply(privileged)


def test_the_name_of_a_service_resolves_in_a_pod_and_answers(placed: Placed) -> None:
    placed.apply(web(), service("web", 8000))
    placed.wait("pod/web", "condition=Ready")
    placed.apply(pod("asks", "python3", "-c", ANSWERS, "http://web:8000/"))
    placed.wait("pod/asks", "jsonpath={.status.phase}=Succeeded")
    assert placed.logs("asks").strip() == "200"


def test_a_service_answers_itself_and_this_process(node: Node, placed: Placed) -> None:
    placed.apply(web(), service("web", 8000))
    placed.wait("pod/web", "condition=Ready")
    inside = ("exec", "web", f"--namespace={placed.namespace}", "--", "python3", "-c", ANSWERS)
    assert node.kubectl(*inside, "http://web:8000/").strip() == "200"
    address = node.get("service", "web", f"--namespace={placed.namespace}")["spec"]["clusterIP"]
    settle(lambda: httpx.get(f"http://{address}:8000/", trust_env=False).status_code == 200)


def web() -> dict[str, Any]:
    """A pod that is ready when it answers."""
    made = pod("web", *HTTP_SERVER)
    made["spec"]["containers"][0]["readinessProbe"] = {
        "httpGet": {"path": "/", "port": 8000},
        "periodSeconds": 1,
    }
    return made


def test_a_killed_container_is_restarted_with_its_volume(node: Node, placed: Placed) -> None:
    placed.apply(stateful_set("counter", STORAGE_CLASS, "python3", "-c", COUNTS_ITS_STARTS))
    settle(lambda: placed.logs("counter-0") == "1\n")
    node.kill_container(placed.namespace, "counter-0", "main")
    settle(lambda: placed.logs("counter-0") == "2\n")
    assert placed.pod("counter-0")["status"]["containerStatuses"][0]["restartCount"] == 1


def test_a_reboot_brings_a_pod_back_with_its_volume(node: Node, placed: Placed) -> None:
    placed.apply(stateful_set("counter", STORAGE_CLASS, "python3", "-c", COUNTS_ITS_STARTS))
    settle(lambda: placed.logs("counter-0") == "1\n")
    before = placed.pod("counter-0")["metadata"]["uid"]
    node.reboot()
    settle(lambda: placed.logs("counter-0") == "2\n")
    assert placed.pod("counter-0")["metadata"]["uid"] == before


def test_pods_serve_while_the_api_server_is_away(node: Node, placed: Placed) -> None:
    placed.apply(web(), service("web", 8000))
    placed.wait("pod/web", "condition=Ready")
    address = node.get("service", "web", f"--namespace={placed.namespace}")["spec"]["clusterIP"]
    settle(lambda: httpx.get(f"http://{address}:8000/", trust_env=False).status_code == 200)
    with node.cluster.without_api_server():
        assert httpx.get(f"http://{address}:8000/", trust_env=False).status_code == 200
    assert placed.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_full_volume_has_room_again_when_it_has_grown(node: Node, placed: Placed) -> None:
    small = node.add_small_volume(placed.namespace)
    placed.apply(stateful_set("filler", SMALL_STORAGE_CLASS, "python3", "-c", FILLS_ITS_VOLUME))
    settle(lambda: placed.logs("filler-0") == "No space left on device\n")
    small.grow(2 * SMALL_BYTES)
    settle(lambda: placed.logs("filler-0") == "No space left on device\nroom\n")


def test_helm_installs_a_chart(node: Node, placed: Placed, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 1.0.0\n")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "tiny"},
        "spec": {
            "selector": {"matchLabels": {"app": "tiny"}},
            "template": {"metadata": {"labels": {"app": "tiny"}}, "spec": pod_spec(*HTTP_SERVER)},
        },
    }
    (tmp_path / "templates" / "deployment.yaml").write_text(json.dumps(deployment))
    place = f"--namespace={placed.namespace}"
    node.helm("install", "one", str(tmp_path), place, "--wait", "--timeout=120s")
    [release] = json.loads(node.helm("list", place, "--output=json"))
    assert (release["name"], release["status"]) == ("one", "deployed")
    node.helm("uninstall", "one", place)


def test_nothing_is_left_of_a_node_that_is_stopped(node: Node) -> None:
    """A second node leaves nothing behind, also while the node of the run goes on."""
    before = seen("no such folder")
    with temporary_folder() as folder:
        with Node(node.supplies, folder) as second:
            second.add_small_volume("small")
            assert seen(str(folder)).keys() == before.keys()
            assert all(
                now != then for now, then in zip(seen(str(folder)).values(), before.values(), strict=True)
            )
            first_process = Path(f"/proc/{second.machine.pid}")
        assert not first_process.exists()
        settle(lambda: seen(str(folder)) == before)


def seen(folder: str) -> dict[str, object]:
    """Return what a node in this folder adds to the machine that it is raised on."""
    loops = subprocess.run(["losetup", "--list"], check=True, capture_output=True, text=True).stdout
    return {
        "cgroups": sorted(Path("/sys/fs/cgroup").glob(f"*/{CGROUP_PREFIX}{os.getpid()}-*")),
        "loop devices": [line for line in loops.splitlines() if folder in line],
        "network": os.readlink("/proc/thread-self/ns/net"),
        "processes": [line for line in command_lines() if folder in line],
    }


def command_lines() -> list[str]:
    """Return the command line of every process."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_text(errors="replace"))
        except OSError:
            continue
    return found


def settle(holds: Callable[[], bool]) -> None:
    """Return when it holds; what fails meanwhile is asked again."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while True:
        try:
            if holds():
                return
            reason: Exception | None = None
        except Exception as failed:  # noqa: BLE001 - kubectl's, while a pod is not there
            reason = failed
        assert time.monotonic() < deadline, reason
        time.sleep(0.2)
