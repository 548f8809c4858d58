"""The owner of a name that more than one resource wants, and the events about it: once each."""

from __future__ import annotations

import json

from tests.operator.points import (
    collection_uid,
    command_told,
    deleted,
    fill,
    manifest,
    served_with_points,
    serves,
)
from tests.operator.site import collection
from tests.waiting import wait_for


def rival(name, of, **spec):
    """A resource that wants the collection of another one."""
    return collection(name, collectionName=of, **spec)


def uid_of(site, name):
    return site.resource(name)["metadata"]["uid"]


def is_owner(site, name, of):
    return manifest(site, of)["resource_uid"] == uid_of(site, name)


def in_conflict(site, name):
    """Both conditions say it."""
    conditions = {c["type"]: (c["status"], c["reason"]) for c in site.resource(name)["status"]["conditions"]}
    said = ("True", "Conflict")
    return (conditions["Ready"], conditions["Conflict"], conditions["Stalled"]) == (
        ("False", "Conflict"), said, said,
    )  # fmt: skip


def annotations(site, name):
    """Return the names of Vecstow's annotations."""
    found = site.resource(name)["metadata"].get("annotations", {})
    return [name for name in found if name.startswith("vecstow.dev/")]


def remove(site, name):
    site.kubectl("delete", "vcol", name)


def events(site, name):
    """Reasons, in the order of their posting."""
    found = site.get("events", "--field-selector", f"involvedObject.name={name}")
    assert all(event["count"] == 1 for event in found)
    return [e["reason"] for e in sorted(found, key=lambda e: e["metadata"]["creationTimestamp"])]


# Two resources ---------------------------------------------------------------------------------------------


def test_second_resource_is_a_conflict_and_the_first_serves_on(shared):
    served_with_points(shared, "first")
    shared.apply(rival("second", "first"))
    shared.wait_reason("Conflict", "second")
    assert in_conflict(shared, "second")
    assert "'first'" in shared.condition("Ready", "second")["message"]
    assert shared.reason("first") == "Served"
    assert is_owner(shared, "first", "first")
    assert serves(shared, "first")


def test_second_resource_that_is_deleted_takes_nothing_with_it(shared):
    uid = served_with_points(shared, "winner")
    shared.apply(rival("loser", "winner", deletionPolicy="Delete"))
    shared.wait_reason("Conflict", "loser")
    remove(shared, "loser")
    assert serves(shared, "winner")
    assert deleted(shared, "winner") == []
    assert shared.reason("winner") == "Served"
    assert collection_uid(shared, "winner") == uid
    wait_for(lambda: "Released" in events(shared, "loser"), "the event")


def test_loser_of_the_same_shape_takes_over_what_the_winner_leaves(shared):
    uid = served_with_points(shared, "leaving")
    shared.apply(rival("heir", "leaving"))
    shared.wait_reason("Conflict", "heir")
    remove(shared, "leaving")
    shared.wait_reason("Served", "heir")
    assert is_owner(shared, "heir", "leaving")
    assert serves(shared, "leaving")
    assert collection_uid(shared, "heir") == uid
    assert shared.condition("Conflict", "heir")["status"] == "False"


def test_loser_of_another_shape_stays_in_conflict_with_what_the_winner_leaves(shared):
    served_with_points(shared, "left")
    shared.apply(rival("other", "left", dimension=5))
    shared.wait_reason("Conflict", "other")
    remove(shared, "left")
    wait_for(lambda: "another shape" in shared.condition("Ready", "other")["message"], "the other reason")
    assert in_conflict(shared, "other")
    assert serves(shared, "left")
    assert deleted(shared, "left") == []


def test_loser_begins_anew_when_the_winner_takes_its_data_along(shared):
    served_with_points(shared, "taken", deletionPolicy="Delete")
    shared.apply(rival("next", "taken", dimension=5))
    shared.wait_reason("Conflict", "next")
    remove(shared, "taken")
    shared.wait_reason("Served", "next")
    assert len(deleted(shared, "taken")) == 1
    with shared.rest() as rest:
        facts = rest.describe("taken")
    assert (facts["dimension"], facts["vector_count"]) == (5, 0)


def test_leave_to_replace_does_not_reach_what_a_living_resource_owns(shared):
    served_with_points(shared, "owned")
    robber = rival("robber", "owned", dimension=5)
    uid = collection_uid(shared, "owned")
    robber["metadata"]["annotations"] = {"vecstow.dev/replace": uid}
    shared.apply(robber)
    shared.wait_reason("Conflict", "robber")
    assert serves(shared, "owned")
    assert deleted(shared, "owned") == []


# Another shape than the data -------------------------------------------------------------------------------


def test_resource_of_another_shape_waits_for_leave_and_then_replaces(shared):
    served_with_points(shared, "old")
    remove(shared, "old")
    shared.apply(collection("old", dimension=5))
    shared.wait_reason("Conflict", "old")
    assert in_conflict(shared, "old")
    assert serves(shared, "old")

    shared.kubectl(*command_told(shared, "old", "Ready"))
    shared.wait_reason("Served", "old")
    [rest] = deleted(shared, "old")
    assert json.loads((rest / "metadata.json").read_text())["dimension"] == 4
    assert shared.condition("Conflict", "old")["status"] == "False"
    wait_for(lambda: "Replaced" in events(shared, "old"), "the event")
    wait_for(lambda: not annotations(shared, "old"), "the end of the leave")


def test_leave_of_before_replaces_no_later_collection(shared):
    """An annotation kept in git replaces no collection that is restored under another uid."""
    uid = served_with_points(shared, "kept")
    remove(shared, "kept")
    shared.apply(collection("kept", dimension=5))
    shared.wait_reason("Conflict", "kept")
    shared.kubectl("annotate", "vcol", "kept", "vecstow.dev/replace=true")
    ticks(shared, 6)
    assert shared.reason("kept") == "Conflict"
    assert serves(shared, "kept")
    assert f"vecstow.dev/replace={uid}" in shared.condition("Ready", "kept")["message"]


# Events ----------------------------------------------------------------------------------------------------


def ticks(site, count):
    """Wait until the manager has looked so many times more."""
    begun = passes(site)
    wait_for(lambda: passes(site) >= begun + count, "passes of the manager")


def passes(site):
    [line] = [
        line
        for line in site.manager.metrics().splitlines()
        if line.startswith("vecstow_operator_pass_seconds_count")
    ]
    return float(line.split()[-1])


def test_conflict_is_told_once(shared):
    served_with_points(shared, "told")
    shared.apply(rival("untold", "told"))
    shared.wait_reason("Conflict", "untold")
    ticks(shared, 6)
    assert sorted(events(shared, "untold")) == ["Conflict", "NotReady"]
    assert events(shared, "told") == ["Ready"]


def test_change_of_a_spec_is_no_event(shared):
    served_with_points(shared, "changed")
    shared.apply(collection("changed", owner="somebody", index={"efSearch": 77}))
    wait_for(lambda: shared.resource("changed")["status"]["observedGeneration"] == 2, "the new generation")
    shared.wait_reason("Served", "changed")
    ticks(shared, 6)
    assert events(shared, "changed") == ["Ready"]


def test_restart_of_the_engine_is_no_event(site):
    served_with_points(site, "notes")
    site.engine.kill()
    site.wait_reason("EngineUnreachable")
    site.engine.start("/ready")
    site.wait_reason("Served")
    ticks(site, 6)
    assert events(site, "notes") == ["Ready"]


def test_status_is_not_written_while_nothing_changes(site):
    served_with_points(site, "notes")
    fill(site, "notes")
    ticks(site, 4)
    before = site.resource()["metadata"]["resourceVersion"]
    ticks(site, 10)
    assert site.resource()["metadata"]["resourceVersion"] == before
