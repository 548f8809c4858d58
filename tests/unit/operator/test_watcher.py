"""The watch runs while lists are complete, begins again after each gap, and only ever wakes a pass."""

import asyncio
import itertools
import threading

import kopf
import pytest

from tests.unit.running_engine import wait_until
from vecstow_operator import loop as wakes_module
from vecstow_operator.loop import News, Watcher


class Kopf:
    """A stand-in for kopf's operator: it runs until its caller stops it, or until a test ends it."""

    def __init__(self):
        self.begun = 0
        self.ended = 0
        self.fails = threading.Event()
        self.failure = RuntimeError("404")
        self.settings = None

    async def __call__(self, *, settings, stop_flag, **_):
        self.begun += 1
        self.settings = settings
        while not stop_flag.is_set() and not self.fails.is_set():
            await asyncio.sleep(0.001)
        self.ended += 1
        if self.fails.is_set():
            self.fails.clear()
            raise self.failure


class Role:
    """The part of its role that a watch knows."""

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
    wakes = Watcher("apps", role.wake, lambda: role.knows_all)
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


@pytest.mark.parametrize(
    "failure", [RuntimeError("404"), asyncio.CancelledError()], ids=["error", "cancelled"]
)
def test_watch_that_ended_by_itself_wakes_a_pass_and_begins_anew(watched, failure):
    operator, role, wakes = watched
    operator.failure = failure
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
    assert backoffs[:5] == [1, 2, 4, 8, 15]
    assert set(backoffs[5:]) == {15}
    assert role.woken == 19


def test_watch_is_asked_for_anew_now_and_then(watched):
    operator, _, wakes = watched
    wakes.start()
    wait_until(lambda: operator.settings is not None)
    watching = operator.settings.watching
    assert isinstance(watching.server_timeout, int), "the API server takes nothing else"
    assert watching.client_timeout > watching.server_timeout


def resource(version=1, status=None, **metadata):
    return {
        "metadata": {"uid": "u-1", "resourceVersion": str(version), "generation": 1, **metadata},
        "spec": {"dimension": 4},
        "status": status or {},
    }


def event(kind, document):
    """As kopf hands it over; what it listed is of no kind."""
    return {"type": kind, "object": document}


@pytest.fixture
def news():
    """Return the news of one resource that is known already."""
    known = News()
    assert known.is_in(event(None, resource()))
    return known


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"generation": 2}, id="spec"),
        pytest.param({"annotations": {"vecstow.dev/replace": "true"}}, id="annotation"),
        pytest.param({"deletionTimestamp": "2026-11-22T10:00:00Z"}, id="deletion"),
        pytest.param({"finalizers": ["vecstow.dev/drop-collection"]}, id="finalizer"),
        pytest.param({"status": {"collectionUid": "c-1"}}, id="a collection that now has data"),
    ],
)
def test_what_others_write_is_news_once(news, changed):
    assert news.is_in(event("MODIFIED", resource(2, **changed)))
    assert not news.is_in(event("MODIFIED", resource(3, **changed)))


def test_what_the_manager_says_in_a_status_is_no_news(news):
    status = {"vectorCount": 7, "conditions": [{"type": "Ready", "status": "True"}]}
    assert not news.is_in(event("MODIFIED", resource(2, status)))


def test_end_of_a_resource_is_news_and_one_that_comes_again_too(news):
    assert news.is_in(event("DELETED", resource(2)))
    assert news.is_in(event("ADDED", resource(3)))


def test_kopf_is_told_to_compare_nothing(watched):
    """It would copy each resource twice for that, and more is spent on it than on all else of an event."""
    operator, _, wakes = watched
    wakes.start()
    wait_until(lambda: operator.settings is not None)
    storage = operator.settings.persistence.diffbase_storage
    body = kopf.Body(resource())
    assert (storage.build(body=body), storage.fetch(body=body)) == ({}, None)
    patch = kopf.Patch()
    storage.store(body=body, patch=patch, essence=kopf.BodyEssence())
    assert not patch
