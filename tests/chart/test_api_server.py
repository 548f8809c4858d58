"""A real API server takes whatever the charts render, field for field, under Pod Security `restricted`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

import pytest

from tests.chart.conftest import Render
from tests.chart.helm import CRD_CHART, NAMESPACE, POD_TEMPLATES, Helm, Object, Rendered
from tests.chart.matrix import CASES
from tests.cluster.control_plane import ControlPlane, KubectlFailed

TRIED = ("--dry-run=server", "--validate=strict", "--warnings-as-errors", "--filename=-")


def applied(cluster: ControlPlane, manifest: str) -> list[str]:
    """Return the server's line about each object, applied as Helm does, in a dry run that leaves nothing
    behind.
    """
    return cluster.kubectl(
        "apply", "--server-side", f"--namespace={NAMESPACE}", *TRIED, input=manifest
    ).splitlines()


def as_list(objects: Iterable[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def pods(rendered: Rendered) -> Iterator[Object]:
    """Those that controllers make."""
    claims = rendered.engine["spec"].get("volumeClaimTemplates", ())
    for found in rendered.objects:
        if found["kind"] in POD_TEMPLATES:
            template = found["spec"]["template"]
            spec = dict(template["spec"])
            if found is rendered.engine:
                spec["volumes"] = [*spec["volumes"], *map(volume, claims)]
            metadata = {"name": found["metadata"]["name"], "labels": template["metadata"]["labels"]}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def volume(claim: Object) -> Object:
    name = claim["metadata"]["name"]
    return {"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}}


@pytest.fixture(scope="module")
def with_accounts(strict: ControlPlane) -> Callable[[Rendered], None]:
    """Makes the accounts that pods run as: without them none is admitted."""
    made: set[str] = set()

    def make(rendered: Rendered) -> None:
        wanted = {pod["spec"]["serviceAccountName"] for _, pod in rendered.pods()}
        for name in wanted - made:
            strict.kubectl("create", "serviceaccount", name, f"--namespace={NAMESPACE}")
        made.update(wanted)

    return make


@pytest.mark.parametrize("case", CASES)
def test_every_object_is_taken(
    strict: ControlPlane, with_accounts: Callable[[Rendered], None], render: Render, case: str
) -> None:
    with_accounts(render(case))
    assert len(applied(strict, render(case).manifest)) == len(render(case).objects)


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_admitted(
    strict: ControlPlane, with_accounts: Callable[[Rendered], None], render: Render, case: str
) -> None:
    """Pod Security refuses pods, and only warns of workloads."""
    with_accounts(render(case))
    made = list(pods(render(case)))
    assert len(applied(strict, as_list(made))) == len(made) > 0


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        pytest.param("hostNetwork", True, "violates PodSecurity", id="what Pod Security forbids"),
        pytest.param("restart", "Never", "field not declared in schema", id="unknown field"),
    ],
)
def test_a_wrong_pod_would_be_refused(
    strict: ControlPlane, render: Render, field: str, value: object, said: str
) -> None:
    pod = next(pods(render("default")))
    del pod["spec"]["serviceAccountName"]
    applied(strict, json.dumps(pod))
    pod["spec"][field] = value
    with pytest.raises(KubectlFailed, match=said):
        applied(strict, json.dumps(pod))


def test_the_chart_of_the_definition_is_taken(strict: ControlPlane, helm: Helm) -> None:
    rendered = helm.render({}, "crds", CRD_CHART)
    assert len(applied(strict, rendered.manifest)) == len(rendered.objects)
