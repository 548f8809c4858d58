"""The lines that people read about the claims that engines mount."""

from types import SimpleNamespace

import pytest
from kubernetes.client.exceptions import ApiException

from vecstow_operator.plugin import status
from vecstow_operator.plugin.status import TERMINATING, Claim, Line, claims_of, with_claims

KEPT = Claim("data-vecstow-0", "pv-1", is_ending=False)
ENDING = Claim("data-vecstow-0", "pv-1", is_ending=True)
RETAIN = """kubectl patch pv pv-1 --patch '{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}'"""


def line(reason):
    return Line("notes", "notes", "vecstow", "ready", reason, 7, "as it is", "as before")


@pytest.mark.parametrize(
    ("claim", "reason", "expected", "command"),
    [
        pytest.param(KEPT, "Served", "Served", "as before", id="well"),
        pytest.param(ENDING, "Served", TERMINATING, RETAIN, id="served, until the pod ends"),
        pytest.param(ENDING, "Orphan", TERMINATING, RETAIN, id="an orphan, until the pod ends"),
        pytest.param(ENDING, "Pending", "Pending", "as before", id="another trouble comes first"),
        pytest.param(KEPT, "VolumeReplaced", "VolumeReplaced", "kubectl get pv", id="another volume"),
        pytest.param(ENDING, "DataMissing", "DataMissing", RETAIN, id="lost, and the claim goes, too"),
    ],
)
def test_line_says_what_the_claim_has_to_do_with_it(claim, reason, expected, command):
    [told] = with_claims([line(reason)], {"vecstow": claim})
    assert (told.reason, told.next_command) == (expected, command)
    assert ("pv-1" in told.message) == (command != "as before")


def test_line_of_an_engine_whose_claim_nobody_may_read_stays():
    assert list(with_claims([line("Served")], {})) == [line("Served")]


def pod(**claim):
    volume = SimpleNamespace(name="data", persistent_volume_claim=SimpleNamespace(**claim) if claim else None)
    labels = {"vecstow.dev/engine": "vecstow"}
    return SimpleNamespace(
        metadata=SimpleNamespace(labels=labels),
        spec=SimpleNamespace(volumes=[SimpleNamespace(name="tmp", persistent_volume_claim=None), volume]),
    )


@pytest.mark.parametrize(
    ("pods", "may_read", "expected"),
    [
        pytest.param([pod(claim_name="data-vecstow-0")], True, {"vecstow": ENDING}, id="a claim"),
        pytest.param([pod(claim_name="data-vecstow-0")], False, {}, id="no right"),
        pytest.param([pod()], True, {}, id="no claim"),
    ],
)
def test_claim_is_read_where_the_caller_may(monkeypatch, pods, may_read, expected):
    def read(name, namespace):
        if not may_read:
            raise ApiException(status=403, reason="Forbidden")
        return SimpleNamespace(
            metadata=SimpleNamespace(deletion_timestamp="2026-01-01T00:00:00Z"),
            spec=SimpleNamespace(volume_name="pv-1"),
        )

    core = SimpleNamespace(read_namespaced_persistent_volume_claim=read)
    monkeypatch.setattr(status.client, "CoreV1Api", lambda api: core)
    assert claims_of(None, "apps", pods) == expected
