"""Helm, what it renders, and a namespace as strict as any."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chart import supplies
from tests.chart.helm import NAMESPACE, Helm, Rendered
from tests.chart.matrix import CASES
from tests.chart.site import Site
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fixtures import REQUIRED
from tests.cluster.go_module import NotBuilt

Render = Callable[[str], Rendered]


def _supplied(find: Callable[[], Path]) -> Path:
    """Return the path from `find`. If the program is not built, skip the test, unless REQUIRED is set."""
    try:
        return find()
    except NotBuilt as reason:
        if os.environ.get(REQUIRED):
            raise
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm without a cluster."""
    return Helm(_supplied(supplies.helm), tmp_path_factory.mktemp("helm"), {})


@pytest.fixture(scope="session")
def helm_docs() -> Path:
    return _supplied(supplies.helm_docs)


@pytest.fixture(scope="session")
def glua() -> Path:
    return _supplied(supplies.glua)


@pytest.fixture(scope="session")
def promtool() -> Path:
    return _supplied(supplies.promtool)


@pytest.fixture(scope="session")
def checkov() -> Path:
    return _supplied(supplies.checkov)


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """Return a function that renders a case of the matrix, once per case."""
    known: dict[str, Rendered] = {}

    def rendered(name: str) -> Rendered:
        if name not in known:
            known[name] = helm.render(CASES[name].values, CASES[name].release)
        return known[name]

    return rendered


@pytest.fixture(scope="session")
def strict(cluster: ControlPlane) -> Iterator[ControlPlane]:
    """The cluster, with NAMESPACE under the strictest Pod Security, and all that the charts refer to."""
    level = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    cluster.kubectl("apply", "--filename=-", input=json.dumps(_object("Namespace", NAMESPACE, labels=level)))
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={NAMESPACE}")
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000}
    cluster.kubectl("apply", "--filename=-", input=json.dumps(priority | {"metadata": {"name": "important"}}))
    for definition in supplies.prometheus_operator_definitions():
        # Too large for the annotation that kubectl would write.
        cluster.kubectl("apply", "--server-side", f"--filename={definition}")
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", f"--filename={definition}")
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def site(helm: Helm, cluster: ControlPlane, namespace: str) -> Site:
    """A namespace of the test's own, in a cluster that knows VectorCollection."""
    made = Site(Helm(helm.program, helm.folder, cluster.environment), cluster, namespace)
    made.define()
    return made


def _object(kind: str, name: str, **metadata: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **metadata}}
