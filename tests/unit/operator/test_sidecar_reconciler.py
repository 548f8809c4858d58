"""A pass of the sidecar, on a real volume with a real engine."""

import copy
import dataclasses
import itertools
import shutil
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
import uvicorn
from structlog.testing import capture_logs

from tests.unit.declared import HAD, OTHER_UID, UID, VOLUME, document
from tests.unit.recorded_disk import RecordedDisk
from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.api.server import create_app
from vecstow_engine.model.aliases import Alias
from vecstow_engine.model.manifest import ManagedBy
from vecstow_engine.service.engine import FINDINGS_SECONDS_MAX
from vecstow_engine.storage.aliases import change_aliases, read_aliases
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import read_manifest, write_manifest
from vecstow_engine.storage.trash import move_to_deleted
from vecstow_operator import observed
from vecstow_operator.health import Metrics
from vecstow_operator.kube import Away
from vecstow_operator.sidecar import reconciler
from vecstow_operator.sidecar.aliases import GRACE_SECONDS
from vecstow_operator.sidecar.collection_folders import CollectionFolders
from vecstow_operator.sidecar.reconciler import SidecarReconciler
from vecstow_operator.sidecar.reports import REVERTED_SECONDS, EngineClient, EngineRefuses

BORN = "2025-11-11T11:11:11.000Z"


class Cluster:
    """A stand-in for the API server, which tests/cluster has for real: complete lists, or Away."""

    def __init__(self):
        self.documents = []
        self.is_away = False
        self.asked_for = []
        self.definition_goes = False
        self._versions = itertools.count(1)

    def declare(self, documents):
        """Replace the resources, each by another version."""
        self.documents = list(documents)
        for each in self.documents:
            each["metadata"]["resourceVersion"] = str(next(self._versions))

    def definition_ends(self):
        return self.definition_goes

    def resources(self, engine):
        self.asked_for.append(engine)
        if self.is_away:
            raise Away("the API server says 503")
        return copy.deepcopy(self.documents)


class Beside:
    """A stand-in for the engine where a test checks only the reports to it."""

    def __init__(self):
        self.told = []

    def poke(self, reports):
        self.told.append(list(reports))


class Pod:
    """An engine pod: its volume, the sidecar, and the engine next to it."""

    def __init__(self, data, beside=None):
        self.layout = Layout(data)
        self.cluster = Cluster()
        self.metrics = Metrics()
        self.beside = beside or Beside()
        self.sidecar = SidecarReconciler(
            self.cluster, "vecstow", CollectionFolders(self.layout), self.beside, self.metrics
        )

    def declare(self, *documents):
        self.cluster.declare(documents)

    def run_pass(self, *, is_woken=True):
        self.sidecar.run_pass(is_woken=is_woken)

    @property
    def told(self):
        return self.beside.told

    @property
    def reasons(self):
        """Return the reasons in the last report to the engine."""
        return [finding.reason.value for finding in self.told[-1]]

    def manifest(self, name="notes"):
        return read_manifest(self.layout.collection(name))

    def edit(self, name="notes", **changes):
        write_manifest(self.layout.collection(name), dataclasses.replace(self.manifest(name), **changes))

    def put_data(self, name="notes"):
        self.edit(name, collection_uid=UID)
        (self.layout.collection(name) / "vectors.bin").write_bytes(b"x")

    def value(self, metric, **labels):
        return self.metrics.registry.get_sample_value(f"vecstow_operator_{metric}", labels)


@pytest.fixture
def pod(tmp_path):
    """A volume, and the sidecar alone."""
    return Pod(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as passes see them."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(reconciler, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def served(tmp_path):
    """An engine on the volume that serves over HTTP, and the sidecar next to it."""
    with RunningEngine(tmp_path / "data") as engine, socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(create_app(engine), log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        beside = EngineClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield engine, Pod(tmp_path / "data", beside)
        server.should_exit = True
        thread.join()


# With the engine -------------------------------------------------------------------------------------------


def test_declared_collection_is_served_after_one_pass(served):
    engine, pod = served
    pod.declare(document())
    pod.run_pass()
    wait_until(lambda: engine.collection_names() == ["notes"])
    [row] = engine.state_document()["collections"]
    assert (row["resource_uid"], row["generation"], row["state"]) == ("r-1", 1, "ready")
    assert pod.cluster.asked_for == ["vecstow"]


async def test_deleted_collection_is_moved_away_and_only_then_let_go(served):
    engine, pod = served
    resource = {"has_finalizer": True, "deletionPolicy": "Delete"}
    pod.declare(document(**resource))
    pod.run_pass()
    wait_until(lambda: engine.collection_names() == ["notes"])
    await engine.put(a=1)
    pod.declare(document(**resource, is_deleting=True))
    pod.run_pass()
    assert engine.findings == {"resources": []}
    wait_until(lambda: engine.collection_names() == [])
    assert [row["name"] for row in engine.catalog.deleted()] == ["notes"]
    pod.run_pass()
    [finding] = engine.findings["resources"]
    assert (finding["resource_uid"], finding["reason"]) == ("r-1", "Deleting")


async def test_deletion_during_a_hold_waits_for_its_end(served):
    """The copy that is made under it serves the collection."""
    engine, pod = served
    resource = {"has_finalizer": True, "deletionPolicy": "Delete"}
    pod.declare(document(**resource))
    pod.run_pass()
    wait_until(lambda: engine.collection_names() == ["notes"])
    await engine.put(a=1)
    engine.hold.begin(60)
    pod.declare(document(**resource, is_deleting=True))
    for _ in range(2):
        pod.run_pass()
    assert (pod.manifest().dropped_at, engine.findings) == (None, {"resources": []})
    assert pod.value("reconciles_total") == 1
    engine.hold.end()
    pod.run_pass()
    wait_until(lambda: engine.collection_names() == [])


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"{")], ids=["removed", "cut"])
async def test_manifest_that_is_written_anew_keeps_the_time_of_its_creation(served, harm):
    engine, pod = served
    pod.declare(document())
    pod.run_pass()
    wait_until(lambda: engine.collection_names() == ["notes"])
    await engine.put(a=1)
    pod.edit(created_at=BORN)
    pod.run_pass()
    wait_until(lambda: engine.collection("notes").manifest.created_at == BORN)
    uid = pod.manifest().collection_uid
    harm(pod.layout.collection("notes") / "metadata.json")
    pod.run_pass()
    wait_until(lambda: pod.manifest().collection_uid == uid)
    assert pod.manifest().created_at == BORN


async def test_engine_misses_the_data_that_the_sidecar_misses(served):
    engine, pod = served
    pod.declare(document(status=HAD))
    pod.run_pass()
    wait_until(lambda: engine.collection_names() == ["notes"])
    assert engine.collection("notes").state == "quarantined"
    [finding] = engine.findings["resources"]
    assert finding["reason"] == "VolumeReplaced"
    assert UID in finding["hint"]


async def test_an_alias_of_a_resource_is_served_and_moves_to_another_resource(served):
    engine, pod = served
    pod.declare(document("docs-1", "r-1", aliases=["docs"]), document("docs-2", "r-2"))
    pod.run_pass()
    wait_until(lambda: engine.registry.resolve("docs") == "docs-1")
    [first, _] = engine.state_document()["collections"]
    assert first["aliases"] == ["docs"]
    pod.declare(document("docs-1", "r-1"), document("docs-2", "r-2", aliases=["docs"]))
    pod.run_pass()
    wait_until(lambda: engine.registry.resolve("docs") == "docs-2")
    assert engine.findings == {"resources": []}


def test_an_alias_that_no_resource_claims_is_removed_after_a_minute(pod, clock):
    pod.declare(document("docs-1", "r-1", aliases=["docs"]))
    pod.run_pass()
    assert read_aliases(pod.layout).get("docs").resource_uid == "r-1"
    pod.declare(document("docs-1", "r-1"))
    pod.run_pass()
    clock.seconds += GRACE_SECONDS - 1
    pod.run_pass(is_woken=False)
    assert read_aliases(pod.layout).get("docs") is not None
    clock.seconds += 1
    pod.run_pass(is_woken=False)
    assert len(read_aliases(pod.layout)) == 0


def test_an_alias_that_is_claimed_again_in_time_begins_its_minute_again(pod, clock):
    for aliases in ([], ["docs"], []):
        pod.declare(document("docs-1", "r-1", aliases=["docs"]))
        pod.run_pass()
        pod.declare(document("docs-1", "r-1", aliases=aliases))
        pod.run_pass()
        clock.seconds += GRACE_SECONDS - 1
        pod.run_pass(is_woken=False)
        assert read_aliases(pod.layout).get("docs") is not None


def test_an_alias_edited_on_the_volume_is_as_declared_again(pod):
    pod.declare(document("docs-1", "r-1", aliases=["docs"]), document("docs-2", "r-2"))
    pod.run_pass()
    change_aliases(pod.layout, lambda table: table.with_alias(Alias("docs", "docs-2")))
    pod.run_pass()
    assert read_aliases(pod.layout).get("docs").collection == "docs-1"


def test_damaged_aliases_stay_as_they_are_and_are_reported(pod):
    pod.declare(document("docs-1", "r-1", aliases=["docs"]), document("docs-2", "r-2"))
    pod.layout.aliases.write_bytes(b"{")
    with capture_logs() as logs:
        for _ in range(2):
            pod.run_pass()
    assert [line["log_level"] for line in logs if line["event"].startswith("aliases")] == ["error"]
    assert pod.layout.aliases.read_bytes() == b"{"
    [report] = pod.told[-1]
    assert (report.resource_uid, report.reason) == ("r-1", "AliasRefused")
    assert pod.manifest("docs-2") is not None
    pod.layout.aliases.unlink()
    pod.run_pass()
    assert read_aliases(pod.layout).get("docs") is not None
    assert pod.told[-1] == []


def test_aliases_that_cannot_be_written_are_reported_and_tried_again(pod, monkeypatch):
    pod.declare(document("docs-1", "r-1", aliases=["docs"]))
    disk = RecordedDisk(monkeypatch)
    disk.fail("write aliases.json.tmp")
    pod.run_pass()
    assert pod.reasons == ["AliasRefused"]
    pod.run_pass()
    assert (pod.reasons, len(read_aliases(pod.layout))) == ([], 1)


def test_no_collection_is_made_under_the_name_of_an_alias(pod):
    pod.declare(document("docs-1", "r-1", aliases=["docs"]))
    pod.run_pass()
    pod.declare(document("docs-1", "r-1", aliases=["docs"]), document("docs", "r-2"))
    for _ in range(2):
        pod.run_pass()
        assert not pod.layout.collection("docs").exists()
        assert pod.reasons == ["Conflict"]
    pod.declare(document("docs-1", "r-1"), document("docs", "r-2"))
    change_aliases(pod.layout, lambda table: table.without("docs"))
    pod.run_pass()
    assert pod.manifest("docs").resource_uid == "r-2"


def test_what_the_sidecar_found_comes_out_of_the_engine_again(served):
    engine, pod = served
    pod.declare(document(), document("rival", "r-2", collectionName="notes"))
    pod.run_pass()
    assert engine.state_document()["findings"] == {
        "resources": [
            {
                "collection": "notes",
                "resource_uid": "r-2",
                "reason": "Conflict",
                "message": "collection 'notes' belongs to the resource 'notes'",
                "hint": "delete one of the two: kubectl delete vcol rival",
            }
        ]
    }


def test_engine_says_when_no_sidecar_has_reported_for_a_while(served):
    engine, pod = served
    pod.run_pass()
    assert engine.state_document()["findings_stale"] is False
    engine._refreshed_at -= FINDINGS_SECONDS_MAX + 1
    assert engine.state_document()["findings_stale"] is True
    pod.run_pass()
    assert engine.state_document()["findings_stale"] is False


def test_engine_that_is_away_holds_nothing_up(tmp_path):
    away = Pod(tmp_path, EngineClient("http://127.0.0.1:9"))
    away.declare(document())
    away.run_pass()
    assert away.manifest().resource_uid == "r-1"
    assert away.value("errors_total", source="engine") == 1


def test_engine_that_refuses_the_key_is_said_once_and_told_when_it_takes_it(tmp_path):
    class Refusing(Beside):
        refuses = True

        def poke(self, reports):
            if self.refuses:
                raise EngineRefuses("it says 401")
            super().poke(reports)

    pod = Pod(tmp_path, Refusing())
    pod.declare(document())
    with capture_logs() as lines:
        for _ in range(3):
            pod.run_pass()
        pod.beside.refuses = False
        pod.run_pass()
        pod.beside.refuses = True
        pod.run_pass()
    errors = [line for line in lines if line["log_level"] == "error"]
    assert [line["event"] for line in errors] == ["engine did not get the report"] * 2
    assert len(pod.told) == 1


# What a list says ------------------------------------------------------------------------------------------


def test_nothing_is_done_before_the_first_list(pod):
    pod.declare(document())
    pod.run_pass()
    pod.edit(owner="somebody")
    again = Pod(pod.layout.data)
    again.cluster.is_away = True
    again.run_pass()
    assert pod.manifest().owner == "somebody"
    assert (again.told, again.sidecar.knows_all) == ([], False)


def test_absence_is_concluded_from_a_complete_list(pod):
    pod.declare(document())
    pod.run_pass()
    pod.declare()
    pod.run_pass()
    assert (pod.manifest().managed_by, pod.manifest().resource_uid) == (ManagedBy.API, None)


def test_absence_is_not_concluded_while_the_api_server_is_away(pod):
    pod.declare(document())
    pod.run_pass()
    before = pod.manifest()
    pod.declare()
    pod.cluster.is_away = True
    for _ in range(3):
        pod.run_pass()
    assert pod.manifest() == before
    pod.cluster.is_away = False
    pod.run_pass()
    assert pod.manifest().managed_by is ManagedBy.API


def test_resource_that_goes_with_its_definition_drops_nothing(pod):
    pod.declare(document(deletionPolicy="Delete"))
    pod.run_pass()
    pod.put_data()
    pod.declare(document(deletionPolicy="Delete", is_deleting=True, has_finalizer=True))
    pod.cluster.definition_goes = True
    pod.run_pass()
    assert pod.manifest().dropped_at is None
    pod.cluster.definition_goes = False
    pod.run_pass()
    assert pod.manifest().dropped_at is not None


def test_while_the_api_server_is_away_drift_is_put_right_by_the_last_list(pod):
    pod.declare(document())
    pod.run_pass()
    pod.cluster.is_away = True
    pod.edit(owner="somebody")
    pod.run_pass()
    assert pod.manifest().owner is None
    (pod.layout.collection("notes") / "metadata.json").unlink()
    pod.run_pass()
    assert pod.manifest().resource_uid == "r-1"


def test_manifest_found_while_the_api_server_is_away_is_left_alone(pod):
    """The sidecar leaves it to REST when the API server answers, and has no resource for it."""
    pod.run_pass()
    pod.cluster.is_away = True
    pod.run_pass()
    other = Pod(pod.layout.data)
    other.declare(document())
    other.run_pass()
    pod.run_pass()
    assert pod.manifest().resource_uid == "r-1"
    pod.cluster.is_away = False
    pod.run_pass()
    assert pod.manifest().managed_by is ManagedBy.API


def test_list_is_made_at_least_every_half_minute(pod, clock):
    pod.run_pass(is_woken=False)
    clock.seconds += 29
    pod.run_pass(is_woken=False)
    assert len(pod.cluster.asked_for) == 1
    clock.seconds += 1
    pod.run_pass(is_woken=False)
    assert len(pod.cluster.asked_for) == 2


def test_list_is_made_when_woken_and_tried_each_time_while_away(pod, clock):
    pod.run_pass()
    pod.run_pass()
    assert len(pod.cluster.asked_for) == 2
    pod.cluster.is_away = True
    pod.run_pass()
    pod.run_pass(is_woken=False)
    assert len(pod.cluster.asked_for) == 4
    assert pod.value("errors_total", source="api_server") == 2


def test_every_resource_counts_whether_legal_or_not(pod):
    pod.declare(document(), document("bad", "r-2", dimension=0), document("wal", "r-3"))
    pod.run_pass()
    assert pod.reasons == ["Invalid", "Invalid"]
    assert pod.value("resources") == 3
    assert [path.name for path in pod.layout.data.iterdir() if path.is_dir()] == ["notes"]


# Once and again --------------------------------------------------------------------------------------------


def test_what_is_right_is_not_decided_again(pod, monkeypatch):
    pod.declare(document(), document("other", "r-2"))
    pod.run_pass()
    pod.run_pass()
    decided = []
    real = reconciler.decide
    monkeypatch.setattr(
        reconciler, "decide", lambda claims, *rest: decided.append(claims[0].name) or real(claims, *rest)
    )
    pod.run_pass()
    assert decided == []
    pod.edit("other", owner="somebody")
    pod.run_pass()
    assert set(decided) == {"other"}
    assert pod.value("reconciles_total") == 3


def test_version_of_a_resource_is_parsed_once(pod, monkeypatch):
    """However often it is listed, decided on and written."""
    parsed = []
    real = observed.parse_resource
    monkeypatch.setattr(
        observed, "parse_resource", lambda document, **how: parsed.append(document) or real(document, **how)
    )
    pod.declare(document(), document("bad", "r-2", dimension=0))
    for _ in range(3):
        pod.run_pass()
    pod.edit(owner="somebody")
    pod.run_pass()
    assert len(parsed) == 2
    pod.declare(document(generation=2))
    pod.run_pass()
    assert len(parsed) == 3


def test_findings_are_told_in_each_pass(pod):
    pod.declare(document("rival", "r-2", collectionName="notes"), document())
    for _ in range(3):
        pod.run_pass()
        assert pod.reasons == ["Conflict"]


def test_volume_that_no_engine_has_made_yet_is_waited_for(tmp_path):
    early = Pod(tmp_path / "data")
    early.declare(document())
    early.run_pass()
    assert early.told == []
    early.layout.data.mkdir()
    early.run_pass()
    assert early.manifest().resource_uid == "r-1"


# What can go wrong with the disk ---------------------------------------------------------------------------


def test_disk_that_refuses_a_manifest_is_a_finding_and_tried_again(pod, monkeypatch):
    disk = RecordedDisk(monkeypatch)
    disk.fail("write metadata.json.tmp", times=2)
    pod.declare(document())
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            pod.run_pass()
            assert pod.reasons == ["StorageFailed"]
            assert "the manifest cannot be written: writing the manifest" in pod.told[-1][0].message
    assert [line["event"] for line in logs] == ["manifest could not be changed"]
    pod.run_pass()
    assert pod.reasons == []
    assert pod.manifest().resource_uid == "r-1"
    assert pod.value("errors_total", source="volume") == 2


def test_failure_of_one_collection_holds_no_other_up(pod, monkeypatch):
    disk = RecordedDisk(monkeypatch)
    disk.fail("create metadata.json.tmp", times=1)
    pod.declare(document("a", "r-1"), document("b", "r-2"))
    pod.run_pass()
    assert [(finding.collection, finding.reason.value) for finding in pod.told[-1]] == [
        ("a", "StorageFailed")
    ]
    assert pod.manifest("b").resource_uid == "r-2"


@pytest.mark.parametrize("step", ["decision", "write"])
def test_unforeseen_error_of_one_collection_holds_no_other_up(pod, monkeypatch, step):
    """The status reports the error, and each pass tries again."""
    decide, calls = reconciler.decide, []

    def failing(claims, *others):
        if claims[0].name == "a":
            calls.append(1)
            if len(calls) > (step == "write"):
                raise KeyError("unforeseen")
        return decide(claims, *others)

    monkeypatch.setattr(reconciler, "decide", failing)
    pod.declare(document("a", "r-1"), document("b", "r-2"))
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            pod.run_pass()
            assert [(report.collection, report.reason.value) for report in pod.told[-1]] == [
                ("a", "StorageFailed")
            ]
    assert pod.manifest("b").resource_uid == "r-2"
    assert "KeyError" in pod.told[-1][0].message
    failed = [line["collection"] for line in logs if line["event"] == "manifest could not be changed"]
    assert failed == ["a"]
    assert pod.value("errors_total", source="operator") == 2
    monkeypatch.setattr(reconciler, "decide", decide)
    pod.run_pass()
    assert (pod.reasons, pod.manifest("a").resource_uid) == ([], "r-1")


def test_resource_that_cannot_be_parsed_holds_no_other_up(pod, monkeypatch):
    parse = observed.parse_resource

    def failing(document, **options):
        if document["metadata"]["name"] == "a":
            raise KeyError("unforeseen")
        return parse(document, **options)

    monkeypatch.setattr(observed, "parse_resource", failing)
    pod.declare(document("a", "r-1"), document("b", "r-2"))
    pod.run_pass()
    assert [(report.collection, report.reason.value) for report in pod.told[-1]] == [("a", "Invalid")]
    assert (pod.manifest("a"), pod.manifest("b").resource_uid) == (None, "r-2")


def test_volume_that_cannot_be_read_is_a_finding_of_each_resource(pod, monkeypatch):
    pod.declare(document("a", "r-1"), document("b", "r-2"))
    pod.run_pass()

    def look(self):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(CollectionFolders, "look", look)
    pod.run_pass()
    assert pod.reasons == ["StorageFailed", "StorageFailed"]
    assert pod.told[-1][0].message == "the volume cannot be read: [Errno 5] Input/output error"


# Evidence --------------------------------------------------------------------------------------------------


def damaged(pod):
    pod.declare(document())
    pod.run_pass()
    pod.put_data()
    pod.run_pass()
    (pod.layout.collection("notes") / "metadata.json").write_bytes(b"{")
    pod.run_pass()


def test_damaged_manifest_is_told_until_somebody_acknowledged_it(pod):
    damaged(pod)
    assert pod.manifest().resource_uid == "r-1"
    assert pod.reasons == ["ManifestSetAside"]
    pod.run_pass()
    [finding] = pod.told[-1]
    [evidence] = pod.layout.quarantine.iterdir()
    assert finding.message.endswith(f".quarantine/{evidence.name} has the old one")
    command, _, annotation = finding.hint.rpartition(" ")
    assert command.endswith("kubectl annotate --overwrite vcol notes")
    key, _, value = annotation.partition("=")
    pod.declare(document(annotations={key: value}))
    pod.run_pass()
    assert pod.reasons == []


def test_acknowledgement_of_another_evidence_does_not_count(pod):
    damaged(pod)
    pod.declare(document(annotations={"vecstow.dev/acknowledged": "notes-20250101T000000Z"}))
    pod.run_pass()
    assert pod.reasons == ["ManifestSetAside"]


def test_evidence_that_is_older_than_the_resource_is_not_of_its_manifest(pod):
    damaged(pod)
    pod.declare(document(uid="r-2", created_at="2999-01-01T00:00:00Z"))
    pod.run_pass()
    assert pod.reasons == []


def test_drift_is_told_for_a_while_and_each_time_in_other_words(pod, clock):
    pod.declare(document())
    pod.run_pass()
    pod.edit(owner="somebody")
    for _ in range(2):
        pod.run_pass()
        assert pod.reasons == ["DriftReverted"]
    assert "by another program or a person (owner)" in pod.told[-1][0].message
    clock.seconds += REVERTED_SECONDS
    pod.run_pass()
    assert pod.reasons == []


def replaces(pod, **resource):
    """Another collection moves to `.deleted/` for the resource; returns the annotations that ask for it."""
    pod.layout.volume_id.write_text(VOLUME)
    pod.declare(document())
    pod.run_pass()
    pod.put_data()
    leave = {"vecstow.dev/replace": UID}
    pod.declare(document(uid="r-2", dimension=5, annotations=leave, **resource))
    pod.run_pass()
    assert pod.manifest().dropped_at is not None
    move_to_deleted(pod.layout, "notes", UID)
    return leave


def test_replaced_collection_is_told_while_the_leave_stands(pod):
    leave = replaces(pod)
    pod.run_pass()
    assert pod.manifest().dimension == 5
    assert pod.reasons == ["Replaced"]
    [folder] = pod.layout.deleted.iterdir()
    assert f"(4, Euclidean, Float32) moved to .deleted/{folder.name}" in pod.told[-1][0].message
    pod.declare(document(uid="r-2", dimension=5))
    pod.run_pass()
    assert (leave, pod.reasons) == ({"vecstow.dev/replace": UID}, [])


def test_what_was_dropped_before_the_resource_came_it_has_not_replaced(pod):
    leave = replaces(pod)
    pod.declare(document(uid="r-3", dimension=5, annotations=leave, created_at="2999-01-01T00:00:00Z"))
    pod.run_pass()
    assert pod.reasons == []


def test_leave_that_was_used_does_not_reach_the_next_collection_of_the_name(pod):
    leave = replaces(pod)
    pod.declare(document())
    pod.run_pass()
    pod.edit(collection_uid=OTHER_UID)
    (pod.layout.collection("notes") / "vectors.bin").write_bytes(b"x")
    pod.declare(document(uid="r-4", dimension=5, annotations=leave))
    pod.run_pass()
    assert pod.reasons == ["Conflict"]
    assert pod.manifest().dropped_at is None


def test_evidence_that_somebody_took_away_is_told_no_more(pod):
    damaged(pod)
    [evidence] = pod.layout.quarantine.iterdir()
    shutil.rmtree(evidence)
    pod.run_pass()
    assert pod.reasons == []
