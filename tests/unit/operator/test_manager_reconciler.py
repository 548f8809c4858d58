"""A pass of the manager: what it writes to the API server, and what it leaves."""

import copy
import dataclasses
import datetime
import itertools
import threading
from types import SimpleNamespace

import pytest
import structlog

from tests.unit.declared import HAD, OTHER_UID, UID, claim, document, engine_of, pod, report, state_of
from vecstow_operator.cli import MANAGER_TICK_SECONDS as TICK_SECONDS
from vecstow_operator.health import Metrics
from vecstow_operator.kube import LIST_SECONDS_MAX, Away, Changed, Silent
from vecstow_operator.manager import reconciler, writer
from vecstow_operator.manager.decision import PENDING_SECONDS
from vecstow_operator.manager.engines import ABSENCE_SECONDS, orphans
from vecstow_operator.manager.events import LASTING_SECONDS
from vecstow_operator.manager.reconciler import LOOKS_PER_SECOND_MAX, WRITE_BACKOFF, ManagerReconciler
from vecstow_operator.manager.status import COUNT_SECONDS_MIN
from vecstow_operator.manager.writer import WRITES_AT_ONCE
from vecstow_operator.vocabulary import FINALIZER, Annotation, Reason


class Cluster:
    """A stand-in for the API server, which tests/cluster has for real: it keeps what is written."""

    namespace = "apps"

    def __init__(self):
        self.documents = {}
        self.lists = 0
        self.ends = False
        self.definition_goes = False
        self.is_away = False
        self.foreign = {}
        """Fields of a status that another field manager owns."""
        self.changed = set()
        """Names of resources that are not any more as they were read."""
        self.write = lambda name: None
        """Called with the name of each resource that is to be changed: it may raise."""
        self.log = []
        self.events = []
        self.messages = []
        self.post = lambda: None
        """Called before each event: it may raise."""
        self._versions = itertools.count(1)

    def declare(self, *documents):
        self.documents = {document["metadata"]["name"]: document for document in documents}
        for name in self.documents:
            self.edit(name)

    def edit(self, name="notes"):
        """A document to change: from now on it is of another version."""
        self.documents[name]["metadata"]["resourceVersion"] = str(next(self._versions))
        return self.documents[name]

    def resources(self, engine=None):
        self.lists += 1
        if self.is_away:
            raise Away("the API server says 503")
        return copy.deepcopy(list(self.documents.values()))

    def stateful_sets(self):
        return []

    def pods(self):
        return []

    def namespace_ends(self):
        if self.is_away:
            raise Away("the API server says 503")
        return self.ends

    def definition_ends(self):
        return self.definition_goes

    def apply_status(self, name, resource_version, status):
        self._write("status", name)
        if self.documents[name].get("status", {}) == (wanted := dict(status) | self.foreign):
            return None
        self.edit(name)["status"] = wanted
        return copy.deepcopy(self.documents[name])

    def patch_metadata(self, name, uid, resource_version, changed):
        self._write(",".join(changed), name)
        self.edit(name)["metadata"] |= changed

    def post_event(self, event):
        self.post()
        self.events.append((event.involved_object.name, event.reason))
        self.messages.append(event.message)

    def _write(self, what, name):
        self.write(name)
        if name in self.changed:
            raise Changed("409 Conflict")
        self.log.append((what, name))

    def finalizers(self, name="notes"):
        return self.documents[name]["metadata"].get("finalizers", [])

    def reason(self, name="notes"):
        return self.documents[name]["status"]["conditions"][0]["reason"]


class Poller:
    """Stands in for the engines: they are as a test says."""

    def __init__(self):
        self.engine = None

    def views(self, stateful_sets, pods):
        return {"vecstow": self.engine} if self.engine is not None else {}

    def close(self):
        """Nothing to end."""


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=1000.0)

    def sleep(seconds):
        now.seconds += seconds

    def rfc3339(seconds=0.0):
        begun = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        moment = begun + datetime.timedelta(seconds=now.seconds + seconds)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    time = SimpleNamespace(monotonic=lambda: now.seconds, sleep=sleep)
    for module in (reconciler, writer):
        monkeypatch.setattr(module, "time", time)
    monkeypatch.setattr(reconciler, "_rfc3339", rfc3339)
    return now


@pytest.fixture
def manager(clock):
    cluster, poller, stopped = Cluster(), Poller(), threading.Event()
    metrics = Metrics()
    role = ManagerReconciler(cluster, poller, metrics, TICK_SECONDS, stopped)
    yield SimpleNamespace(
        cluster=cluster, poller=poller, clock=clock, role=role, stopped=stopped, metrics=metrics,
        run_pass=lambda *, is_woken=True: role.run_pass(is_woken=is_woken),
    )  # fmt: skip
    role.close()


def pass_for(manager, seconds):
    """Passes by the clock until then."""
    until = manager.clock.seconds + seconds
    while manager.clock.seconds < until:
        manager.clock.seconds = min(until, manager.clock.seconds + TICK_SECONDS)
        manager.run_pass(is_woken=False)


def refuse(refused):
    """The first `refused` changes get a 429."""

    def write(name):
        if refused:
            refused.pop()
            raise Away("the API server says 429")

    return write


def serve(manager, **changes):
    """The engine serves the resources as they are declared."""
    rows = [state_of(claim(d["metadata"]["name"], d["metadata"]["uid"]), **changes)
            for d in manager.cluster.documents.values()]  # fmt: skip
    manager.poller.engine = engine_of(pod(*rows))


DELETE = {"deletionPolicy": "Delete"}
LEAVING = DELETE | {"is_deleting": True, "has_finalizer": True}


def test_status_is_written_once(manager):
    manager.cluster.declare(document())
    serve(manager)
    for _ in range(3):
        manager.run_pass()
    assert manager.cluster.log == [("status", "notes")]
    assert manager.cluster.events == [("notes", "Ready")]
    assert manager.cluster.reason() == "Served"


def test_what_another_holds_of_a_status_is_not_fought_over(manager):
    manager.cluster.foreign = {"replicas": [{"pod": "restored-0"}]}
    manager.cluster.declare(document())
    serve(manager)
    for _ in range(5):
        manager.run_pass()
    assert manager.cluster.log == [("status", "notes")] * 2
    assert manager.cluster.events == [("notes", "Ready")]


def test_condition_of_another_costs_no_patch(manager):
    manager.cluster.declare(document())
    serve(manager)
    manager.run_pass()
    conditions = manager.cluster.edit()["status"]["conditions"]
    conditions.insert(1, conditions[0] | {"type": "Audited"})
    manager.run_pass()
    assert manager.cluster.log == [("status", "notes")]


def test_steady_writes_are_one_patch_a_minute(manager):
    manager.cluster.declare(document())
    serve(manager)
    manager.run_pass()
    for second in range(1, 121):
        manager.clock.seconds += 1
        serve(manager, vector_count=7 + second, indexed=7)
        manager.run_pass()
    assert manager.cluster.log == [("status", "notes")] * 3


def test_time_of_the_look_is_refreshed_about_once_a_minute(manager):
    manager.cluster.declare(document())
    serve(manager)
    manager.run_pass()
    first = manager.cluster.documents["notes"]["status"]["observedAt"]
    pass_for(manager, COUNT_SECONDS_MIN)
    assert manager.cluster.log == [("status", "notes")]
    pass_for(manager, 4 * COUNT_SECONDS_MIN)
    assert 4 <= len(manager.cluster.log) <= 5
    assert manager.cluster.documents["notes"]["status"]["observedAt"] > first


def test_time_of_the_look_is_refreshed_less_often_with_many_resources(manager):
    count = int(2 * COUNT_SECONDS_MIN * LOOKS_PER_SECOND_MAX)
    manager.cluster.declare(*(document(f"notes-{n}", f"r-{n}") for n in range(count)))
    serve(manager)
    manager.run_pass()
    pass_for(manager, 2 * COUNT_SECONDS_MIN)
    assert len(manager.cluster.log) == count
    pass_for(manager, 2 * TICK_SECONDS)
    assert len(manager.cluster.log) == 2 * count


def test_time_of_the_look_at_a_paused_resource_is_refreshed(manager):
    manager.cluster.declare(document(generation=1))
    serve(manager)
    manager.run_pass()
    manager.cluster.edit()["spec"]["paused"] = True
    manager.run_pass()
    pass_for(manager, 2 * COUNT_SECONDS_MIN)
    assert 2 <= len(manager.cluster.log) <= 4


def test_new_resource_is_given_a_moment_before_it_is_called_pending(manager):
    manager.cluster.declare(document())
    manager.poller.engine = engine_of(pod())
    manager.run_pass()
    manager.clock.seconds += PENDING_SECONDS
    assert manager.cluster.log == []
    manager.run_pass()
    assert manager.cluster.reason() == "Pending"


def test_edit_that_is_followed_soon_never_takes_ready_away(manager):
    """A client that waits for the edit reads observedGeneration, which is the old one until then."""
    manager.cluster.declare(document())
    serve(manager)
    manager.run_pass()
    before = manager.cluster.documents["notes"]["status"]
    manager.clock.seconds += 60
    manager.cluster.declare(document(generation=2, status=before))
    manager.run_pass()
    manager.clock.seconds += PENDING_SECONDS - 1
    manager.run_pass()
    assert manager.cluster.documents["notes"]["status"] == before
    serve(manager, generation=2)
    manager.run_pass()
    assert manager.cluster.log == [("status", "notes")] * 2
    assert manager.cluster.documents["notes"]["status"]["observedGeneration"] == 2


def test_resources_that_are_not_ready_are_counted_by_their_reason(manager):
    def counted(reason):
        return manager.metrics.registry.get_sample_value("vecstow_operator_not_ready", {"reason": reason})

    manager.cluster.declare(document())
    serve(manager, state="quarantined")
    manager.run_pass()
    assert (counted("Quarantined"), counted("DataMissing")) == (1, 0)
    serve(manager)
    manager.run_pass()
    assert counted("Quarantined") == 0


def test_edit_that_is_not_followed_is_told(manager):
    manager.cluster.declare(document())
    serve(manager)
    manager.run_pass()
    manager.cluster.edit()["metadata"]["generation"] = 2
    manager.run_pass()
    manager.clock.seconds += PENDING_SECONDS
    manager.run_pass()
    assert manager.cluster.reason() == "Pending"


def test_pause_is_told_at_once(manager):
    manager.cluster.declare(document())
    serve(manager)
    manager.run_pass()
    manager.cluster.declare(
        document(generation=2, paused=True, status=manager.cluster.documents["notes"]["status"])
    )
    manager.run_pass()
    paused = manager.cluster.documents["notes"]["status"]["conditions"][4]
    assert (paused["type"], paused["status"]) == ("Paused", "True")


def test_short_wait_is_no_event_and_a_long_one_is_one(manager):
    manager.cluster.declare(document())
    serve(manager)
    manager.run_pass()
    for seconds in (LASTING_SECONDS - 1, LASTING_SECONDS):
        manager.poller.engine = engine_of(pod())
        manager.run_pass()
        manager.clock.seconds += seconds
        for _ in range(3):
            manager.run_pass()
        serve(manager)
        manager.run_pass()
    assert manager.cluster.events == [("notes", "Ready"), ("notes", "NotReady"), ("notes", "Ready")]


def waiting(manager, count):
    """So many resources wait for so long that people are to hear of it in the next pass."""
    manager.cluster.declare(*(document(f"a-{n}", f"r-{n}") for n in range(count)))
    serve(manager)
    manager.run_pass()
    manager.poller.engine = engine_of(pod())
    manager.run_pass()
    manager.clock.seconds += PENDING_SECONDS
    manager.run_pass()
    manager.clock.seconds += LASTING_SECONDS
    manager.cluster.events.clear()


def test_loop_beats_while_long_waits_are_told(manager, monkeypatch):
    waiting(manager, 50)
    beats = []
    monkeypatch.setattr(manager.metrics.heartbeat, "clock", lambda: beats.append(1) or 0.0)
    manager.run_pass(is_woken=False)
    assert len(manager.cluster.events) == 50
    assert len(beats) >= 50


def test_long_waits_are_not_told_one_by_one_to_an_api_server_that_is_silent(manager):
    waiting(manager, 50)
    asked = []

    def post():
        asked.append(1)
        raise Silent("the API server does not answer")

    manager.cluster.post = post
    manager.run_pass(is_woken=False)
    assert 1 <= len(asked) <= WRITES_AT_ONCE


def test_acceptance_is_used_up_when_the_lost_is_served_again(manager):
    """Should it be lost once more, that is another loss."""
    manager.cluster.declare(document(annotations={Annotation.ACCEPT_EMPTY.value: UID}, status=HAD))
    serve(manager, collection_uid=OTHER_UID)
    manager.run_pass()
    serve(manager)
    manager.run_pass()
    manager.run_pass()
    assert manager.cluster.log == [("status", "notes"), ("annotations", "notes"), ("status", "notes")]
    assert manager.cluster.documents["notes"]["metadata"]["annotations"] == {
        Annotation.ACCEPT_EMPTY.value: None
    }


def test_finalizer_is_there_only_with_delete(manager):
    manager.cluster.declare(document("a", "r-1", **DELETE), document("b", "r-2", has_finalizer=True))
    manager.run_pass()
    assert (manager.cluster.finalizers("a"), manager.cluster.finalizers("b")) == ([FINALIZER], [])


def test_finalizers_of_others_stay(manager):
    declared = document(**DELETE)
    declared["metadata"]["finalizers"] = ["example.com/other"]
    manager.cluster.declare(declared)
    manager.run_pass()
    assert manager.cluster.finalizers() == ["example.com/other", FINALIZER]


def test_deleted_resource_is_held_until_the_collection_is_away(manager):
    manager.cluster.declare(document(**LEAVING))
    serve(manager)
    manager.run_pass()
    assert (manager.cluster.finalizers(), manager.cluster.reason()) == ([FINALIZER], "Deleting")
    gone = {"r-1": (report(Reason.DELETING, "nothing on the volume is its own"),)}
    manager.poller.engine = engine_of(pod(reports=gone))
    manager.run_pass()
    assert manager.cluster.finalizers() == []
    assert manager.cluster.events == [("notes", "Dropped")]


def test_drop_of_an_empty_collection_is_told(manager):
    """Its status has no uid of data; that the engine followed it, the manager remembers."""
    manager.cluster.declare(document(**LEAVING))
    serve(manager, collection_uid=None, vector_count=0, indexed=0)
    manager.run_pass()
    gone = {"r-1": (report(Reason.DELETING, "nothing on the volume is its own"),)}
    for told in ({}, gone):
        manager.poller.engine = engine_of(pod(reports=told))
        manager.run_pass()
    assert manager.cluster.events == [("notes", "Dropped")]
    assert manager.cluster.messages == ["collection 'notes' is served no more"]


def test_resource_that_never_had_a_collection_has_none_dropped(manager):
    manager.cluster.declare(document(**LEAVING))
    gone = {"r-1": (report(Reason.DELETING, "nothing on the volume is its own"),)}
    manager.poller.engine = engine_of(pod(reports=gone))
    manager.run_pass()
    assert (manager.cluster.finalizers(), manager.cluster.events) == ([], [])


def test_policy_that_changed_after_the_drop_hides_nothing(manager):
    manager.cluster.declare(document(is_deleting=True, has_finalizer=True, status=HAD))
    gone = {"r-1": (report(Reason.DELETING, "nothing on the volume is its own"),)}
    manager.poller.engine = engine_of(pod(reports=gone))
    manager.run_pass()
    assert manager.cluster.events == [("notes", "Dropped")]
    told = "collection 'notes' is served no more; what it still had is in .deleted/"
    assert manager.cluster.messages == [told]


def test_retained_collection_is_not_said_to_be_dropped(manager):
    manager.cluster.declare(document(is_deleting=True, has_finalizer=True))
    gone = {"r-1": (report(Reason.DELETING, "the collection is retained"),)}
    row = dataclasses.replace(state_of(claim()), resource_uid=None, generation=None)
    manager.poller.engine = engine_of(pod(row, reports=gone))
    manager.run_pass()
    assert (manager.cluster.finalizers(), manager.cluster.events) == ([], [("notes", "Released")])


def test_deleted_loser_is_not_said_to_have_dropped_anything(manager):
    manager.cluster.declare(document("rival", "r-2", collectionName="notes", **LEAVING))
    gone = {"r-2": (report(Reason.DELETING, "another resource has the collection, and keeps it"),)}
    manager.poller.engine = engine_of(pod(state_of(claim()), reports=gone))
    manager.run_pass()
    assert manager.cluster.finalizers("rival") == []
    assert manager.cluster.events == [("rival", "Released")]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        pytest.param(
            HAD, "collection 'notes' is served no more; what it still had is in .deleted/", id="with vectors"
        ),
        pytest.param(None, "collection 'notes' is served no more", id="empty"),
    ],
)
def test_drop_is_told_though_a_rival_has_the_name_by_now(manager, status, message):
    manager.cluster.declare(document(status=status, **LEAVING))
    serve(manager, collection_uid=None)
    manager.run_pass()
    gone = {"r-1": (report(Reason.DELETING, "another resource has the collection, and keeps it"),)}
    rival = state_of(claim("rival", "r-2", collectionName="notes"), collection_uid=OTHER_UID)
    manager.poller.engine = engine_of(pod(rival, reports=gone))
    manager.run_pass()
    assert manager.cluster.events == [("notes", "Dropped")]
    assert manager.cluster.messages == [message]


def test_heir_of_a_retained_collection_is_no_drop(manager):
    manager.cluster.declare(document(is_deleting=True, has_finalizer=True, status=HAD))
    gone = {"r-1": (report(Reason.DELETING, "the collection is retained"),)}
    heir = state_of(claim("heir", "r-2", collectionName="notes"))
    manager.poller.engine = engine_of(pod(heir, reports=gone))
    manager.run_pass()
    assert manager.cluster.events == [("notes", "Released")]


def test_leave_to_replace_is_removed_and_told_once_it_was_used(manager):
    manager.cluster.declare(document(annotations={Annotation.REPLACE.value: OTHER_UID}))
    told = {"r-1": (report(Reason.REPLACED, "collection 'notes' moved to .deleted/notes-1"),)}
    manager.poller.engine = engine_of(pod(state_of(claim()), reports=told))
    for _ in range(3):
        manager.run_pass()
    assert manager.cluster.documents["notes"]["metadata"]["annotations"] == {Annotation.REPLACE.value: None}
    assert manager.cluster.events == [("notes", "Replaced"), ("notes", "Ready")]
    assert manager.cluster.messages[0] == "collection 'notes' moved to .deleted/notes-1"


def test_drift_is_an_event_once_for_each_report(manager):
    manager.cluster.declare(document())
    for message in ("first", "first", "second"):
        told = {"r-1": (report(Reason.DRIFT_REVERTED, message),)}
        manager.poller.engine = engine_of(pod(state_of(claim()), reports=told))
        manager.run_pass()
        manager.run_pass()
    assert manager.cluster.events == [
        ("notes", "DriftReverted"), ("notes", "Ready"), ("notes", "DriftReverted"),
    ]  # fmt: skip


def test_deleted_resource_of_no_engine_is_released(manager):
    manager.cluster.declare(document(**LEAVING))
    manager.run_pass()
    pass_for(manager, ABSENCE_SECONDS - 1)
    assert manager.cluster.finalizers() == [FINALIZER]
    pass_for(manager, 1)
    assert manager.cluster.finalizers() == []
    assert manager.cluster.events[-1] == ("notes", "Released")


def test_engine_that_nobody_looked_for_is_not_known_to_have_been_missing(manager):
    """Without its Lease a manager makes no pass, for hours perhaps."""
    manager.cluster.declare(document(**LEAVING))
    manager.run_pass()
    manager.clock.seconds += 600
    manager.run_pass()
    assert manager.cluster.finalizers() == [FINALIZER]
    pass_for(manager, ABSENCE_SECONDS)
    assert manager.cluster.finalizers() == []


@pytest.mark.parametrize(
    "between",
    [
        pytest.param({"engine": engine_of(pod(state_of(claim())))}, id="it is there again"),
        pytest.param({"engine": engine_of(wanted_pods=0)}, id="rebuilt, and scaled to zero"),
        pytest.param({"is_away": True}, id="nobody knows"),
    ],
)
def test_engine_that_is_made_anew_still_has_what_is_to_be_dropped(manager, between):
    """A StatefulSet is deleted and made again: its volumes were there all the while."""
    manager.cluster.declare(document(**LEAVING))
    manager.run_pass()
    pass_for(manager, ABSENCE_SECONDS - 1)
    manager.poller.engine, manager.cluster.is_away = between.get("engine"), between.get("is_away", False)
    manager.run_pass()
    manager.poller.engine, manager.cluster.is_away = None, False
    for _ in range(2):
        manager.clock.seconds += 1
        manager.run_pass()
    assert manager.cluster.finalizers() == [FINALIZER]


def test_away_changes_nothing(manager):
    manager.cluster.declare(document(**LEAVING))
    manager.cluster.is_away = True
    for _ in range(3):
        manager.run_pass()
    assert (manager.cluster.log, manager.role.knows_all) == ([], False)


def test_resource_that_changed_meanwhile_is_read_again_without_a_wake(manager):
    manager.cluster.declare(document())
    serve(manager)
    manager.cluster.changed = {"notes"}
    manager.run_pass()
    manager.cluster.changed = set()
    manager.cluster.declare(document(generation=2))
    serve(manager, generation=2)
    manager.run_pass(is_woken=False)
    assert manager.cluster.documents["notes"]["status"]["observedGeneration"] == 2


def test_refused_change_is_told_once_and_tried_ever_more_rarely(manager):
    """A status that the API server does not take, for one: everything else goes on, and nothing is listed."""
    tried = []

    def write(name):
        if name == "bad":
            tried.append(manager.clock.seconds)
            raise Away("the API server says 422 Unprocessable Entity")

    manager.cluster.declare(document("bad", "r-1"), document("good", "r-2"))
    manager.cluster.write = write
    with structlog.testing.capture_logs() as logs:
        for _ in range(500):
            serve(manager)
            manager.run_pass(is_woken=False)
            manager.clock.seconds += TICK_SECONDS
    assert manager.cluster.reason("good") == "Served"
    waited = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert waited == [4, 8, 16, 32, 64, 128, 256, 300]
    assert [(line["event"], line.get("resource")) for line in logs] == [("resource was not changed", "bad")]
    assert manager.metrics.registry.get_sample_value(
        "vecstow_operator_errors_total", {"source": "api_server"}
    ) == len(tried)
    assert manager.cluster.lists <= 500 * TICK_SECONDS / LIST_SECONDS_MAX + 1


def failing_for(name, function):
    """`function`, except that it raises for the resource of that name, which its first argument has."""

    def call(cached, *others, **options):
        if cached.resource.name == name:
            raise KeyError("unforeseen")
        return function(cached, *others, **options)

    return call


@pytest.mark.parametrize("step", ["decision", "write"])
def test_unforeseen_error_of_one_resource_holds_no_other(manager, monkeypatch, step):
    """It is logged once, counted, and the resource is tried again after growing pauses."""
    if step == "decision":
        monkeypatch.setattr(reconciler, "decide", failing_for("bad", reconciler.decide))
    else:
        writer = manager.role.writer
        monkeypatch.setattr(writer, "apply_status", failing_for("bad", writer.apply_status))
    manager.cluster.declare(document("bad", "r-1"), document("good", "r-2"))
    serve(manager)
    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            manager.run_pass(is_woken=False)
            manager.clock.seconds += TICK_SECONDS
    assert manager.cluster.reason("good") == "Served"
    assert [(line["event"], line["resource"]) for line in logs] == [
        ("resource could not be reconciled", "bad")
    ]
    value = manager.metrics.registry.get_sample_value
    assert value("vecstow_operator_errors_total", {"source": "operator"}) == 4
    assert value("vecstow_operator_queue_depth") == 0
    monkeypatch.undo()


def test_unforeseen_error_of_one_resource_keeps_no_other_in_an_ending_namespace(manager, monkeypatch):
    manager.cluster.declare(document("a", "r-1", **LEAVING), document("b", "r-2", **LEAVING))
    writer = manager.role.writer
    monkeypatch.setattr(writer, "patch_metadata", failing_for("a", writer.patch_metadata))
    with pytest.raises(Away, match="1 of 2 resources are held still: KeyError"):
        manager.role.writer.release_all()
    assert (manager.cluster.finalizers("a"), manager.cluster.finalizers("b")) == ([FINALIZER], [])
    value = manager.metrics.registry.get_sample_value
    assert value("vecstow_operator_errors_total", {"source": "operator"}) == 1


def test_unforeseen_error_of_one_event_holds_no_other(manager):
    waiting(manager, 3)
    failures = [KeyError("unforeseen")]

    def post():
        if failures:
            raise failures.pop()

    manager.cluster.post = post
    manager.run_pass(is_woken=False)
    assert len(manager.cluster.events) == 2


def test_refused_change_is_tried_at_once_when_the_resource_changes_or_it_was_taken(manager):
    manager.cluster.declare(document())
    manager.cluster.write = refuse(["once"])
    serve(manager)
    manager.run_pass()
    manager.run_pass()
    assert manager.cluster.log == []
    manager.cluster.edit()
    manager.run_pass()
    assert manager.cluster.log == [("status", "notes")]
    manager.cluster.write = refuse(["once"])
    serve(manager, state="degraded", reason="one point")
    manager.run_pass()
    manager.clock.seconds += WRITE_BACKOFF.first_seconds
    manager.run_pass()
    assert manager.cluster.log == [("status", "notes")] * 2


def test_conflict_that_lasts_is_tried_ever_more_rarely(manager):
    manager.cluster.declare(document())
    serve(manager)
    manager.cluster.changed = {"notes"}
    for _ in range(500):
        manager.run_pass(is_woken=False)
        manager.clock.seconds += TICK_SECONDS
    assert manager.cluster.lists < 60


def test_namespace_that_ends_lets_go_of_all_and_takes_hold_of_none(manager):
    """Resources get their own deletion later, when the right to change them may be gone already."""
    with_finalizer = document("a", "r-1", has_finalizer=True, **DELETE)
    manager.cluster.declare(with_finalizer, document("b", "r-2", **DELETE))
    manager.cluster.ends = True
    for _ in range(3):
        manager.run_pass()
    assert (manager.cluster.finalizers("a"), manager.cluster.finalizers("b")) == ([], [])
    assert manager.cluster.log == [("finalizers", "a")]


def test_definition_that_ends_lets_go_of_all_and_says_nothing_of_a_drop(manager):
    manager.cluster.declare(document("a", "r-1", **LEAVING), document("b", "r-2", **LEAVING))
    manager.cluster.definition_goes = True
    serve(manager)
    manager.run_pass()
    assert (manager.cluster.finalizers("a"), manager.cluster.finalizers("b")) == ([], [])
    assert manager.cluster.events == []


def test_resource_that_changed_meanwhile_holds_no_other(manager):
    manager.cluster.declare(document("a", "r-1", **LEAVING), document("b", "r-2", **LEAVING))
    manager.cluster.changed = {"a"}
    manager.role.writer.release_all()
    assert (manager.cluster.finalizers("a"), manager.cluster.finalizers("b")) == ([FINALIZER], [])


def test_refusal_of_one_change_holds_no_other_resource(manager):
    manager.cluster.declare(*(document(f"a-{n}", f"r-{n}", **LEAVING) for n in range(20)))
    manager.cluster.write = refuse(["once"])
    with pytest.raises(Away, match="1 of 20 resources are held still: the API server says 429"):
        manager.role.writer.release_all()
    held = [name for name in manager.cluster.documents if manager.cluster.finalizers(name)]
    assert len(held) == 1


@pytest.mark.parametrize(
    ("refused", "is_held"),
    [pytest.param(3, False, id="for a while"), pytest.param(1000, True, id="for ever")],
)
def test_end_of_a_namespace_lets_go_until_its_time_is_up(manager, refused, is_held):
    """The manager tries until its time is up: no process that may write comes after it."""
    manager.cluster.declare(document(**LEAVING))
    manager.cluster.ends = True
    manager.cluster.write = refuse(list(range(refused)))
    begun = manager.clock.seconds
    manager.role.writer.release_ending_namespace(15)
    assert bool(manager.cluster.finalizers()) is is_held
    assert manager.clock.seconds - begun <= 15


def test_end_of_a_manager_alone_lets_go_of_nothing(manager):
    manager.cluster.declare(document(**LEAVING))
    manager.role.writer.release_ending_namespace(15)
    assert manager.cluster.finalizers() == [FINALIZER]


def test_api_server_that_is_silent_is_not_asked_for_each_resource(manager):
    """Each would wait for its time limit."""
    asked = []

    def write(name):
        asked.append(name)
        raise Silent("the API server does not answer")

    manager.cluster.declare(*(document(f"a-{n}", f"r-{n}", **LEAVING) for n in range(100)))
    manager.cluster.write = write
    with pytest.raises(Away, match="100 of 100"):
        manager.role.writer.release_all()
    assert len(asked) <= WRITES_AT_ONCE
    asked.clear()
    manager.cluster.declare(*(document(f"b-{n}", f"r-{n}", **DELETE) for n in range(100)))
    manager.run_pass()
    assert 1 <= len(asked) <= WRITES_AT_ONCE
    manager.cluster.write = asked.append
    manager.run_pass()
    assert set(asked) == manager.cluster.documents.keys()


def test_manager_that_is_told_to_end_begins_no_further_change(manager):
    manager.cluster.declare(*(document(f"a-{n}", f"r-{n}", **DELETE) for n in range(100)))
    manager.cluster.write = lambda name: manager.stopped.set()
    manager.run_pass()
    assert 1 <= len(manager.cluster.log) <= WRITES_AT_ONCE


def test_loop_beats_after_each_change(manager, monkeypatch):
    beats = []
    monkeypatch.setattr(manager.metrics.heartbeat, "clock", lambda: beats.append(1) or 0.0)
    manager.cluster.declare(*(document(f"a-{n}", f"r-{n}", **LEAVING) for n in range(100)))
    manager.run_pass()
    assert len(beats) >= 100
    beats.clear()
    manager.role.writer.release_all()
    assert len(beats) >= 100


def test_paused_resource_keeps_its_last_word(manager):
    manager.cluster.declare(document())
    serve(manager)
    manager.run_pass()
    manager.cluster.edit()["spec"]["paused"] = True
    serve(manager, state="quarantined")
    manager.run_pass()
    assert manager.cluster.reason() == "Served"
    assert manager.cluster.log == [("status", "notes")] * 2
    manager.run_pass()
    assert manager.cluster.log == [("status", "notes")] * 2


def test_data_that_a_paused_resource_gets_is_known_at_once_and_counted_now_and_then(manager):
    manager.cluster.declare(document(paused=True))
    serve(manager, vector_count=1)
    manager.run_pass()
    manager.run_pass()
    serve(manager, vector_count=2)
    manager.run_pass()
    assert manager.cluster.documents["notes"]["status"]["vectorCount"] == 1
    manager.clock.seconds += COUNT_SECONDS_MIN
    manager.run_pass()
    found = manager.cluster.documents["notes"]["status"]
    assert (found["vectorCount"], found["collectionUid"]) == (2, UID)
    assert manager.cluster.log == [("status", "notes")] * 2


def test_collection_without_a_resource_is_an_orphan_of_its_engine(manager):
    engine = engine_of(pod(state_of(claim()), state_of(claim("lost", "r-2"))))
    elsewhere = claim("lost", "r-3", engine="other")
    assert orphans({"vecstow": engine}, [claim(), elsewhere]) == [("vecstow", "lost")]


class Versioned(Cluster):
    """It keeps the version of each change of a status."""

    def __init__(self):
        super().__init__()
        self.versions = []

    def apply_status(self, name, resource_version, status):
        self.versions.append(resource_version)
        return super().apply_status(name, resource_version, status)


def test_what_the_manager_wrote_itself_it_need_not_list(clock):
    cluster, poller = Versioned(), Poller()
    cluster.declare(document())
    role = ManagerReconciler(cluster, poller, Metrics(), TICK_SECONDS)
    manager = SimpleNamespace(cluster=cluster, poller=poller)
    serve(manager)
    role.run_pass(is_woken=True)
    serve(manager, state="degraded", reason="one point")
    role.run_pass(is_woken=False)
    role.close()
    assert (cluster.lists, cluster.versions) == (1, ["1", "2"])
    assert cluster.reason() == "Served"


def test_equal_conditions_of_many_resources_are_kept_once(clock):
    """Thousands have the same ones, and five of six bytes of a status are theirs."""
    cluster, poller = Cluster(), Poller()
    cluster.declare(document("one", "r-1"), document("two", "r-2"))
    role = ManagerReconciler(cluster, poller, Metrics(), TICK_SECONDS)
    serve(SimpleNamespace(cluster=cluster, poller=poller))
    for _ in range(2):
        role.run_pass(is_woken=True)
    role.close()
    one, two = (cached.status["conditions"] for cached in role._resources.by_uid.values())
    assert one == two
    assert all(first is second for first, second in zip(one, two, strict=True))
