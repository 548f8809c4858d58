"""The part "model" sees what it is there to see, and its oracle is right."""

import contextlib

import numpy as np
import pytest

from tests.crash.model.part import Examples
from tests.crash.model.site import CALLS_OF_A_START, Site
from tests.crash.nearest import wrong_hits
from vecstow_engine.model.errors import DiskFull
from vecstow_engine.model.searches import Hit
from vecstow_engine.storage.store import Store

DISTANCES = {
    "Euclidean": {"near": 5.0, "far": 10.0},
    "Manhattan": {"near": 7.0, "far": 14.0},
}


def points():
    """From (3, 4) both lie in the same direction."""
    return {"near": (vector(6, 8), None), "far": (vector(9, 12), None)}


def vector(*values):
    return np.array(values, "<f4").tobytes()


def wrong(metric, hits, limit=2):
    told = [Hit(point_id, distance, None) for point_id, distance in hits]
    return wrong_hits(metric, np.array([3, 4], np.float32), limit, told, points())


@pytest.mark.parametrize("metric", ["Euclidean", "Manhattan"])
def test_right_hits_are_right(metric):
    hits = list(DISTANCES[metric].items())
    assert wrong(metric, hits) is None
    assert wrong(metric, hits[:1], limit=1) is None


@pytest.mark.parametrize(
    ("hits", "told"),
    [
        pytest.param([("near", 5.0)], "1 hits of 2", id="one is missing"),
        pytest.param([("far", 10.0), ("near", 5.0)], "nearest first", id="out of order"),
        pytest.param([("near", 5.0), ("near", 5.0)], "found twice", id="twice"),
        pytest.param([("near", 5.0), ("gone", 10.0)], "not there", id="a stranger"),
        pytest.param([("near", 5.0), ("far", 9.9)], "is 10 away", id="a wrong distance"),
    ],
)
def test_wrong_hits_are_told(hits, told):
    assert told in (wrong("Euclidean", hits) or "")


def test_farther_hit_in_the_place_of_a_nearer_one_is_told():
    assert "one is there at 5" in (wrong("Euclidean", [("far", 10.0)], limit=1) or "")


@pytest.mark.timeout(300)
def test_replay_that_forgets_what_the_table_has_is_found(tmp_path, monkeypatch):
    def forgetful(self, effect, sequence):
        return self.layers.apply(effect, sequence, self.layers.live_slots(effect.ids, in_table=False))

    monkeypatch.setattr(Store, "replay", forgetful)
    [finding] = Examples(1, 60).run(tmp_path).findings
    assert "state.kill" in finding.what


@pytest.mark.parametrize("call", CALLS_OF_A_START)
def test_start_is_killed_at_each_call(tmp_path, call):
    """A call that recovery makes no more would leave its kill out, unseen."""
    site = Site(tmp_path)
    try:
        site.engine.declare()
        site.do(site.engine.put(a=1))
        with site.without_room(), contextlib.suppress(DiskFull):
            site.engine.checkpoint("notes")
        site.do(site.engine.put(b=2))  # in a second segment
        site.kill_in_start(call)
        assert site.did["kills in a start"] == 1
        assert site.do(site.engine.values("notes", "a", "b")) == [1, 2]
    finally:
        site.close()
