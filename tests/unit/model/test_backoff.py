"""The pauses between attempts that fail."""

import pytest

from vecstow_engine.model.backoff import Backoff


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        pytest.param(Backoff(1.0, 300.0), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300], id="the engine's"),
        pytest.param(Backoff(4.0, 30.0), [4, 8, 16, 30, 30], id="a bound that is no power of two"),
        pytest.param(Backoff(0.0, 300.0), [0, 0, 0], id="no pause at all"),
    ],
)
def test_pause_doubles_up_to_its_bound(backoff, expected):
    pauses = [backoff.after(None)]
    while len(pauses) < len(expected):
        pauses.append(backoff.after(pauses[-1]))
    assert pauses == expected


def test_pause_shrinks_to_a_lower_bound():
    """A failure of another kind may have another bound."""
    assert Backoff(1.0, 30.0).after(256.0) == 30.0
