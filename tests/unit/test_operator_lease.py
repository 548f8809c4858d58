"""The Lease that keeps a second manager from acting: renewed in time, lost in time, and both are told."""

from types import SimpleNamespace

import pytest
import structlog

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
