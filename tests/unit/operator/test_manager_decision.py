"""The one change that the manager makes to a resource in a pass."""

import pytest

from tests.unit.declared import HAD, OTHER_UID, UID, claim, document, engine_of, pod, report, state_of
from vecstow_operator.manager import status
from vecstow_operator.manager.assessment import assess
from vecstow_operator.manager.decision import (
    PENDING_SECONDS,
    NoChange,
    RemoveAnnotation,
    SetFinalizer,
    WriteStatus,
    decide,
)
from vecstow_operator.manager.resources import Age, ResourceCache
from vecstow_operator.vocabulary import Annotation, Reason

NOW = "2026-01-01T00:00:00Z"
DELETE = {"deletionPolicy": "Delete"}
LEAVING = DELETE | {"is_deleting": True, "has_finalizer": True}
SERVED = engine_of(pod(state_of(claim())))
SILENT = engine_of(pod())
DONE = engine_of(pod(reports={"r-1": (report(Reason.DELETING, "nothing on the volume is its own"),)}))
REPLACED = engine_of(pod(state_of(claim()), reports={"r-1": (report(Reason.REPLACED, "it moved"),)}))
READY = status.build(claim(status=HAD), assess(claim(status=HAD), SERVED), {}, NOW)


def decided(engine, *, seconds=60.0, is_look_due=False, was_followed=False, **fields):
    age = Age(
        NOW,
        seconds_of_generation=seconds,
        seconds_since_patch=60.0,
        is_look_due=is_look_due,
        was_followed=was_followed,
    )
    return decide(ResourceCache().of(document(**fields)), engine, age)


@pytest.mark.parametrize(
    ("engine", "fields", "change"),
    [
        pytest.param(SERVED, {"status": READY}, NoChange(is_up_to_date=True), id="as it is"),
        pytest.param(SERVED, DELETE, SetFinalizer(is_held=True), id="no finalizer yet"),
        pytest.param(SERVED, {"has_finalizer": True}, SetFinalizer(is_held=False), id="retained"),
        pytest.param(
            SERVED, DELETE | {"paused": True, "status": READY}, WriteStatus, id="a pause leaves finalizers"
        ),
        pytest.param(DONE, LEAVING, SetFinalizer(is_held=False), id="the drop is done"),
        pytest.param(SERVED, LEAVING, WriteStatus, id="the drop is not done"),
        pytest.param(SILENT, {}, WriteStatus, id="not followed"),
        pytest.param(SILENT, {"seconds": PENDING_SECONDS - 1}, NoChange(is_up_to_date=False), id="just new"),
        pytest.param(
            REPLACED,
            {"annotations": {Annotation.REPLACE.value: OTHER_UID}},
            RemoveAnnotation(Annotation.REPLACE),
            id="it replaced another",
        ),
        pytest.param(
            SERVED,
            {"annotations": {Annotation.ACCEPT_EMPTY.value: UID}},
            RemoveAnnotation(Annotation.ACCEPT_EMPTY),
            id="the lost is back",
        ),
    ],
)
def test_change(engine, fields, change):
    found = decided(engine, **fields).change
    assert isinstance(found, change) if isinstance(change, type) else found == change


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        pytest.param({"status": HAD}, "Dropped", id="had data"),
        pytest.param({"was_followed": True}, "Dropped", id="was empty"),
        pytest.param({}, None, id="never had a collection"),
    ],
)
def test_end_of_a_deletion_has_an_event(fields, event):
    found = decided(DONE, **LEAVING, **fields).event
    assert (found and found.reason.value) == event


def test_only_the_time_of_the_look_is_a_change_when_it_is_due():
    assert isinstance(decided(SERVED, status=READY, is_look_due=True).change, NoChange)
    old = READY | {"observedAt": "2025-12-31T00:00:00Z"}
    assert isinstance(decided(SERVED, status=old, is_look_due=True).change, WriteStatus)
