"""One engine with its operator on a real API server: the pod is an object, its containers are processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.crash.rest import Rest
from tests.engine_process import STOP_SECONDS_MAX, EngineProcess, end_with_parent
from tests.ports import free_port
from tests.waiting import wait_for
from vecstow_operator.vocabulary import GROUP, PLURAL, VERSION

REPOSITORY = Path(__file__).resolve().parents[2]
CRD = REPOSITORY / "crds" / "vecstow.dev_vectorcollections.yaml"
CRD_READER = REPOSITORY / "charts" / "vecstow-crds" / "templates" / "definition-reader.yaml"
"""The right of every service account to read the definition."""
RULES = REPOSITORY / "charts" / "vecstow" / "rbac"
OPERATOR = Path(sys.executable).with_name("vecstow-operator")
ENGINE = "vecstow"
RESOURCES = f"apis/{GROUP}/{VERSION}/{{}}/{PLURAL}"
TICK_SECONDS = {"sidecar": 1.0, "manager": 0.5}
"""Shorter than the defaults, so that tests wait less."""


class Role:
    """`vecstow-operator` as a process, with the rights of its account."""

    def __init__(self, kubeconfig: Path, log: Path, *arguments: object) -> None:
        self.kubeconfig = kubeconfig
        self.log = log
        self.health_port = free_port()
        self._arguments = [str(argument) for argument in arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Do not wait for anything: it need not find its API server."""
        command = [str(OPERATOR), *self._arguments, "--health-port", str(self.health_port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, preexec_fn=end_with_parent,
                env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
            )  # fmt: skip

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(STOP_SECONDS_MAX)
        self.process = None
        return code

    @property
    def is_running(self) -> bool:
        """It has not ended."""
        return self.process is not None and self.process.poll() is None

    def metrics(self) -> str:
        """Its exposition."""
        return httpx.get(f"http://127.0.0.1:{self.health_port}/metrics", trust_env=False).text

    def metric(self, name: str) -> float:
        """One sample, named with its labels; 0 before there is any."""
        try:
            lines = self.metrics().splitlines()
        except httpx.TransportError:
            return 0.0
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0.0)

    def health(self) -> int:
        """Status of /healthz."""
        return httpx.get(f"http://127.0.0.1:{self.health_port}/healthz", trust_env=False).status_code


class EngineOnCluster(EngineProcess):
    """An engine whose pod the cluster's controllers made from a StatefulSet; only this class runs it."""

    def __init__(self, site: Site, name: str, data: Path) -> None:
        super().__init__(data, "--name", name, "--rescan-seconds", 1, "--reserve-bytes", 0)
        self._site = site
        self.name = name

    def declare(self, replicas: int = 1) -> None:
        """Apply the StatefulSet, and give its pod this machine's address."""
        self._site.apply(stateful_set(self.name, self.port, replicas))
        if replicas:
            self.adopt_pod()

    def adopt_pod(self) -> str:
        """Be what runs in the pod; returns its uid."""
        pod = wait_for(self._pod, "the pod of the StatefulSet")
        ready = {"type": "Ready", "status": "True"}
        patch = {
            "status": {
                "phase": "Running",
                "podIP": self._site.address,
                "podIPs": [{"ip": self._site.address}],
                "conditions": [ready],
            }
        }
        self._site.kubectl("patch", "pod", f"{self.name}-0", "--subresource=status", "-p", json.dumps(patch))
        uid: str = pod["metadata"]["uid"]
        if "--pod-uid" in self.flags:
            del self.flags[self.flags.index("--pod-uid") :]
        self.flags += ["--pod-uid", uid]
        return uid

    def _pod(self) -> dict[str, Any] | None:
        found = self._site.pods(f"vecstow.dev/engine={self.name}")
        return next((p for p in found if not p["metadata"].get("deletionTimestamp")), None)


class Site:
    """A namespace with an engine, its sidecar and its manager."""

    address = "127.0.0.1"

    def __init__(
        self, cluster: ControlPlane, namespace: str, folder: Path, ticks: Mapping[str, float] = TICK_SECONDS
    ) -> None:
        self.ticks = ticks
        self.cluster = cluster
        self.namespace = namespace
        self.folder = folder
        self.data = folder / "data"
        self.engine = EngineOnCluster(self, ENGINE, self.data)
        for role in ("sidecar", "manager"):
            self.apply(*account(role, yaml.safe_load((RULES / f"{role}.yaml").read_text())))
        self.sidecar = self.new_sidecar(self.engine)
        self.manager = self.new_manager()

    def new_sidecar(self, engine: EngineOnCluster) -> Role:
        """Return the sidecar of that engine, not started."""
        return Role(
            self.cluster.account_kubeconfig(self.namespace, "sidecar"),
            self.folder / f"sidecar-{engine.name}.log",
            "sidecar", "--engine", engine.name, "--data", engine.data, "--engine-url", engine.url,
            "--tick-seconds", self.ticks["sidecar"], "--namespace", self.namespace,
        )  # fmt: skip

    def new_manager(self) -> Role:
        """Not started."""
        return Role(
            self.cluster.account_kubeconfig(self.namespace, "manager"), self.folder / "manager.log",
            "manager", "--tick-seconds", self.ticks["manager"], "--namespace", self.namespace,
        )  # fmt: skip

    def start(self) -> None:
        """All of it; returns when the engine answers."""
        self.engine.declare()
        self.sidecar.start()
        self.manager.start()
        self.engine.start("/ready")

    def end(self) -> None:
        """Kill what runs, and take finalizers away: a held resource would keep the definition for ever."""
        for role in (self.sidecar, self.manager):
            if role.is_running:
                role.end()
        self.engine.kill()
        for resource in self.resources():
            metadata = resource["metadata"]
            if metadata.get("finalizers"):
                without = json.dumps({"metadata": {"finalizers": None}})
                self.kubectl("patch", "vcol", metadata["name"], "--type=merge", "-p", without)

    # What a person does -----------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """In the site's namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, input=input)

    def apply(self, *documents: dict[str, Any]) -> str:
        """`kubectl apply`."""
        return self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(documents))

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """The items of a list, by kubectl."""
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", *arguments, "-o", "json"))["items"]
        return items

    def resource(self, name: str = "notes") -> dict[str, Any]:
        """As it is now."""
        return self.cluster.read(f"{self._path(RESOURCES)}/{name}")

    def resources(self) -> list[dict[str, Any]]:
        """All of them."""
        return self._items(RESOURCES)

    def pods(self, selector: str = "") -> list[dict[str, Any]]:
        """Those with these labels."""
        return self._items("api/v1/{}/pods", labelSelector=selector)

    def _items(self, path: str, **query: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.cluster.read(self._path(path), **query)["items"]
        return items

    def _path(self, path: str) -> str:
        return "/" + path.format(f"namespaces/{self.namespace}")

    def condition(self, kind: str = "Ready", name: str = "notes") -> dict[str, Any]:
        """Return one condition; empty when it is not set."""
        conditions = self.resource(name).get("status", {}).get("conditions", ())
        return next((condition for condition in conditions if condition["type"] == kind), {})

    def reason(self, name: str = "notes") -> str | None:
        """Return the reason of Ready."""
        return self.condition("Ready", name).get("reason")

    def wait_reason(self, reason: str, name: str = "notes") -> dict[str, Any]:
        """Until Ready has that reason; returns the condition."""
        wait_for(lambda: self.reason(name) == reason, lambda: f"{reason}, is {self.condition('Ready', name)}")
        return self.condition("Ready", name)

    def rest(self) -> Rest:
        """A client of the engine."""
        return Rest(self.engine.port)


def collection(name: str = "notes", dimension: int = 4, **spec: Any) -> dict[str, Any]:
    """A resource."""
    return {
        "apiVersion": "vecstow.dev/v1alpha1",
        "kind": "VectorCollection",
        "metadata": {"name": name},
        "spec": {"dimension": dimension, "distanceMetric": "Cosine"} | spec,
    }


def stateful_set(name: str, port: int, replicas: int) -> dict[str, Any]:
    """As the chart makes it, as far as the manager looks at it."""
    labels = {"vecstow.dev/engine": name}
    container = {"name": "engine", "image": "vecstow", "ports": [{"name": "http", "containerPort": port}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def account(role: str, rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A ServiceAccount with exactly these rights in its namespace."""
    subject = {"kind": "ServiceAccount", "name": role}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}
    api = "rbac.authorization.k8s.io/v1"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": role}},
        {"apiVersion": api, "kind": "Role", "metadata": {"name": role}, "rules": rules},
        {
            "apiVersion": api,
            "kind": "RoleBinding",
            "metadata": {"name": role},
            "subjects": [subject],
            "roleRef": reference,
        },
    ]


@contextmanager
def running(
    cluster: ControlPlane, namespace: str, folder: Path, ticks: Mapping[str, float] = TICK_SECONDS
) -> Iterator[Site]:
    """Started, and ended."""
    site = Site(cluster, namespace, folder, ticks)
    with ExitStack() as ending:
        ending.callback(site.end)
        site.start()
        yield site
