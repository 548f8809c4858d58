"""A release of the charts on the node: installed, changed and taken away by helm, and used by its users."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.crash.rest import Refused, Rest
from tests.e2e.images import IMAGE, ROOT
from tests.e2e.node import Node
from tests.operator.site import collection
from tests.waiting import wait_for

CHART = str(ROOT / "charts" / "vecstow")
CRDS = str(ROOT / "charts" / "vecstow-crds")
KEYS_SECRET = "vecstow-keys"
ROLES = {"sidecar": "sidecar", "manager": "monitor", "test": "write", "app": "write", "admin": "admin"}
"""By the name of the key."""
PORT = 3030
WAITING = ("--wait", "--timeout=170s")
SERVED_SECONDS_MAX = 180.0
Values = dict[str, object]
"""By the path of each, as `--set` takes it."""
IMAGE_VALUES: Values = dict(zip(("image.repository", "image.tag"), IMAGE.split(":"), strict=True))
# The node has two processors for several engines, and its own programs.
SMALL: Values = {"engine.resources.requests.cpu": "50m", "engine.resources.requests.memory": "128Mi"}


class Release:
    """One release and its engine, in a namespace that is there; the keys are the administrator's to use."""

    def __init__(self, node: Node, namespace: str, name: str = "vecstow") -> None:
        self.node = node
        self.namespace = namespace
        self.name = name
        self.fullname = name if "vecstow" in name else f"{name}-vecstow"
        self.pod = f"{self.fullname}-0"
        self.keys = {role: secrets.token_hex(32) for role in ROLES}

    # What a platform engineer does ------------------------------------------------------------------------

    def make_keys(self) -> None:
        """The Secret that the chart asks for."""
        digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in self.keys.items()}
        listed = [
            {"name": name, "role": role, "sha256": digests[name]}
            | ({"collections": ["vecstow-test-*"]} if name == "test" else {})
            for name, role in ROLES.items()
        ]
        content = self.keys | {"keys.yaml": yaml.safe_dump({"keys": listed})}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS_SECRET}}
        self.apply(secret | {"stringData": content})

    def install(self, values: Values | None = None, *, wait: bool = True) -> None:
        """`helm install`, and wait until all is ready."""
        self.node.helm("install", self.name, CHART, *self._flags(values), *WAITING * wait)

    def upgrade(self, values: Values | None = None, *, wait: bool = True) -> None:
        """`helm upgrade`, and wait until all is ready."""
        self.node.helm("upgrade", self.name, CHART, *self._flags(values), *WAITING * wait)

    def helm(self, command: str, *more: str) -> str:
        """Another of helm's commands, about this release."""
        return self.node.helm(command, self.name, f"--namespace={self.namespace}", *more)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """In the release's namespace."""
        return self.node.kubectl(f"--namespace={self.namespace}", *arguments, input=input)

    def execute(self, *command: str, container: str = "engine") -> str:
        """Run a command in the engine's pod and return its output."""
        return self.kubectl("exec", self.pod, f"--container={container}", "--", *command)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command as a person types it, who has the cluster's programs, the plugin and the engine's key."""
        environment = self.node.environment | {"VECSTOW_API_KEY": self.keys["admin"]}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        self.kubectl("config", "set-context", "--current", f"--namespace={self.namespace}")
        return subprocess.run(
            ["sh", "-c", command],
            capture_output=True,
            text=True,
            env=os.environ | environment,
            check=False,
        )

    def typed(self, command: str) -> str:
        """Run a command line, which has to succeed, and return its output."""
        done = self.shell(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        """Into the release's namespace."""
        for each in objects:
            each["metadata"]["namespace"] = self.namespace
        self.node.apply(*objects)

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return the answer of `kubectl get` in the release's namespace."""
        return self.node.get(*arguments, f"--namespace={self.namespace}")

    # What an application developer does ---------------------------------------------------------------------

    def declare(self, name: str, dimension: int = 8, **spec: Any) -> None:
        """Apply a collection, and return when it is Ready."""
        self.apply(collection(name, dimension, distanceMetric="Euclidean", **spec))
        self.wait_ready(name)

    def wait_ready(self, *names: str) -> None:
        """Until their condition Ready is true, which a person would wait for with kubectl."""
        self.kubectl("wait", "--for=condition=Ready", "--timeout=80s", *(f"vcol/{name}" for name in names))

    def condition(self, name: str, kind: str = "Ready") -> dict[str, Any]:
        """Return one condition; empty when it is not set."""
        conditions = self.get("vcol", name).get("status", {}).get("conditions", ())
        return next((condition for condition in conditions if condition["type"] == kind), {})

    def wait_reason(self, name: str, reason: str, kind: str = "Ready") -> dict[str, Any]:
        """Until a condition has that reason."""
        wait_for(
            lambda: self.condition(name, kind).get("reason") == reason,
            lambda: f"{kind} of {name} is {self.condition(name, kind)}, not {reason}",
        )
        return self.condition(name, kind)

    def rest(self, role: str = "app", timeout_seconds: float = 30.0) -> Rest:
        """A client of the Service, by its address: this process does not ask the cluster's DNS."""
        return Rest(PORT, timeout_seconds, host=self.address, key=self.keys.get(role))

    @property
    def address(self) -> str:
        """The address of the Service."""
        address: str = self.get("service", self.fullname)["spec"]["clusterIP"]
        return address

    # What happens to it -------------------------------------------------------------------------------------

    def served(self, name: str, what: str = "a search", seconds: float = SERVED_SECONDS_MAX) -> float:
        """Ask for a search until there is an answer; returns the seconds that it took."""
        return self.until(lambda rest: rest.search(name, bytes(4 * 8)) is not None, what, seconds)

    def until(self, holds: Callable[[Rest], bool], what: str, seconds: float = SERVED_SECONDS_MAX) -> float:
        """Ask the engine until it answers so; returns the seconds that it took."""
        began = time.monotonic()
        with self.rest(timeout_seconds=5) as rest:

            def look() -> bool:
                try:
                    return holds(rest)
                except (OSError, Refused):
                    return False

            wait_for(look, what, seconds)
        return time.monotonic() - began

    def pod_status(self) -> dict[str, Any]:
        """Return the status of the engine's pod."""
        status: dict[str, Any] = self.get("pod", self.pod)["status"]
        return status

    def restarts(self) -> dict[str, int]:
        """Return the restarts of each container of the pod."""
        status = self.pod_status()
        known = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
        return {each["name"]: each["restartCount"] for each in known}

    def pod_ready(self) -> bool:
        """Whether the pod that is there now is Ready, and not on its way out."""
        for pod in self.get("pods", f"--field-selector=metadata.name={self.pod}")["items"]:
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
            return "deletionTimestamp" not in pod["metadata"] and conditions.get("Ready") == "True"
        return False

    def kill_container(self, container: str) -> None:
        """SIGKILL to its first process."""
        self.node.kill_container(self.namespace, self.pod, container)

    @property
    def claim(self) -> str:
        """Name of the claim of the engine's volume."""
        return f"data-{self.pod}"

    def data(self) -> Path:
        """The engine's data directory, as the node and this process see it."""
        volume = self.get("pvc", self.claim)["spec"]["volumeName"]
        return Path(self.node.get("pv", volume)["spec"]["local"]["path"]) / "data"

    def _flags(self, values: Values | None) -> list[str]:
        chosen = IMAGE_VALUES | SMALL | {"keys.existingSecret": KEYS_SECRET, "persistence.size": "1Gi"}
        sets = (f"--set-json={name}={json.dumps(value)}" for name, value in (chosen | (values or {})).items())
        return [f"--namespace={self.namespace}", *sets]


def install_crds(node: Node) -> None:
    """Once for a cluster."""
    node.helm("upgrade", "--install", "vecstow-crds", CRDS, "--namespace=default")


def make_namespace(node: Node, name: str | None = None) -> str:
    """One whose Pod Security is the strictest; returns its name."""
    name = name or f"test-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    # Made by a controller, and without it no pod is admitted.
    node.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=110s")
    return name
