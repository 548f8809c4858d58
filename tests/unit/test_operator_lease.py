"""The Lease that keeps a second manager from acting: renewed in time, lost in time, and both are told."""

from types import SimpleNamespace

import pytest
import structlog
from kubernetes.client import V1Lease, V1LeaseSpec
from urllib3.exceptions import HTTPError

from vecstow_operator.manager import lease as lease_module
from vecstow_operator.manager.lease import RENEW_SECONDS, RETRY_SECONDS, Lease


@pytest.fixture
def held(monkeypatch):
    """A lease, the clock, and whether the API server renews it."""
    now = SimpleNamespace(seconds=1000.0, is_renewed=True, tries=0, took=0.0)
    monkeypatch.setattr(lease_module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    lease = Lease("vecstow-manager", "apps")

    def renewed():
        now.tries += 1
        now.seconds += now.took
        return now.is_renewed

    lease._election.try_acquire_or_renew = renewed
    return lease, now


def test_lease_is_not_asked_for_at_every_pass(held):
    lease, now = held
    for _ in range(10):
        assert lease.is_held()
    assert now.tries == 1
    now.seconds += RETRY_SECONDS
    assert lease.is_held()
    assert now.tries == 2


def test_lease_that_is_not_renewed_is_lost_before_another_may_take_it(held):
    lease, now = held
    with structlog.testing.capture_logs() as logs:
        assert lease.is_held()
        now.is_renewed = False
        for second in range(1, 20):
            now.seconds = 1000.0 + second
            assert lease.is_held() is (second < RENEW_SECONDS)
    assert [line["event"] for line in logs] == ["lease taken", "lease lost"]


def test_lease_that_ends_during_a_slow_renewal_is_lost(held):
    lease, now = held
    assert lease.is_held()
    now.seconds += 2 * RETRY_SECONDS
    now.is_renewed, now.took = False, 3.0
    assert not lease.is_held()


def test_lease_of_another_is_waited_for(held):
    lease, now = held
    now.is_renewed = False
    assert not lease.is_held()
    now.seconds += RETRY_SECONDS
    now.is_renewed = True
    assert lease.is_held()


class Leases:
    """Stands in for the API server's: one Lease, and whether it answers."""

    def __init__(self, holder):
        spec = V1LeaseSpec(holder_identity=holder, lease_duration_seconds=15)
        self.lease, self.replaced, self.is_away = V1Lease(spec=spec), [], False

    def read_namespaced_lease(self, name, namespace):
        if self.is_away:
            raise HTTPError("read timed out")
        return self.lease

    def replace_namespaced_lease(self, name, namespace, body):
        self.replaced.append((body.spec.holder_identity, body.spec.lease_duration_seconds))


@pytest.fixture
def ending(held):
    """A lease, and a function that gives it this holder as it ends."""
    lease, _ = held
    lock = lease._election.election_config.lock

    def ending(holder=lock.identity, *, is_away=False):
        lock.api_instance = Leases(holder)
        lock.api_instance.is_away = is_away
        lease.release()
        return lock.api_instance.replaced

    return lease, ending


def test_lease_that_is_held_is_let_go_at_the_end(ending):
    """As other controllers do it: nobody holds it, and for no longer than a second."""
    lease, end = ending
    assert lease.is_held()
    assert end() == [("", 1)]


def test_lease_that_was_never_held_or_is_anothers_by_now_is_not_touched(ending):
    lease, end = ending
    assert end() == []
    assert lease.is_held()
    assert end("another-1") == []


def test_end_waits_for_no_api_server(ending):
    lease, end = ending
    assert lease.is_held()
    assert end(is_away=True) == []
