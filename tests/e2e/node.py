"""A Kubernetes with one real node, in a network and a machine of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.e2e import settings
from tests.e2e.archive import write_archive
from tests.e2e.control_plane import NodeControlPlane
from tests.e2e.machine import Machine
from tests.e2e.network import NODE_ADDRESS, Network
from tests.e2e.settings import NODE
from tests.e2e.supplies import Supplies
from tests.e2e.volumes import (
    SMALL_BYTES,
    SMALL_STORAGE_CLASS,
    STORAGE_CLASS,
    SmallFileSystem,
    persistent_volume,
    storage_class,
)

START_SECONDS_MAX = 120.0
HELM_SECONDS_MAX = 180.0
POLL_SECONDS = 0.1
VOLUMES = 4
"""How many volumes of the default class there are from the start."""


class HelmFailed(Exception):
    """Raised when helm ends with an error; the message is what it wrote."""


class Node:
    """One cluster with one node, raised on entering and gone on leaving. `folder` is an empty folder.

    The thread that enters is in the node's network until it leaves: it reaches Services and pods by their
    addresses, and so does what it starts. The programs end with it.
    """

    def __init__(self, supplies: Supplies, folder: Path) -> None:
        self.supplies = supplies
        self.folder = folder
        self.network = Network()
        self.machine = Machine(folder / "machine", supplies.pause)
        self._small: list[SmallFileSystem] = []
        self._volumes = folder / "volumes"
        self._cluster: NodeControlPlane | None = None

    @property
    def cluster(self) -> NodeControlPlane:
        """The control plane: kubectl, accounts, and the API server's going and coming."""
        assert self._cluster is not None, "the node was not started"
        return self._cluster

    def __enter__(self) -> Node:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all, and return when the node is Ready and has its images and volumes; raises StartFailed."""
        self.network.enter()
        (self.folder / "control-plane").mkdir()
        self._cluster = NodeControlPlane(
            self.supplies.kubernetes, self.folder / "control-plane", NODE_ADDRESS
        )
        self._write_settings()
        self._start_machine()
        # Importing takes as long as the control plane does to start.
        pause = self.folder / "pause.tar"
        write_archive(pause, settings.PAUSE_IMAGE, self.supplies.pause)
        importing = [self._import(archive) for archive in (pause, self.supplies.image)]
        self.cluster.start()
        self._start_programs()
        for process in importing:
            _, error = process.communicate(timeout=START_SECONDS_MAX)
            assert process.returncode == 0, error
        self._make_volumes()
        self._wait_until_ready(datetime.fromtimestamp(0, UTC))

    def stop(self) -> None:
        """End all at once. Nothing is left but the folder: no process, mount, network or cgroup."""
        self.machine.cut_power()
        if self._cluster is not None:
            self._cluster.stop()
        self.network.leave()

    def reboot(self, *, ready: bool = True) -> None:
        """Cut the node's power, and start it again; the control plane stays up.

        Without `ready` it does not wait for the node, which is not Ready while the API server is away.
        """
        self.machine.cut_power()
        self.network.forget()
        self._start_machine()
        began = datetime.now(UTC)
        self._start_programs()
        if ready:
            self._wait_until_ready(began)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of kubectl and helm, with both on the PATH."""
        homes = {
            f"HELM_{part}_HOME": str(self.folder / "helm" / part.lower())
            for part in ("CACHE", "CONFIG", "DATA")
        }
        programs = f"{self.supplies.kubernetes}:{self.supplies.helm.parent}:{os.environ['PATH']}"
        return self.cluster.environment | homes | {"PATH": programs}

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """Run kubectl as the administrator and return its output; raise KubectlFailed."""
        return self.cluster.kubectl(*arguments, input=input)

    def apply(self, *objects: dict[str, object]) -> None:
        """`kubectl apply` of objects, in this order. Their fields are not looked up first: it takes long."""
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", "--validate=false", "--filename=-", input=json.dumps(listed))

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return the answer of `kubectl get`."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return found

    def helm(self, *arguments: str) -> str:
        """Run helm as the administrator and return its output; raise HelmFailed."""
        done = subprocess.run(
            [self.supplies.helm, *arguments],
            capture_output=True,
            text=True,
            timeout=HELM_SECONDS_MAX,
            env=os.environ | self.environment,
            check=False,
        )
        if done.returncode != 0:
            raise HelmFailed(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kill_container(self, namespace: str, pod: str, container: str) -> None:
        """SIGKILL to the first process of a container. No API server is needed."""
        labels = {"pod.namespace": namespace, "pod.name": pod, "container.name": container}
        wanted = ",".join(f'labels."io.kubernetes.{name}"=={value}' for name, value in labels.items())
        listed = self.machine.run(
            "ctr", "--namespace=k8s.io", "containers", "list", "--quiet", wanted
        ).split()
        groups = Path("/sys/fs/cgroup/pids") / self.machine.cgroup
        running = [group for identity in listed for group in groups.rglob(identity)]
        [processes] = filter(None, ((group / "cgroup.procs").read_text().split() for group in running))
        os.kill(int(processes[0]), signal.SIGKILL)

    def tag_image(self, name: str, other: str) -> None:
        """Give an image a second name."""
        self.machine.run("ctr", "--namespace=k8s.io", "images", "tag", "--force", name, other)

    def add_volume(self, name: str, capacity: str = "1Gi") -> Path:
        """Make one more volume of the default class; returns its folder."""
        self.apply(self._new_volume(name, capacity))
        return self._volumes / name

    def add_small_volume(self, name: str) -> SmallFileSystem:
        """Make one of the class `small`: a test can fill it, and make it larger while pods use it."""
        made = SmallFileSystem(self.machine, self.folder / "small" / name)
        made.mount()
        self._small.append(made)
        self.apply(persistent_volume(name, made.path, str(SMALL_BYTES), SMALL_STORAGE_CLASS))
        return made

    def _write_settings(self) -> None:
        """The files that the node's programs read; they stay the same over reboots."""
        cluster = self.cluster
        kubelet = cluster.authority.issue("kubelet", f"system:node:{NODE}", organization="system:nodes")
        proxy = cluster.authority.issue("kube-proxy", "system:kube-proxy")
        self._kubelet_kubeconfig = cluster.certificate_kubeconfig("kubelet", kubelet)
        proxy_kubeconfig = cluster.certificate_kubeconfig("kube-proxy", proxy)
        folder = self._settings = self.folder / "settings"
        (folder / "network").mkdir(parents=True)
        (folder / "network" / "pods.conflist").write_text(json.dumps(settings.network()))
        (folder / "containerd.toml").write_text(settings.containerd(folder / "network"))
        kubelet_settings = settings.kubelet(self.machine.cgroup, cluster.authority.own)
        (folder / "kubelet.json").write_text(json.dumps(kubelet_settings))
        (folder / "proxy.json").write_text(json.dumps(settings.proxy(proxy_kubeconfig)))
        (folder / "Corefile").write_text(settings.dns(cluster.kubeconfig))

    def _start_machine(self) -> None:
        """Power, file systems, containerd."""
        self.machine.start()
        for small in self._small:
            small.mount()
        containerd = self.machine.start_program(
            "containerd", f"--config={self._settings / 'containerd.toml'}"
        )
        socket = self.machine.path(settings.CONTAINERD_SOCKET)
        containerd.wait_until(socket.exists, START_SECONDS_MAX)

    def _start_programs(self) -> None:
        """Start the programs that need the API server, or wait for it."""
        programs = self.supplies.kubernetes
        kubelet = [
            f"--config={self._settings / 'kubelet.json'}",
            f"--kubeconfig={self._kubelet_kubeconfig}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_ADDRESS}",
        ]
        self.machine.start_program(self.supplies.coredns, "-conf", self._settings / "Corefile")
        self.machine.start_program(programs / "kubelet", *kubelet)
        self.machine.start_program(programs / "kube-proxy", f"--config={self._settings / 'proxy.json'}")

    def _import(self, archive: Path) -> subprocess.Popen[str]:
        address = f"--address={settings.CONTAINERD_SOCKET}"
        command = self.machine.command("ctr", address, "--namespace=k8s.io", "images", "import", archive)
        return subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def _make_volumes(self) -> None:
        listed = [storage_class(STORAGE_CLASS), storage_class(SMALL_STORAGE_CLASS)]
        listed += [self._new_volume(f"volume-{number}") for number in range(VOLUMES)]
        self.apply(*listed)

    def _new_volume(self, name: str, capacity: str = "1Gi") -> dict[str, object]:
        path = self._volumes / name
        path.mkdir(parents=True)
        return persistent_volume(name, path, capacity, STORAGE_CLASS)

    def _wait_until_ready(self, since: datetime) -> None:
        """Until kubelet has said so itself, at or after `since`."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._is_ready(since.replace(microsecond=0)):
            assert time.monotonic() < deadline, (
                f"the node is not Ready: see {self.machine.folder}/kubelet.log"
            )
            time.sleep(POLL_SECONDS)

    def _is_ready(self, since: datetime) -> bool:
        for node in self.get("nodes")["items"]:
            for condition in node["status"].get("conditions", []):
                if condition["type"] == "Ready" and condition["status"] == "True":
                    return datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since
        return False
