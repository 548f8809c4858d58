"""The Lease keeps a second manager from acting: renewals in time and losses in time, both reported."""

import copy
from types import SimpleNamespace

import pytest
import structlog
from kubernetes.client import V1Lease
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from vecstow_operator.manager import lease as lease_module
from vecstow_operator.manager.lease import DURATION_SECONDS, RENEW_SECONDS, RETRY_SECONDS, Lease, owner_of

BEGUN = 1000.0


class Leases:
    """Stands in for the API server's: one Lease, and whether it answers."""

    def __init__(self, now):
        self.lease, self.tries, self.is_away, self.took = None, 0, False, 0.0
        self._now = now

    def read_namespaced_lease(self, name, namespace):
        self.tries += 1
        self._now.seconds += self.took
        if self.is_away:
            raise HTTPError("read timed out")
        if self.lease is None:
            raise ApiException(status=404)
        return copy.deepcopy(self.lease)

    def create_namespaced_lease(self, namespace, body):
        self.lease = V1Lease(metadata=body.metadata, spec=body.spec)
        return self.lease

    def replace_namespaced_lease(self, name, namespace, body):
        self.lease = copy.deepcopy(body)

    @property
    def held(self):
        """By whom, and for how long."""
        return self.lease.spec.holder_identity, self.lease.spec.lease_duration_seconds


@pytest.fixture
def site(monkeypatch):
    """A clock that sleeps, and the API server; `lease(name)` is a process's own."""
    now = SimpleNamespace(seconds=BEGUN, meanwhile=lambda: None)

    def sleep(seconds):
        for _ in range(seconds):
            now.seconds += 1
            now.meanwhile()

    monkeypatch.setattr(lease_module, "time", SimpleNamespace(monotonic=lambda: now.seconds, sleep=sleep))
    now.server = Leases(now)

    def lease(identity="manager", pod=None):
        made = Lease("vecstow-manager", "apps", pod)
        made._lock.identity = identity
        instance = made._lock.api_instance
        instance.read_namespaced_lease = now.server.read_namespaced_lease
        instance._create = now.server.create_namespaced_lease
        instance._replace = now.server.replace_namespaced_lease
        return made

    now.lease, now.sleep = lease, sleep
    return now


def test_lease_is_not_asked_for_at_every_pass(site):
    lease = site.lease()
    for _ in range(10):
        assert lease.is_held()
    assert site.server.tries == 1
    site.seconds += RETRY_SECONDS
    assert lease.is_held()
    assert site.server.tries == 2


def test_lease_that_is_not_renewed_is_lost_before_another_may_take_it(site):
    lease, other = site.lease(), site.lease("other")
    with structlog.testing.capture_logs() as logs:
        assert lease.is_held()
        site.server.is_away = True
        for second in range(1, DURATION_SECONDS):
            site.seconds = BEGUN + second
            assert lease.is_held() is (second < RENEW_SECONDS)
    assert [line["event"] for line in logs] == ["lease taken", "lease lost"]
    site.server.is_away = False
    assert not other.is_held()


def test_lease_that_ends_during_a_slow_renewal_is_lost(site):
    lease = site.lease()
    assert lease.is_held()
    site.seconds += 2 * RETRY_SECONDS
    site.server.is_away, site.server.took = True, 3.0
    assert not lease.is_held()


def test_lease_of_one_that_is_gone_is_anothers_when_its_time_is_over(site):
    lease, other = site.lease(), site.lease("other")
    assert lease.is_held()
    for second in range(DURATION_SECONDS):
        site.seconds = BEGUN + second
        assert not other.is_held()
    site.seconds += RETRY_SECONDS
    assert other.is_held()
    assert site.server.held == ("other", DURATION_SECONDS)


def test_holder_that_is_waited_for_is_named_once(site):
    lease, other = site.lease(), site.lease("other")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            assert lease.is_held()
            assert not other.is_held()
            site.seconds += RETRY_SECONDS
    assert [(line["event"], line.get("holder")) for line in logs] == [
        ("lease taken", None),
        ("lease held by another", "manager"),
    ]


def test_lease_that_is_seized_is_nobody_elses_for_as_long_as_was_asked(site):
    """An uninstall ends the manager in that minute; until then it must not act."""
    manager, hook = site.lease(), site.lease("hook")
    assert manager.is_held()
    site.meanwhile = manager.is_held
    hook.seize(60)
    site.meanwhile = lambda: None
    assert (site.seconds, site.server.held) == (BEGUN + RENEW_SECONDS, ("hook", 60))
    while site.seconds < BEGUN + 60:
        assert not manager.is_held(), f"after {site.seconds - BEGUN} s"
        site.seconds += 1
    site.seconds += 2 * RETRY_SECONDS
    assert manager.is_held()


def test_lease_is_seized_where_there_was_none(site):
    site.lease("hook").seize(60)
    assert site.server.held == ("hook", 60)


def test_lease_goes_with_the_pod_of_the_manager_that_held_it_last(site):
    """Kubernetes removes it with its owner: an uninstall leaves none, and the hook before it is no owner."""
    first, second = owner_of("manager-a", "p-1"), owner_of("manager-b", "p-2")
    assert site.lease("a", first).is_held()
    assert site.server.lease.metadata.owner_references == [first]
    site.seconds += 2 * DURATION_SECONDS
    other = site.lease("b", second)
    assert not other.is_held()
    site.seconds += 2 * DURATION_SECONDS
    assert other.is_held()
    assert site.server.lease.metadata.owner_references == [second]
    site.lease("hook").seize(60)
    assert site.server.lease.metadata.owner_references == [second]


@pytest.mark.parametrize(("name", "uid"), [(None, None), ("manager", None), ("", "p-1")])
def test_process_outside_of_a_pod_makes_a_lease_without_an_owner(name, uid):
    assert owner_of(name, uid) is None


# The end ---------------------------------------------------------------------------------------------------


def test_lease_that_is_held_is_let_go_at_the_end(site):
    """The end releases the Lease as other controllers do: no holder, and a duration of one second."""
    lease, other = site.lease(), site.lease("other")
    assert lease.is_held()
    lease.release()
    assert site.server.held == ("", 1)
    assert other.is_held()


def test_lease_that_was_never_held_or_is_anothers_by_now_is_not_touched(site):
    lease, other = site.lease(), site.lease("other")
    other.seize(DURATION_SECONDS)
    lease.release()
    site.seconds += 2 * DURATION_SECONDS
    assert not lease.is_held()
    site.seconds += DURATION_SECONDS
    assert lease.is_held()
    other.seize(DURATION_SECONDS)
    lease.release()
    assert site.server.held == ("other", DURATION_SECONDS)


def test_end_waits_for_no_api_server(site):
    lease = site.lease()
    assert lease.is_held()
    site.server.is_away = True
    lease.release()
