"""The text that an install prints can be typed as it stands: each name in it is that of an object."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from tests.chart.conftest import Render
from tests.chart.helm import CRD_CHART, NAMESPACE, Helm, Rendered, container
from tests.chart.matrix import CASES
from tests.cluster.control_plane import ControlPlane

KINDS = {"statefulset": "StatefulSet", "service": "Service"}


def commands(notes: str) -> Iterator[list[str]]:
    """The words of each."""
    for line in notes.splitlines():
        if line.strip().split(" ")[0] in ("kubectl", "helm", "curl"):
            yield shlex.split(line)


def check_kubectl(words: list[str], rendered: Rendered) -> None:
    """Each object that a command names is there."""
    assert words[words.index("--namespace") + 1] == NAMESPACE
    for word in words:
        kind, _, name = word.partition("/")
        if kind in KINDS:
            assert name in {found["metadata"]["name"] for found in rendered.kind(KINDS[kind])}
        elif kind == "vcol":
            assert f"\n  name: {name}\n" in rendered.notes
    if words[1] == "exec":
        assert f"{rendered.engine['metadata']['name']}-0" in words
        assert container(rendered.engine_pod, words[words.index("--container") + 1])
    if words[1] == "port-forward":
        port = rendered.one("Service")["spec"]["ports"][0]["port"]
        assert words[-2:] == [f"3030:{port}", "&"]


@pytest.mark.parametrize("case", CASES)
def test_commands_name_what_is_there(render: Render, case: str) -> None:
    rendered = render(case)
    typed = list(commands(rendered.notes))
    for words in typed:
        if words[0] == "kubectl":
            check_kubectl(words, rendered)
        elif words[0] == "helm":
            assert words[2:] == [CASES[case].release, "--namespace", NAMESPACE]
            assert rendered.kind("Pod") != []
    values = CASES[case].values.get("engine", {})
    verbs = {words[1] for words in typed if words[0] == "kubectl"}
    if values.get("maintenance"):
        assert verbs == {"exec"}
    elif values.get("replicas") == 0:
        assert verbs == set()
    else:
        assert verbs == {"rollout", "apply", "wait", "port-forward"}


@pytest.mark.parametrize("case", ["default", "without keys", "load balancer", "long release name"])
def test_applications_are_told_where_it_is(render: Render, case: str) -> None:
    service = render(case).one("Service")
    port = service["spec"]["ports"][0]["port"]
    notes = render(case).notes
    assert f"http://{service['metadata']['name']}.{NAMESPACE}.svc:{port}" in notes
    assert ("Authorization: Bearer" in notes) == (case != "without keys")


def test_the_collection_of_the_notes_can_be_applied(strict: ControlPlane, helm: Helm, render: Render) -> None:
    """Pasted into a shell as it is printed."""
    definition = helm.render({}, "crds", CRD_CHART).manifest
    strict.kubectl("apply", "--server-side", "--filename=-", input=definition)
    strict.kubectl("wait", "--for=condition=Established", "crd/vectorcollections.vecstow.dev")
    notes = render("names that YAML takes for something else").notes
    pasted = notes[notes.index("kubectl apply") : notes.index("kubectl wait")]
    path = f"{strict.programs}:{os.environ['PATH']}"
    subprocess.run(["sh", "-euc", pasted], check=True, env=os.environ | strict.environment | {"PATH": path})
    spec = strict.kubectl(
        "get", "vcol", "app-first", f"--namespace={NAMESPACE}", "--output=jsonpath={.spec.engine}"
    )
    assert spec == "1e3"


def test_who_has_no_manager_and_no_prometheus_is_told(render: Render) -> None:
    assert "No manager is part of this release" in render("without a manager").notes
    assert "No manager" not in render("default").notes
    assert "networkPolicy.monitoring is empty" in render("monitored with a key of its own").notes
    assert "networkPolicy.monitoring is empty" not in render("everything monitored").notes
