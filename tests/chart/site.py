"""A namespace of a real API server, and Helm to fill it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.chart.helm import CHART, CRD_CHART, RELEASE, Helm, Values
from tests.cluster.control_plane import ControlPlane


@dataclass(frozen=True)
class Site:
    """No node is there: what is installed never runs."""

    helm: Helm
    cluster: ControlPlane
    namespace: str

    def define(self) -> None:
        """The API server knows VectorCollection."""
        definition = self.helm.render({}, "crds", CRD_CHART).manifest
        self.cluster.kubectl("apply", "--server-side", "--filename=-", input=definition)
        self.cluster.kubectl("wait", "--for=condition=Established", "crd/vectorcollections.vecstow.dev")

    def install(self, values: Values, release: str = RELEASE) -> None:
        """For real."""
        self.helm.run("install", release, CHART, f"--namespace={self.namespace}", values=values)

    def upgrade(self, values: Values, release: str = RELEASE) -> None:
        """For real."""
        self.helm.run("upgrade", release, CHART, f"--namespace={self.namespace}", values=values)

    def ask(self, values: Values, release: str = RELEASE) -> None:
        """Whether an install or upgrade would begin: nothing is made. Raises HelmFailed."""
        command = ["upgrade", "--install", release, CHART, "--dry-run=server"]
        self.helm.run(*command, f"--namespace={self.namespace}", values=values)

    def apply(self, *objects: dict[str, Any]) -> None:
        """As they are."""
        for each in objects:
            self.cluster.kubectl(
                "apply", f"--namespace={self.namespace}", "--filename=-", input=json.dumps(each)
            )

    def get(self, *arguments: str) -> str:
        """By kubectl."""
        return self.cluster.kubectl("get", f"--namespace={self.namespace}", *arguments)
