"""What the plugin changes: exactly the object that it looked at, and only where there is something to do."""

from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tests.unit.declared import HAD, OTHER_UID, UID, claim, document, engine_of, pod, row_of
from vecstow_operator.kube import Changed
from vecstow_operator.plugin import cli
from vecstow_operator.plugin.survey import Survey
from vecstow_operator.vocabulary import FINALIZER

RESOURCE = claim(status=HAD)
LOST = {"state": "quarantined", "vector_count": 0}


@pytest.fixture
def plugin(monkeypatch):
    """Run a command on a namespace as it is surveyed; `patched` has what was changed."""
    seen = SimpleNamespace(documents=[], engines={}, patched=[], is_changed=False)

    def patch_metadata(*patch):
        if seen.is_changed:
            raise Changed("409 Conflict")
        seen.patched.append(patch)

    cluster = SimpleNamespace(patch_metadata=patch_metadata)
    monkeypatch.setattr(
        cli, "_look", lambda *_: (None, "apps", Survey(cluster, seen.documents, seen.engines))
    )
    seen.run = lambda *arguments: CliRunner().invoke(cli.app, arguments)
    return seen


def refusal(result):
    assert isinstance(result.exception, cli.Refused)
    return str(result.exception)


@pytest.mark.parametrize(
    ("engines", "accepted"),
    [
        pytest.param({}, UID, id="by the status, while no engine answers"),
        pytest.param({"vecstow": engine_of(pod(row_of(RESOURCE, **LOST)))}, UID, id="by both"),
        pytest.param(
            {"vecstow": engine_of(pod(row_of(RESOURCE, collection_uid=OTHER_UID, **LOST)))}, OTHER_UID,
            id="by the manifest, which was repaired while no manager ran",
        ),
    ],
)  # fmt: skip
def test_loss_is_accepted_of_the_incarnation_that_the_sidecar_misses(plugin, engines, accepted):
    plugin.documents, plugin.engines = [document(status=HAD)], engines
    assert plugin.run("accept-empty", "notes").exit_code == 0
    assert plugin.patched == [("notes", "r-1", "1", {"annotations": {"vecstow.dev/accept-empty": accepted}})]


@pytest.mark.parametrize(
    ("status", "engines", "why"),
    [
        pytest.param({}, {}, "never had vectors", id="never had any"),
        pytest.param(HAD, {"vecstow": engine_of(pod(row_of(RESOURCE)))}, "is served", id="served"),
    ],
)
def test_no_loss_is_accepted_before_there_is_one(plugin, status, engines, why):
    """The next one would be hidden."""
    plugin.documents, plugin.engines = [document(status=status)], engines
    assert refusal(plugin.run("accept-empty", "notes")) == (
        f"vectorcollection/notes {why}: there is no loss to accept"
    )
    assert plugin.patched == []


def test_release_takes_our_finalizer_alone(plugin):
    ours = document(has_finalizer=True)
    ours["metadata"]["finalizers"].append("example.com/other")
    plugin.documents = [ours, document("without", "r-2")]
    assert plugin.run("release", "--all").output == "vectorcollection/notes released\n"
    assert plugin.patched == [("notes", "r-1", "1", {"finalizers": ["example.com/other"]})]
    assert FINALIZER in ours["metadata"]["finalizers"]


def test_resource_that_changed_meanwhile_is_left_as_it_is(plugin):
    plugin.documents, plugin.is_changed = [document(status=HAD)], True
    assert refusal(plugin.run("accept-empty", "notes")) == (
        "vectorcollection/notes changed meanwhile (409 Conflict): try again"
    )
