"""The manager's state by its Lease."""

import datetime
from types import SimpleNamespace

import pytest

from vecstow_operator.plugin.status import STALE_SECONDS, sentence_of

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def lease(holder, seconds):
    return SimpleNamespace(holder_identity=holder, renew_time=NOW - datetime.timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(lease("manager-1", 5), None, id="renewed"),
        pytest.param(lease("manager-1", -30), None, id="renewed by a clock that is ahead"),
        pytest.param(lease("manager-1", STALE_SECONDS + 1), "manager manager-1 has not renewed", id="hangs"),
        pytest.param(lease("", 5), "no manager runs: the last one ended in order", id="uninstalled"),
    ],
)
def test_manager_that_does_not_renew_its_lease_is_away(spec, expected):
    said = sentence_of(spec, NOW)
    assert (said is None) if expected is None else said.startswith(expected)
