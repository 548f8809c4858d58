"""Which transitions people hear of at once, and which only when they last."""

import dataclasses

import pytest

from tests.unit.declared import HAD, claim, engine_of, pod, state_of
from vecstow_operator.manager.assessment import assess
from vecstow_operator.manager.engines import EnginePod, EngineView
from vecstow_operator.manager.events import LASTING_SECONDS, EventDelay
from vecstow_operator.manager.status import build

RESOURCE = claim(generation=3, status=HAD)
SERVED = state_of(RESOURCE)


def status_of(engine):
    return build(RESOURCE, assess(RESOURCE, engine), {}, "2026-01-01T00:00:00Z")


READY = status_of(engine_of(pod(SERVED)))
PENDING = status_of(engine_of(pod()))
UNREACHABLE = status_of(engine_of(EnginePod("vecstow-0", "p-1", problem="refused")))
QUARANTINED = status_of(engine_of(pod(dataclasses.replace(SERVED, state="quarantined", reason="damaged"))))
MISSING = status_of(EngineView("vecstow"))
SOON = LASTING_SECONDS - 1


def told(*moments):
    """Each moment is seconds and the status that is written then, or None where nothing changed."""
    delay, before, posted = EventDelay(), {}, []
    for now, status in moments:
        if status is not None:
            posted += [(now, t.reason.value, t.message) for t in delay.immediate("r-1", status, before, now)]
            before = status
        posted += [(now, t.reason.value, t.message) for _, t in delay.overdue(now)]
    return posted


NEW = (0, "Ready", "served by vecstow")
PENDING_TEXT = "Pending: pod vecstow-0 does not follow generation 3 yet"


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        pytest.param([(5, PENDING), (7, READY)], [], id="a moment of waiting"),
        pytest.param([(5, PENDING), (6, UNREACHABLE), (7, READY)], [], id="from one wait to the next"),
        pytest.param(
            [(5, PENDING), (5 + SOON, None), (5 + LASTING_SECONDS, None), (100, None)],
            [(5 + LASTING_SECONDS, "NotReady", PENDING_TEXT)],
            id="what lasts is told once",
        ),
        pytest.param(
            [(5, PENDING), (6, UNREACHABLE), (5 + LASTING_SECONDS, None)],
            [
                (
                    5 + LASTING_SECONDS,
                    "NotReady",
                    "EngineUnreachable: pod vecstow-0 does not answer: refused",
                )
            ],
            id="as it is by then",
        ),
        pytest.param(
            [(5, PENDING), (50, None), (60, READY)],
            [(50, "NotReady", PENDING_TEXT), (60, "Ready", "served by vecstow")],
            id="the end of what was told is told",
        ),
        pytest.param(
            [(5, PENDING), (6, QUARANTINED), (7, PENDING), (100, None), (101, READY)],
            [
                (6, "NotReady", "Quarantined: damaged; kubectl vecstow repair notes --dry-run"),
                (101, "Ready", "served by vecstow"),
            ],
            id="what needs somebody is told at once",
        ),
        pytest.param(
            [(5, MISSING)],
            [(5, "NotReady", "EngineMissing: no engine 'vecstow' is in this namespace")],
            id="a missing engine does not pass",
        ),
        pytest.param(
            [(5, PENDING), (6, READY), (7, PENDING), (7 + SOON, READY)], [], id="each wait has its own time"
        ),
    ],
)
def test_what_is_heard_after_it_was_ready(moments, expected):
    assert told((0, READY), *moments) == [NEW, *expected]


def test_new_resource_that_waits_is_told_of_when_it_is_served():
    assert told((0, PENDING), (100, None), (101, READY)) == [(101, "Ready", "served by vecstow")]


def test_what_is_gone_is_told_of_no_more():
    delay = EventDelay()
    assert list(delay.immediate("r-1", PENDING, READY, 0.0)) == []
    delay.forget_all_but({"r-2"})
    assert list(delay.overdue(1000.0)) == []
