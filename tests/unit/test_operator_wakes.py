"""The watch runs while lists are complete, begins anew after each gap, and only ever wakes a pass."""

import asyncio
import itertools
import threading

import kopf
import pytest

from tests.unit.running_engine import wait_until
from vecstow_operator import wakes as wakes_module
from vecstow_operator.wakes import BACKOFFS_SECONDS, Wakes


class Kopf:
    """Stands in for kopf's operator: it runs until it is told to end, or until a test ends it."""

    def __init__(self):
        self.begun = 0
        self.ended = 0
        self.fails = threading.Event()
        self.settings = None

    async def __call__(self, *, settings, stop_flag, **_):
        self.begun += 1
        self.settings = settings
        while not stop_flag.is_set() and not self.fails.is_set():
            await asyncio.sleep(0.001)
        self.ended += 1
        if self.fails.is_set():
            self.fails.clear()
            raise RuntimeError("404")


class Role:
    """What a watch knows of its role."""

    def __init__(self):
        self.knows_all = True
        self.woken = 0

    def wake(self):
        self.woken += 1


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(wakes_module, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(wakes_module, "LOOK_SECONDS", 0.01)
    operator, role = Kopf(), Role()
    monkeypatch.setattr(kopf, "operator", operator)
    wakes = Wakes("apps", role.wake, lambda: role.knows_all)
    yield operator, role, wakes
    wakes.stop()


def test_watch_begins_when_everything_is_known(watched):
    operator, role, wakes = watched
    role.knows_all = False
    wakes.start()
    assert operator.begun == 0
    role.knows_all = True
    wait_until(lambda: operator.begun == 1)


def test_watch_ends_when_nothing_is_known_any_more_and_begins_anew(watched):
    operator, role, wakes = watched
    wakes.start()
    wait_until(lambda: operator.begun == 1)
    role.knows_all = False
    wait_until(lambda: operator.ended == 1)
    role.knows_all = True
    wait_until(lambda: operator.begun == 2)


def test_watch_that_ended_by_itself_wakes_a_pass_and_begins_anew(watched):
    operator, role, wakes = watched
    wakes.start()
    wait_until(lambda: operator.begun == 1)
    operator.fails.set()
    wait_until(lambda: operator.begun == 2)
    assert role.woken == 1


def test_stop_ends_the_watch(watched):
    operator, _, wakes = watched
    wakes.start()
    wait_until(lambda: operator.begun == 1)
    wakes.stop()
    assert operator.ended == 1


def test_refusals_do_not_end_and_each_wakes_a_pass(watched):
    operator, role, wakes = watched
    wakes.start()
    wait_until(lambda: operator.settings is not None)
    backoffs = list(itertools.islice(operator.settings.networking.error_backoffs, 20))
    assert backoffs[: len(BACKOFFS_SECONDS)] == list(BACKOFFS_SECONDS)
    assert set(backoffs[len(BACKOFFS_SECONDS) :]) == {BACKOFFS_SECONDS[-1]}
    assert role.woken == 19


def test_watch_is_asked_for_anew_now_and_then(watched):
    operator, _, wakes = watched
    wakes.start()
    wait_until(lambda: operator.settings is not None)
    watching = operator.settings.watching
    assert isinstance(watching.server_timeout, int), "the API server takes nothing else"
    assert watching.client_timeout > watching.server_timeout
