"""The status of a resource: what is written, when a patch is worth it, and which events people hear of."""

import dataclasses

import pytest

from tests.unit.declared import HAD, OTHER_UID, UID, VOLUME, claim, engine_of, pod, report, state_of
from vecstow_operator.kube import EVENT_CHARACTERS_MAX
from vecstow_operator.manager.assessment import assess
from vecstow_operator.manager.engines import EnginePod, EngineView
from vecstow_operator.manager.events import event_of
from vecstow_operator.manager.status import (
    COUNT_SECONDS_MIN,
    MESSAGE_CHARACTERS_MAX,
    Transition,
    build,
    is_due,
    own,
    transitions,
)
from vecstow_operator.vocabulary import Condition, EventReason, Reason

RESOURCE = claim(generation=3, status=HAD)
SERVED = state_of(RESOURCE)
THEN = "2026-01-01T00:00:00Z"
NOW = "2026-03-01T00:00:00Z"
FRESH = {"observedGeneration": -1}
"""The status that the definition fills in."""


def row(**changes):
    return dataclasses.replace(SERVED, **changes)


def status_of(*rows, resource=RESOURCE, before=FRESH, now=THEN, engine=None, **state):
    view = engine or engine_of(pod(*rows, **state))
    return build(resource, assess(resource, view), before, now)


def conditions(status):
    return {condition["type"]: condition for condition in status["conditions"]}


def reasons(status):
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


READY = status_of(SERVED)
PENDING = status_of()
CONFLICT = status_of(reports={"r-1": (report(Reason.CONFLICT, "taken"),)})
QUARANTINED = status_of(row(state="quarantined", reason="damaged"))
DEGRADED = status_of(row(state="degraded", reason="1 point is withheld"))
FULL = status_of(SERVED, is_full=True)
FULL_MESSAGE = conditions(FULL)["Degraded"]["message"]


SILENT = EnginePod("vecstow-0", "p-0", problem="timed out")
REFUSING = EnginePod("vecstow-0", "p-0", problem="it says 401", refuses_key=True)
DEGRADED_UNHEARD = status_of(engine=engine_of(), before=DEGRADED, now=NOW)
"""The engine's pod is gone, and no other there yet."""


# What is written -------------------------------------------------------------------------------------------


def test_whole_status_of_what_is_served():
    said = {"observedGeneration": 3, "lastTransitionTime": THEN}
    assert {
        "observedGeneration": 3,
        "collectionName": "notes",
        "collectionUid": UID,
        "volumeId": VOLUME,
        "vectorCount": 7,
        "observedAt": THEN,
        "replicas": [
            {
                "pod": "vecstow-0", "podUid": "uid of vecstow-0", "resourceUid": "r-1", "generation": 3,
                "state": "ready",
            }
        ],
        "conditions": [
            {"type": kind, "status": status, "reason": reason, "message": message} | said
            for kind, status, reason, message in (
                ("Ready", "True", "Served", "served by vecstow"),
                ("Synced", "True", "Confirmed", "the engine follows this generation"),
                ("Degraded", "False", "Sound", "nothing is withheld"),
                ("Conflict", "False", "NoRival", "nothing else has the name"),
                ("Paused", "False", "NotRequested", "it is reconciled"),
                ("Reconciling", "False", "None", "nothing is under way"),
                ("Stalled", "False", "None", "nothing needs to be done"),
            )
        ],
    } == READY  # fmt: skip


def test_what_is_not_known_is_left_out():
    status = status_of(resource=claim())
    assert status["replicas"] == [{"pod": "vecstow-0", "podUid": "uid of vecstow-0", "state": "unknown"}]
    assert {"collectionUid", "volumeId"} & status.keys() == set()


def test_replicas_are_left_out_where_there_are_none():
    """The API server answers an empty list that had something with no list: it would be written again."""
    assert "replicas" not in status_of(engine=engine_of(wanted_pods=0), before=READY)


def test_conditions_of_others_are_not_the_managers():
    foreign = READY["conditions"][0] | {"type": "Audited"}
    mixed = READY | {"conditions": [*READY["conditions"][:3], foreign, *READY["conditions"][3:]]}
    assert own(mixed) == own(READY) == READY
    assert own(FRESH) == FRESH


def test_every_condition_is_there_whatever_happens():
    for status in (READY, PENDING, CONFLICT, QUARANTINED, DEGRADED):
        assert list(conditions(status)) == list(Condition)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(
            PENDING,
            {
                "Ready": ("False", "Pending"), "Synced": ("False", "Pending"),
                "Reconciling": ("True", "Pending"), "Stalled": ("False", "None"),
            },
            id="pending passes by itself",
        ),
        pytest.param(
            status_of(row(state="recovering")),
            {
                "Ready": ("False", "Recovering"), "Synced": ("True", "Confirmed"),
                "Reconciling": ("True", "Recovering"), "Stalled": ("False", "None"),
            },
            id="recovering passes by itself",
        ),
        pytest.param(
            CONFLICT,
            {
                "Ready": ("False", "Conflict"), "Synced": ("False", "Conflict"),
                "Conflict": ("True", "Conflict"), "Reconciling": ("False", "None"),
                "Stalled": ("True", "Conflict"),
            },
            id="a conflict needs somebody",
        ),
        pytest.param(
            QUARANTINED,
            {
                "Ready": ("False", "Quarantined"), "Synced": ("True", "Confirmed"),
                "Degraded": ("False", "Sound"), "Stalled": ("True", "Quarantined"),
            },
            id="damage needs somebody",
        ),
        pytest.param(
            status_of(row(collection_uid=None)),
            {"Ready": ("False", "DataMissing"), "Stalled": ("True", "DataMissing")},
            id="missing data needs somebody",
        ),
        pytest.param(
            status_of(engine=EngineView("vecstow")),
            {"Ready": ("False", "EngineMissing"), "Stalled": ("True", "EngineMissing")},
            id="a missing engine needs somebody",
        ),
        pytest.param(
            status_of(engine=engine_of(wanted_pods=0)),
            {"Ready": ("False", "EngineScaledDown"), "Reconciling": ("True", "EngineScaledDown")},
            id="an engine scaled to zero is waited for",
        ),
        pytest.param(
            status_of(engine=engine_of(SILENT)),
            {"Ready": ("Unknown", "EngineUnreachable"), "Stalled": ("False", "None")},
            id="of what cannot be asked nobody knows whether it is served",
        ),
        pytest.param(
            status_of(engine=engine_of(REFUSING)),
            {"Ready": ("Unknown", "KeyRefused"), "Stalled": ("True", "KeyRefused")},
            id="a wrong key needs somebody",
        ),
        pytest.param(
            status_of(SERVED, is_unsupervised=True),
            {
                "Ready": ("True", "Served"), "Conflict": ("Unknown", "SidecarSilent"),
                "Degraded": ("True", "SidecarSilent"),
            },
            id="without a sidecar nobody knows of a rival",
        ),
        pytest.param(
            status_of(row(generation=2), is_unsupervised=True),
            {"Ready": ("False", "SidecarSilent"), "Stalled": ("True", "SidecarSilent")},
            id="without a sidecar nothing is followed",
        ),
        pytest.param(
            DEGRADED,
            {
                "Ready": ("True", "Served"), "Degraded": ("True", "PointsWithheld"),
                "Stalled": ("False", "None"),
            },
            id="degraded is ready",
        ),
        pytest.param(
            status_of(row(vector_count=1000, indexed=0)),
            {"Ready": ("True", "Served"), "Reconciling": ("True", "Indexing")},
            id="ready while the graph is built",
        ),
    ],
)  # fmt: skip
def test_conditions(status, expected):
    assert expected.items() <= reasons(status).items()


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([row(generation=2)], id="another generation"),
        pytest.param([row(resource_uid="r-0")], id="another uid"),
        pytest.param([], id="no row"),
    ],
)
def test_ready_and_synced_are_of_this_uid_and_generation_alone(rows):
    found = reasons(status_of(*rows))
    assert (found["Ready"][0], found["Synced"][0]) == ("False", "False")


def test_synced_is_no_longer_than_ready_is_of_the_new_generation():
    changed = dataclasses.replace(RESOURCE, generation=4)
    found = conditions(status_of(SERVED, resource=changed, before=READY, now=NOW))
    assert (found["Ready"]["status"], found["Ready"]["observedGeneration"]) == ("False", 4)


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        pytest.param(engine_of(), DEGRADED, id="no pod"),
        pytest.param(engine_of(pod(row(state="recovering"))), DEGRADED, id="replay"),
        pytest.param(engine_of(pod()), DEGRADED, id="not discovered yet"),
        pytest.param(engine_of(pod(SERVED)), READY, id="sound"),
        pytest.param(engine_of(pod(row(state="quarantined"))), READY, id="worse"),
    ],
)
def test_degraded_is_over_when_an_engine_says_so(engine, expected):
    after = status_of(engine=engine, before=DEGRADED)
    assert conditions(after)["Degraded"] == conditions(expected)["Degraded"]


def test_time_of_a_transition_is_kept_until_the_next_one():
    again = conditions(status_of(row(vector_count=8, indexed=8), before=READY, now=NOW))
    assert {condition["lastTransitionTime"] for condition in again.values()} == {THEN}
    worse = conditions(status_of(row(state="quarantined"), before=READY, now=NOW))
    assert {kind for kind, c in worse.items() if c["lastTransitionTime"] == NOW} == {"Ready", "Stalled"}
    other_reason = conditions(status_of(before=QUARANTINED, now=NOW))
    assert other_reason["Ready"]["lastTransitionTime"] == THEN


def test_messages_are_bounded():
    status = status_of(row(state="quarantined", reason="x" * 100_000))
    lengths = {kind: len(condition["message"]) for kind, condition in conditions(status).items()}
    assert lengths["Ready"] == lengths["Stalled"] == max(lengths.values()) == MESSAGE_CHARACTERS_MAX


# Paused ----------------------------------------------------------------------------------------------------

PAUSED = claim(generation=4, status=HAD, paused=True)


def test_paused_resource_keeps_all_but_one_condition():
    status = status_of(row(state="quarantined"), resource=PAUSED, before=READY, now=NOW)
    assert status | {"conditions": None} == READY | {"conditions": None, "observedAt": NOW}
    found = conditions(status)
    assert found["Paused"] == {
        "type": "Paused",
        "status": "True",
        "reason": "Requested",
        "message": "spec.paused: nothing is reconciled",
        "observedGeneration": 4,
        "lastTransitionTime": NOW,
    }
    assert found | {"Paused": None} == conditions(READY) | {"Paused": None}


def test_paused_resource_knows_what_data_it_has():
    """It is stored while nothing is reconciled, and may be lost before that is so again."""
    resource = claim(generation=4, paused=True)
    stored = status_of(row(generation=3, vector_count=9), resource=resource)
    assert {key: stored[key] for key in HAD} == {"collectionUid": UID, "volumeId": VOLUME, "vectorCount": 9}
    lost = status_of(row(collection_uid=None, vector_count=0), resource=PAUSED, before=stored)
    assert {key: lost[key] for key in HAD} == HAD


def test_paused_resource_knows_nothing_of_what_is_anothers():
    status = status_of(row(resource_uid=None), resource=claim(generation=4, paused=True))
    assert status["vectorCount"] == 0
    assert not {"collectionUid", "volumeId"} & status.keys()


def test_pause_changes_no_order():
    """A list that comes in another order than it was written would be patched for ever."""
    status = status_of(resource=PAUSED, before=READY, now=NOW)
    assert list(conditions(status)) == list(conditions(READY))
    assert build(PAUSED, assess(PAUSED, engine_of()), status, NOW) == status


def test_resource_paused_from_its_beginning_is_never_called_ready():
    status = status_of(SERVED, resource=PAUSED)
    assert reasons(status) == {"Paused": ("True", "Requested")}
    assert status["observedGeneration"] == -1


def test_deletion_of_a_paused_resource_says_what_it_waits_for():
    deleting = dataclasses.replace(PAUSED, is_deleting=True)
    message = conditions(status_of(resource=deleting, before=READY))["Paused"]["message"]
    assert message == "spec.paused: nothing is reconciled, and nothing is deleted before it is false"


def test_after_the_pause_everything_is_told_again():
    paused = status_of(resource=PAUSED, before=READY, now=NOW)
    assert reasons(status_of(row(generation=3), before=paused, now=NOW)) == reasons(READY)


# When a patch is worth it ----------------------------------------------------------------------------------

LATER = READY | {"observedAt": NOW}
MORE = status_of(row(vector_count=8, indexed=8), before=READY)
MORE_TO_INDEX = status_of(row(vector_count=1000, indexed=7), before=READY)
STILL_TO_INDEX = status_of(row(vector_count=1000, indexed=700), before=READY)


@pytest.mark.parametrize(
    ("wanted", "before", "seconds", "expected"),
    [
        pytest.param(READY, READY, 1e9, False, id="nothing changed"),
        pytest.param(READY, FRESH, 0, True, id="the first one"),
        pytest.param(LATER, READY, COUNT_SECONDS_MIN - 1, False, id="a later look, soon"),
        pytest.param(LATER, READY, COUNT_SECONDS_MIN, True, id="a later look, after a minute"),
        pytest.param(MORE, READY, COUNT_SECONDS_MIN - 1, False, id="the count alone, soon"),
        pytest.param(MORE, READY, COUNT_SECONDS_MIN, True, id="the count alone, after a minute"),
        pytest.param(MORE_TO_INDEX, READY, COUNT_SECONDS_MIN - 1, False, id="steady writes, soon"),
        pytest.param(MORE_TO_INDEX, READY, COUNT_SECONDS_MIN, True, id="steady writes, after a minute"),
        pytest.param(READY, MORE_TO_INDEX, 0, True, id="the graph caught up"),
        pytest.param(STILL_TO_INDEX, MORE_TO_INDEX, COUNT_SECONDS_MIN - 1, False, id="it comes nearer"),
        pytest.param(QUARANTINED, READY, 0, True, id="not ready any more"),
        pytest.param(DEGRADED, READY, 0, True, id="degraded"),
        pytest.param(PENDING, MORE_TO_INDEX, 0, True, id="not ready while indexing"),
        pytest.param(
            status_of(row(collection_uid=OTHER_UID), before=READY), READY, 0, True, id="another incarnation"
        ),
    ],
)
def test_patch_is_due(wanted, before, seconds, expected):
    assert is_due(wanted, before, seconds) is expected


# Events ----------------------------------------------------------------------------------------------------


def warning(reason, message):
    return Transition(reason, message, is_warning=True)


def normal(reason, message):
    return Transition(reason, message, is_warning=False)


def passing(message):
    return Transition(EventReason.NOT_READY, message, is_warning=True, passes=True)


NOT_READY = EventReason.NOT_READY


@pytest.mark.parametrize(
    ("before", "wanted", "expected"),
    [
        pytest.param(FRESH, PENDING, [], id="a new one that waits"),
        pytest.param(FRESH, READY, [normal(EventReason.READY, "served by vecstow")], id="served at once"),
        pytest.param(PENDING, READY, [normal(EventReason.READY, "served by vecstow")], id="served at last"),
        pytest.param(READY, READY, [], id="nothing new"),
        pytest.param(READY, MORE, [], id="more vectors"),
        pytest.param(READY, MORE_TO_INDEX, [], id="the graph behind them"),
        pytest.param(
            READY, QUARANTINED,
            [warning(NOT_READY, "Quarantined: damaged; kubectl vecstow repair notes --dry-run")],
            id="damaged",
        ),
        pytest.param(
            READY, PENDING,
            [passing("Pending: pod vecstow-0 does not follow generation 3 yet")],
            id="not ready any more",
        ),
        pytest.param(PENDING, status_of(row(state="recovering")), [], id="from one wait to the next"),
        pytest.param(
            FRESH, CONFLICT,
            [warning(NOT_READY, "Conflict: taken"), warning(EventReason.CONFLICT, "taken")], id="a conflict",
        ),
        pytest.param(CONFLICT, CONFLICT, [], id="a conflict is told once"),
        pytest.param(
            READY, DEGRADED,
            [warning(EventReason.DEGRADED, "1 point is withheld; kubectl vecstow repair notes --dry-run")],
            id="degraded",
        ),
        pytest.param(
            DEGRADED, DEGRADED_UNHEARD, [passing("EngineUnreachable: engine 'vecstow' has no pod yet")],
            id="degraded, and no engine says so now",
        ),
        pytest.param(
            DEGRADED_UNHEARD, DEGRADED, [normal(EventReason.READY, "served by vecstow")],
            id="degraded as before",
        ),
        pytest.param(
            DEGRADED_UNHEARD, READY,
            [
                normal(EventReason.READY, "served by vecstow"),
                normal(EventReason.RECOVERED, "nothing is withheld"),
            ],
            id="sound since it came back",
        ),
        pytest.param(
            DEGRADED, FULL, [warning(EventReason.DEGRADED, FULL_MESSAGE)], id="degraded for another reason",
        ),
        pytest.param(
            DEGRADED, READY, [normal(EventReason.RECOVERED, "nothing is withheld")], id="sound again"
        ),
        pytest.param(
            READY, status_of(resource=PAUSED, before=READY, now=NOW), [], id="paused"
        ),
    ],
)  # fmt: skip
def test_events(before, wanted, expected):
    assert list(transitions(wanted, before)) == expected


def test_event_is_about_the_resource_and_bounded():
    transition = Transition(EventReason.NOT_READY, "x" * 5000, is_warning=True)
    event = event_of(claim("n" * 253), transition, "apps")
    assert (event.involved_object.kind, event.involved_object.uid) == ("VectorCollection", "r-1")
    assert event.involved_object.api_version == "vecstow.dev/v1alpha1"
    assert (event.type, event.reason, event.metadata.namespace) == ("Warning", "NotReady", "apps")
    assert len(event.message) == EVENT_CHARACTERS_MAX
    assert len(event.metadata.name) <= 253


def test_two_events_never_have_one_name():
    transition = Transition(EventReason.READY, "served", is_warning=False)
    names = {event_of(RESOURCE, transition, "apps").metadata.name for _ in range(100)}
    assert len(names) == 100
