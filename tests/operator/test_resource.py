"""The resource as kubectl shows it, what is filled in, and that applying it again changes nothing."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.operator.declaring import Document, Resources, declaring
from tests.operator.site import Site, collection

DEFAULTS = {"maxConnections": 16, "efConstruction": 200, "efSearch": 50, "maxLayer": 16}
COLUMNS = [
    "NAME", "READY", "REASON", "DEGRADED", "PAUSED", "OBSERVED", "DIMENSION", "METRIC", "VECTORS", "ENGINE",
    "AGE",
]  # fmt: skip
FULL = {
    "vectorType": "Float16",
    "index": {"maxConnections": 8, "efSearch": 10},
    "payloadIndexes": [{"field": "b", "type": "keyword"}, {"field": "a", "type": "float"}],
    "owner": "search-team",
    "deletionPolicy": "Delete",
    "paused": False,
}
"""All but what the other tests need as it is."""


@pytest.fixture(scope="module")
def resources(cluster: ControlPlane) -> Iterator[Resources]:
    with declaring(cluster) as declared:
        cluster.kubectl("get", "vcol", "--namespace", declared.namespace)  # kubectl learns of the resource
        yield declared


def explained(cluster: ControlPlane, path: str) -> dict[str, str]:
    """Return the text of `kubectl explain` about each field, in one line."""
    text = cluster.kubectl("explain", path).partition("FIELDS:\n")[2]
    parts = re.split(r"^  (\w+)\t", text, flags=re.MULTILINE)[1:]
    return {name: " ".join(said.split()) for name, said in zip(parts[::2], parts[1::2], strict=True)}


# What people read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(
            "vcol.spec",
            {
                "dimension": "<integer> -required- Numbers in each vector, 1 to 65536. Immutable.",
                "distanceMetric": (
                    "<string> -required- enum: Cosine, Euclidean, DotProduct, Manhattan How far two vectors "
                    "are apart: Cosine is 1 - cos, Euclidean the L2 norm, DotProduct 1 - dot, Manhattan the "
                    "L1 norm. Immutable."
                ),
                "payloadIndexes": (
                    "<[]Object> Payload fields that filters use often, at most 64. They can be changed at "
                    "any time."
                ),
            },
            id="spec",
        ),
        pytest.param(
            "vcol.spec.index",
            {
                "efSearch": (
                    "<integer> Candidates looked at by a search that brings no ef_search of its own, 1 to "
                    "1000, default 50."
                )
            },
            id="index",
        ),
        pytest.param(
            "vcol.status",
            {
                "observedGeneration": (
                    "<integer> The generation that the conditions are about; -1 before anybody looked."
                ),
                "conditions": "<[]Object> Ready, Synced, Degraded, Conflict, Paused, Reconciling, Stalled.",
            },
            id="status",
        ),
        pytest.param("vcol.status.conditions", {}, id="conditions"),
        pytest.param("vcol.status.replicas", {}, id="replicas"),
    ],
)
@pytest.mark.usefixtures("resources")
def test_each_field_is_explained(cluster: ControlPlane, path: str, expected: dict[str, str]) -> None:
    fields = explained(cluster, path)
    assert len(fields) >= 4
    assert expected.items() <= fields.items()
    for name, said in fields.items():
        described = re.sub(r"^<[^>]+>( -required-)?( enum: \S+(?:, \S+)*)?", "", said)
        assert described.endswith("."), name


def test_columns_tell_what_is_served_and_the_wide_ones_why(
    cluster: ControlPlane, resources: Resources
) -> None:
    resources.create(collection("shown"))
    conditions = [
        condition("Served", "served by vecstow"),
        condition("PointsWithheld", "rows fail their checks", kind="Degraded"),
    ]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"vectorCount": 7, "observedAt": now, "aliases": ["second"], "conditions": conditions}
    resources.apply_status("shown", status)

    def table(*arguments: str) -> list[list[str]]:
        text = cluster.kubectl("get", "--namespace", resources.namespace, *arguments)
        return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]

    head, row = table("vcol", "shown")
    assert head == COLUMNS
    assert row[:5] == ["shown", "True", "Served", "True", "false"]
    assert re.fullmatch(r"[0-9]+s", row[5])
    assert row[6:-1] == ["4", "Cosine", "7", "vecstow"]
    head, row = table("vcol", "shown", "-o", "wide")
    assert (head[-2:], row[-2:]) == (["ALIASES", "MESSAGE"], ['["second"]', "served by vecstow"])
    assert head[:-2] == COLUMNS


@pytest.mark.parametrize("word", ["vcol", "vecstow", "vectorcollection", "vectorcollections.vecstow.dev"])
def test_names_of_the_resource(cluster: ControlPlane, resources: Resources, word: str) -> None:
    cluster.kubectl("apply", "-n", resources.namespace, "-f", "-", input=yaml.safe_dump(collection("named")))
    found = cluster.kubectl("get", word, "-n", resources.namespace, "-o", "name").split()
    assert "vectorcollection.vecstow.dev/named" in found


def test_engine_selects_those_that_name_none_too(resources: Resources) -> None:
    resources.create(collection("of-the-default"))
    resources.create(collection("of-the-same", engine="vecstow"))
    resources.create(collection("of-another", engine="other"))
    assert {"of-the-default", "of-the-same"} <= set(resources.names("spec.engine=vecstow"))
    assert resources.names("spec.engine=other") == ["of-another"]


# What is filled in -----------------------------------------------------------------------------------------


def test_fresh_resource_looks_like_nothing(resources: Resources) -> None:
    """The status of a fresh resource satisfies no client that waits for it, whatever the client compares."""
    created = resources.create(collection("fresh"))
    assert created["metadata"]["generation"] == 1
    assert created["status"] == {"observedGeneration": -1}


def test_status_that_is_declared_is_not_kept(resources: Resources) -> None:
    declared = collection("boasting") | {"status": {"observedGeneration": 1, "vectorCount": 7}}
    assert resources.create(declared)["status"] == {"observedGeneration": -1}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, DEFAULTS, id="no index"),
        pytest.param({"index": None}, DEFAULTS, id="index: null"),
        pytest.param({"index": {}}, DEFAULTS, id="index: {}"),
        pytest.param({"index": {"efSearch": None}}, DEFAULTS, id="efSearch: null"),
        pytest.param({"index": {"efSearch": 9}}, DEFAULTS | {"efSearch": 9}, id="one setting"),
    ],
)
def test_defaults_are_filled_in(resources: Resources, given: Document, expected: Document) -> None:
    assert resources.try_create(collection(**given))["spec"] == {
        "dimension": 4,
        "distanceMetric": "Cosine",
        "vectorType": "Float32",
        "index": expected,
        "engine": "vecstow",
        "deletionPolicy": "Retain",
        "paused": False,
    }


def test_null_is_as_if_it_were_not_there(resources: Resources) -> None:
    nulls = dict.fromkeys(("vectorType", "index", "payloadIndexes", "owner", "collectionName", "engine",
                           "deletionPolicy", "paused"))  # fmt: skip
    assert resources.try_create(collection(**nulls))["spec"] == resources.try_create(collection())["spec"]


# Applied again ---------------------------------------------------------------------------------------------

AGAIN = [
    pytest.param({}, id="what it must have"),
    pytest.param({"index": {}, "payloadIndexes": []}, id="empty lists and objects"),
    pytest.param({"index": {"efSearch": 10}}, id="a part of the index"),
    pytest.param(FULL, id="everything"),
]


def is_unchanged_by_another_apply(
    cluster: ControlPlane, namespace: str, document: Document, side: tuple[str, ...]
) -> None:
    text, place = yaml.safe_dump(document), ("--namespace", namespace)

    def version() -> Any:
        name = document["metadata"]["name"]
        return json.loads(cluster.kubectl("get", "vcol", name, *place, "-o", "json"))["metadata"][
            "resourceVersion"
        ]

    before = version()
    cluster.kubectl("diff", *side, *place, "-f", "-", input=text)  # it fails where something differs
    cluster.kubectl("apply", *side, *place, "-f", "-", input=text)
    assert version() == before


@pytest.mark.parametrize("spec", AGAIN)
def test_second_apply_changes_nothing(cluster: ControlPlane, resources: Resources, spec: Document) -> None:
    document = collection(f"twice-{len(spec)}-{len(str(spec))}", **spec)
    cluster.kubectl("apply", "-n", resources.namespace, "-f", "-", input=yaml.safe_dump(document))
    is_unchanged_by_another_apply(cluster, resources.namespace, document, ())


@pytest.mark.parametrize("spec", AGAIN)
def test_third_server_side_apply_changes_nothing(
    cluster: ControlPlane, resources: Resources, spec: Document
) -> None:
    """The second one changes nothing that anybody sees, and yet the version: only now the API server stores
    the status that it filled in.
    """
    document = collection(f"thrice-{len(spec)}-{len(str(spec))}", **spec)
    name, side = document["metadata"]["name"], ("--server-side",)
    arguments = ("apply", *side, "-n", resources.namespace, "-f", "-")
    cluster.kubectl(*arguments, input=yaml.safe_dump(document))
    first = resources.get(name)
    cluster.kubectl(*arguments, input=yaml.safe_dump(document))
    second = resources.get(name)
    first["metadata"]["resourceVersion"] = second["metadata"]["resourceVersion"]
    assert first == second
    is_unchanged_by_another_apply(cluster, resources.namespace, document, side)


@pytest.mark.parametrize(
    "side", [pytest.param((), id="client"), pytest.param(("--server-side",), id="server")]
)
def test_apply_changes_nothing_of_what_is_reconciled(shared: Site, side: tuple[str, ...]) -> None:
    """Neither the status nor the finalizer is anything that its owner would miss in his file."""
    document = collection(f"again-{len(side)}", **FULL)
    name = document["metadata"]["name"]
    shared.kubectl("apply", *side, "-f", "-", input=yaml.safe_dump(document))
    shared.wait_reason("Served", name)
    assert shared.resource(name)["metadata"]["finalizers"] == ["vecstow.dev/drop-collection"]
    is_unchanged_by_another_apply(shared.cluster, shared.namespace, document, side)


def condition(reason: str, message: str, kind: str = "Ready") -> Document:
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
