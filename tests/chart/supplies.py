"""Programs that these tests need next to Kubernetes, each built or fetched once and kept in the cache.

`python -m tests.chart.supplies` adds what is missing. The first run takes a few minutes, a later run no time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.binaries import KUBERNETES
from tests.cluster.go_module import NotBuilt, cache, one_maker
from tests.e2e.programs import GLUA, HELM, HELM_DOCS

HERE = Path(__file__).parent
LOCK = HERE / "checkov.lock"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator"
"""A Go module whose version and checksum `prometheus_operator/` has; its zip holds the definitions."""
KINDS = ("podmonitors", "prometheusrules")


def helm() -> Path:
    """Helm, if it is built; raises NotBuilt."""
    return HELM.built() / HELM.name


def helm_docs() -> Path:
    """helm-docs, if it is built; raises NotBuilt."""
    return HELM_DOCS.built() / HELM_DOCS.name


def glua() -> Path:
    """The interpreter of Lua, if it is built; raises NotBuilt."""
    return GLUA.built() / GLUA.name


def promtool() -> Path:
    """Return promtool from the PATH or unpacked from Debian's package; raise NotBuilt without it."""
    found = shutil.which("promtool", path=f"{cache() / 'promtool'}:{os.environ['PATH']}")
    if found is None:
        raise NotBuilt("promtool is missing: type `sh scripts/chart-packages.sh`")
    return Path(found)


def checkov() -> Path:
    """The interpreter of an environment with checkov; raises NotBuilt."""
    python = _checkov_place() / "bin" / "python"
    if not python.exists():
        raise NotBuilt("checkov is not installed: type `python -m tests.chart.supplies`")
    return python


def prometheus_operator_definitions() -> list[Path]:
    """The custom resources that the chart makes for the Prometheus operator, out of Go's module cache."""
    fetched = subprocess.run(
        ["go", "mod", "download", "-json", PROMETHEUS_OPERATOR],
        cwd=HERE / "prometheus_operator", capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = Path(json.loads(fetched.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    return [folder / f"monitoring.coreos.com_{kind}.yaml" for kind in KINDS]


def make_all() -> None:
    """Bring what is missing; raises NotBuilt for promtool, which is Debian's to bring."""
    KUBERNETES.build()
    HELM.build()
    HELM_DOCS.build()
    GLUA.build()
    prometheus_operator_definitions()
    _install_checkov()
    promtool()


def _checkov_place() -> Path:
    """The folder of its environment, whether it is there or not: another lock has another one."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
    return cache() / f"checkov-{digest[:16]}"


def _install_checkov() -> None:
    """In an environment of its own: it asks for other versions than the project does."""
    place = _checkov_place()
    with one_maker("checkov"):
        if place.exists():
            return
        print(f"installing checkov into {place}: a minute", flush=True)
        with tempfile.TemporaryDirectory(dir=cache(), prefix="installing-") as temporary:
            made = Path(temporary) / "checkov"
            subprocess.run([sys.executable, "-m", "venv", made], check=True)
            options = ["--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
            subprocess.run(
                [made / "bin" / "python", "-m", "pip", "install", *options, "-r", LOCK], check=True
            )
            made.rename(place)


if __name__ == "__main__":
    try:
        make_all()
    except NotBuilt as reason:
        raise SystemExit(str(reason)) from None
