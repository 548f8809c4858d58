"""Helm, and what it makes of the charts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "vecstow"
CRD_CHART = ROOT / "charts" / "vecstow-crds"
NAMESPACE = "chart-tests"
"""The namespace of each rendered release."""
RELEASE = "one"
HELM_SECONDS_MAX = 120.0
POD_TEMPLATES = ("Deployment", "Job", "StatefulSet")

Object = dict[str, Any]
Values = Mapping[str, Any]


class HelmFailed(Exception):
    """Raised when Helm ends with an error; the message is what it wrote."""


@dataclass(frozen=True)
class Rendered:
    """The manifest and the notes of one rendered release."""

    manifest: str
    """As Helm sends it, with hooks and tests."""
    notes: str

    @cached_property
    def objects(self) -> list[Object]:
        """All of it."""
        return [each for each in yaml.safe_load_all(self.manifest) if each is not None]

    def kind(self, kind: str) -> list[Object]:
        """All objects of a kind."""
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Object:
        """The one of that kind whose name is the StatefulSet's and this."""
        name = self.engine["metadata"]["name"] + suffix
        [found] = [each for each in self.kind(kind) if each["metadata"]["name"] == name]
        return found

    @property
    def engine(self) -> Object:
        """The StatefulSet."""
        [found] = self.kind("StatefulSet")
        return found

    @property
    def engine_pod(self) -> Object:
        """The spec of the engine's pod."""
        spec: Object = self.engine["spec"]["template"]["spec"]
        return spec

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Name of the object, and metadata and spec of the pod that comes of it."""
        for found in self.objects:
            if found["kind"] in POD_TEMPLATES:
                yield found["metadata"]["name"], found["spec"]["template"]
            elif found["kind"] == "Pod":
                yield found["metadata"]["name"], found


def containers(pod: Object) -> list[Object]:
    """All of a pod's spec."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def container(pod: Object, name: str) -> Object:
    """The one of that name."""
    [found] = [each for each in containers(pod) if each["name"] == name]
    return found


@dataclass(frozen=True)
class Helm:
    """One program. Without an environment that names a cluster, it asks none."""

    program: Path
    folder: Path
    """For its own files."""
    environment: Mapping[str, str]

    def run(self, *arguments: object, values: Values | None = None) -> str:
        """Run helm and return its output; `values` become the file of `--values`. Raise HelmFailed on an
        error.
        """
        given = [] if values is None else ["--values=-"]
        done = subprocess.run(
            [self.program, *map(str, arguments), *given],
            input="" if values is None else json.dumps(values),
            capture_output=True,
            text=True,
            timeout=HELM_SECONDS_MAX,
            env=os.environ | {f"HELM_{kind}_HOME": str(self.folder) for kind in ("CACHE", "CONFIG", "DATA")}
            | {"KUBECONFIG": os.devnull} | dict(self.environment),
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise HelmFailed(done.stderr.strip() + done.stdout.strip())
        return done.stdout

    def render(self, values: Values, release: str = RELEASE, chart: Path = CHART) -> Rendered:
        """As an install would be, without asking an API server."""
        told = self.run(
            *["install", release, chart, f"--namespace={NAMESPACE}", "--dry-run=client", "--output=json"],
            values=values,
        )
        made = json.loads(told)
        manifests = [made["manifest"], *[hook["manifest"] for hook in made.get("hooks", ())]]
        return Rendered("\n---\n".join(manifests), made["info"].get("notes", ""))
