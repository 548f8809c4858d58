"""The plugin changes exactly the object that it looked at, and only where there is something to do."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from kubernetes.client.exceptions import ApiException
from typer.testing import CliRunner

from tests.unit.declared import (
    HAD,
    OTHER_UID,
    UID,
    claim,
    document,
    engine_of,
    manifest_of,
    pod,
    report,
    state_of,
)
from vecstow_engine.model.manifest import manifest_document
from vecstow_operator.kube import Changed
from vecstow_operator.plugin import cli, resources
from vecstow_operator.plugin.session import NoAnswer, Refused, Session
from vecstow_operator.plugin.verifying import repaired
from vecstow_operator.vocabulary import FINALIZER, Reason

RESOURCE = claim(status=HAD)
LOST = {"state": "quarantined", "vector_count": 0}


@pytest.fixture
def plugin(monkeypatch):
    """Run a command on a namespace as it is surveyed; `patched` has what was changed."""
    seen = SimpleNamespace(
        documents=[],
        engines={},
        proxies={},
        refusals=[],
        patched=[],
        created=[],
        refused=set(),
        is_changed=False,
    )

    def patch_metadata(*patch):
        if seen.is_changed:
            raise Changed("409 Conflict")
        seen.patched.append(patch)

    def create(*where_and_what, field_manager):
        resource = where_and_what[-1]
        if resource["metadata"]["name"] in seen.refused:
            raise ApiException(status=409, reason="Conflict")
        seen.created.append(resource)

    def opened(*_):
        return Session(None, "apps", cluster, seen.documents, seen.engines, seen.proxies, seen.refusals)

    cluster = SimpleNamespace(patch_metadata=patch_metadata)
    objects = SimpleNamespace(create_namespaced_custom_object=create)
    monkeypatch.setattr(Session, "open", opened)
    monkeypatch.setattr("vecstow_operator.plugin.status.missing_manager", lambda *_: None)
    monkeypatch.setattr(resources.client, "CustomObjectsApi", lambda api: objects)
    seen.run = lambda *arguments: CliRunner().invoke(cli.app, arguments)
    return seen


def refusal(result):
    assert isinstance(result.exception, Refused)
    return str(result.exception)


def missing(uid):
    """An engine that misses the data of that incarnation, and its sidecar says so."""
    told = {RESOURCE.uid: (report(Reason.DATA_MISSING, "it is gone"),)}
    return engine_of(pod(state_of(RESOURCE, collection_uid=uid, **LOST), reports=told))


@pytest.mark.parametrize(
    "accepted",
    [
        pytest.param(UID, id="as the status has it"),
        pytest.param(OTHER_UID, id="by the manifest, which was repaired while no manager ran"),
    ],
)
def test_loss_is_accepted_of_the_incarnation_that_the_sidecar_misses(plugin, accepted):
    plugin.documents, plugin.engines = [document(status=HAD)], {"vecstow": missing(accepted)}
    assert plugin.run("accept-empty", "notes").exit_code == 0
    assert plugin.patched == [("notes", "r-1", "1", {"annotations": {"vecstow.dev/accept-empty": accepted}})]


DAMAGED = state_of(RESOURCE, state="quarantined", reason="points.db: a wrong sum", vector_count=0)


@pytest.mark.parametrize(
    ("status", "engines", "why"),
    [
        pytest.param({}, {}, "never had vectors: there is no loss to accept", id="never had any"),
        pytest.param(
            HAD, {"vecstow": engine_of(pod(state_of(RESOURCE)))},
            "has no loss to accept: Served: served by vecstow", id="served",
        ),
        pytest.param(
            HAD, {"vecstow": engine_of(pod(DAMAGED))},
            "has no loss to accept: Quarantined: points.db: a wrong sum; "
            "kubectl vecstow repair notes --dry-run",
            id="damaged: it can be repaired",
        ),
        pytest.param(
            HAD, {}, "has no loss to accept: EngineMissing: no engine 'vecstow' is in this namespace",
            id="no engine says what is lost",
        ),
    ],
)  # fmt: skip
def test_no_loss_is_accepted_before_there_is_one(plugin, status, engines, why):
    """The next one would be hidden."""
    plugin.documents, plugin.engines = [document(status=status)], engines
    assert refusal(plugin.run("accept-empty", "notes")) == f"vectorcollection/notes {why}"
    assert plugin.patched == []


def test_release_takes_our_finalizer_alone(plugin):
    ours = document(has_finalizer=True)
    ours["metadata"]["finalizers"].append("example.com/other")
    plugin.documents = [ours, document("without", "r-2")]
    assert plugin.run("release", "--all").output == "vectorcollection/notes released\n"
    assert plugin.patched == [("notes", "r-1", "1", {"finalizers": ["example.com/other"]})]
    assert FINALIZER in ours["metadata"]["finalizers"]


def test_resource_that_changed_meanwhile_is_left_as_it_is(plugin):
    plugin.documents, plugin.engines, plugin.is_changed = (
        [document(status=HAD)],
        {"vecstow": missing(UID)},
        True,
    )
    assert refusal(plugin.run("accept-empty", "notes")) == (
        "vectorcollection/notes changed meanwhile (409 Conflict): try again"
    )


# Adoption --------------------------------------------------------------------------------------------------


class Proxy:
    """An engine whose collections all have four dimensions, but for those that it cannot describe."""

    def __init__(self, *damaged):
        self.damaged = damaged

    def call(self, method, *path):
        name = path[-1]
        if name in self.damaged:
            raise NoAnswer(f"pod vecstow-0: collection {name!r} is quarantined: not valid JSON")
        return manifest_document(manifest_of(claim(collectionName=name))) | {"aliases": ["second"]}


def orphans_of(plugin, engine, *names, damaged=()):
    rows = [state_of(claim(collectionName=name), resource_uid=None) for name in names]
    plugin.engines[engine] = dataclasses.replace(engine_of(pod(*rows)), name=engine)
    plugin.proxies[engine] = Proxy(*damaged)


def names(plugin):
    return [resource["metadata"]["name"] for resource in plugin.created]


def test_orphan_that_cannot_be_described_keeps_no_other_from_being_adopted(plugin):
    orphans_of(plugin, "vecstow", "a", "bad", "z", damaged=["bad"])
    result = plugin.run("adopt")
    assert (result.exit_code, names(plugin)) == (1, ["a", "z"])
    assert result.stdout == "vectorcollection/a made\nvectorcollection/z made\n"
    assert result.stderr == (
        "error: collection 'bad' of engine 'vecstow' is not adopted: "
        "pod vecstow-0: collection 'bad' is quarantined: not valid JSON\n"
    )


def test_resource_of_an_orphan_declares_the_aliases_that_it_has(plugin):
    orphans_of(plugin, "vecstow", "a")
    assert plugin.run("adopt").exit_code == 0
    assert plugin.created[0]["spec"]["aliases"] == ["second"]


def test_orphan_whose_resource_is_refused_keeps_no_other_from_being_adopted(plugin):
    orphans_of(plugin, "vecstow", "a", "bad", "z")
    plugin.refused = {"bad"}
    result = plugin.run("adopt")
    assert (result.exit_code, names(plugin)) == (1, ["a", "z"])
    assert "vectorcollection/bad is not made: the API server says 409 Conflict" in result.stderr


def test_adoption_of_all_is_a_success(plugin):
    orphans_of(plugin, "vecstow", "a", "z")
    assert plugin.run("adopt", "--dry-run").exit_code == 0
    assert names(plugin) == []
    assert plugin.run("adopt").exit_code == 0
    assert names(plugin) == ["a", "z"]


@pytest.mark.parametrize("collection", ["notes", "Mixed_Case"])
def test_each_of_three_engines_gets_a_resource_of_its_own(plugin, collection):
    for engine in ("one", "two", "three"):
        orphans_of(plugin, engine, collection)
    assert plugin.run("adopt").exit_code == 0
    assert len(set(names(plugin))) == 3
    assert {resource["spec"]["engine"] for resource in plugin.created} == {"one", "two", "three"}
    wanted = [r["spec"].get("collectionName", r["metadata"]["name"]) for r in plugin.created]
    assert wanted == [collection] * 3


# Status ----------------------------------------------------------------------------------------------------

DAMAGED = {"state": "quarantined"}
IN_PART = {"state": "degraded"}
FULL = None
"""The engine serves it, and its volume is full."""
PAUSED = claim(generation=2, status=HAD, paused=True)
"""The engine follows the generation before."""


@pytest.mark.parametrize(
    ("resources", "row", "reason", "command"),
    [
        pytest.param([RESOURCE], state_of(RESOURCE), "Served", None, id="served"),
        pytest.param([RESOURCE], state_of(RESOURCE, **DAMAGED), "Quarantined", "repair", id="damaged"),
        pytest.param(
            [RESOURCE], state_of(RESOURCE, **IN_PART), "PointsWithheld", "repair", id="points withheld"
        ),
        pytest.param([PAUSED], state_of(PAUSED, generation=1), "Paused", None, id="paused, and served"),
        pytest.param(
            [PAUSED], state_of(PAUSED, generation=1, **DAMAGED), "Quarantined", "repair",
            id="paused, and damaged",
        ),
        pytest.param(
            [PAUSED], state_of(PAUSED, generation=1, collection_uid=None), "DataMissing", "look",
            id="paused, and its data gone",
        ),
        pytest.param([PAUSED], state_of(RESOURCE, resource_uid=None), "Pending", None, id="paused early"),
        pytest.param([], state_of(RESOURCE), "Orphan", "adopt", id="an orphan"),
        pytest.param([], state_of(RESOURCE, **DAMAGED), "Quarantined", "repair", id="orphan, damaged"),
        pytest.param([], state_of(RESOURCE, **IN_PART), "PointsWithheld", "repair", id="in part"),
        pytest.param([], state_of(RESOURCE, state="foreign"), "Foreign", None, id="orphan, foreign"),
        pytest.param(
            [RESOURCE], FULL, "VolumeFull", "cleanup", id="a full volume"
        ),
        pytest.param([], FULL, "VolumeFull", "cleanup", id="orphan, full volume"),
    ],
)  # fmt: skip
def test_status_is_a_success_when_all_is_served_whole(plugin, resources, row, reason, command):
    plugin.documents = [
        document(r.name, r.uid, generation=r.generation, status=HAD, paused=r.is_paused) for r in resources
    ]
    plugin.engines = {"vecstow": engine_of(pod(row or state_of(RESOURCE), is_full=row is FULL))}
    result = plugin.run("status", "--json")
    [line] = json.loads(result.stdout)
    assert line["reason"] == reason
    assert result.exit_code == (0 if reason in ("Served", "Paused", "Orphan") else 1)
    assert (
        line["next_command"]
        == {
            None: None,
            "repair": "kubectl vecstow repair -n apps notes --dry-run",
            "adopt": "kubectl vecstow adopt -n apps notes",
            "look": "kubectl describe pvc -n apps",
            "cleanup": "kubectl vecstow cleanup -n apps",
        }[command]
    )


@pytest.mark.parametrize("command", ["status", "adopt"])
def test_an_engine_that_wants_a_key_is_not_said_to_be_away(plugin, command):
    plugin.refusals.append("pod vecstow-0: a key is needed")
    assert refusal(plugin.run(command)) == "pod vecstow-0: a key is needed"


# Copies ----------------------------------------------------------------------------------------------------

DROPPED = [
    {"name": "old", "path": ".deleted/old-1", "deleted_timestamp": 1767225600.0, "age_hours": 30.04},
    {"name": "new", "path": ".deleted/new-2", "deleted_timestamp": 1767322800.0, "age_hours": 3.0},
]
ANSWERS = {
    "backup": {"collection": "Notes", "backup_path": ".backups/Notes-1", "message": "backed up"},
    "restore": {"name": "again", "message": "restored"},
    "deleted": DROPPED,
    "cleanup": ["old"],
    "compact": {"bytes_before": 2_000_000, "bytes_after": 1000, "progress": None},
}


@pytest.fixture
def asked(plugin):
    """Record the requests to the engine of the resource `notes`, whose collection is `Notes`."""
    calls = []

    def call(method, *path, body=None):
        calls.append((method, "/".join(path), body))
        return ANSWERS[path[-1]]

    plugin.documents = [document(collectionName="Notes")]
    plugin.proxies["vecstow"] = SimpleNamespace(call=call, pod="vecstow-0")
    return calls


@pytest.mark.parametrize(
    ("arguments", "request_sent", "said"),
    [
        pytest.param(
            ["backup", "notes"], ("POST", "collections/Notes/backup", None),
            "Notes is copied to .backups/Notes-1\n", id="backup",
        ),
        pytest.param(
            ["restore", ".backups/Notes-1"],
            ("POST", "collections/restore", {"backup_path": ".backups/Notes-1"}),
            "again: restored\n", id="restore",
        ),
        pytest.param(
            ["restore", ".deleted/x", "--new-name", "again"],
            ("POST", "collections/restore", {"backup_path": ".deleted/x", "new_name": "again"}),
            "again: restored\n", id="restore under another name",
        ),
        pytest.param(
            ["deleted"], ("GET", "collections/deleted", None),
            "NAME   DELETED                AGE IN HOURS   PATH\n"
            "old    2026-01-01 00:00:00Z   30.0           .deleted/old-1\n"
            "new    2026-01-02 03:00:00Z   3.0            .deleted/new-2\n",
            id="deleted",
        ),
        pytest.param(
            ["cleanup"], ("POST", "collections/cleanup", {"retention_hours": 24.0}),
            "old is removed\n", id="cleanup",
        ),
        pytest.param(
            ["cleanup", "--dry-run", "--retention-hours", "3"], ("GET", "collections/deleted", None),
            "old would be removed\nnew would be removed\n", id="cleanup, not yet",
        ),
        pytest.param(
            ["compact", "notes"], ("POST", "collections/Notes/compact", None),
            "Notes: 2,000,000 bytes before, 1,000 after\n", id="compact",
        ),
    ],
)  # fmt: skip
def test_copies_are_the_engines_work(plugin, asked, arguments, request_sent, said):
    result = plugin.run(*arguments)
    assert (result.exit_code, result.output) == (0, said)
    assert asked == [request_sent]
    if "--dry-run" not in arguments:
        assert json.loads(plugin.run(*arguments, "--json").stdout) == ANSWERS[request_sent[1].split("/")[-1]]


@pytest.mark.parametrize("command", ["deleted", "cleanup", "restore"])
def test_an_engine_must_be_named_where_there_are_two(plugin, asked, command):
    plugin.proxies["other"] = plugin.proxies["vecstow"]
    arguments = [command, *(["x"] if command == "restore" else [])]
    assert refusal(plugin.run(*arguments)) == "there are 2 engines with pods; say --engine NAME"
    assert asked == []
    assert plugin.run(*arguments, "--engine", "other").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["deleted"], "nothing was dropped\n", id="deleted"),
        pytest.param(["cleanup"], "nothing was dropped 24 hours ago or earlier\n", id="cleanup"),
    ],
)
def test_nothing_dropped_is_a_success(plugin, monkeypatch, asked, arguments, said):
    monkeypatch.setitem(ANSWERS, arguments[0], [])
    result = plugin.run(*arguments)
    assert (result.exit_code, result.output) == (0, said)


# Repair ----------------------------------------------------------------------------------------------------


def told_of_repair(counted, **plan):
    whole = {"steps": [], "warnings": [], "hint": None, "lost": 0, "lost_records": 0, "summary": None}
    whole |= {"kept": 0, "restored": 0}
    answer = {"outcome": "repaired", "quarantine": None, "plan": whole | plan}
    return list(repaired("notes", answer, "-n apps vecstow-0 -c engine", counted))


def test_repair_says_how_many_points_of_the_last_count_are_missing():
    assert told_of_repair(
        2510, kept=2000, restored=10, lost_records=1,
        summary="2,000 points kept, 10 from the log, 1 log record lost (sequence 4)",
    ) == [
        "notes: repaired: 2,000 points kept, 10 from the log, 1 log record lost (sequence 4)",
        "notes: 500 of the 2510 points that were counted last are missing",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("counted", "plan", "line"),
    [
        pytest.param(2, {"kept": 2, "summary": "2 points kept"}, "2 points kept", id="all are there"),
        pytest.param(None, {"kept": 2, "summary": "2 points kept"}, "2 points kept", id="nobody counted"),
        pytest.param(7, {}, "no point is touched", id="only the manifest"),
    ],
)
def test_repair_that_lost_nothing_says_so(counted, plan, line):
    assert told_of_repair(counted, **plan) == [f"notes: repaired: {line}"]
