"""Collections share the indexer by the time that their slices take."""

import threading
from types import SimpleNamespace

import pytest

from tests.unit.running_engine import wait_until
from tests.waiting import SECONDS_MAX
from vecstow_engine.index.turns import SliceMeter
from vecstow_engine.model.errors import NotFound
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.service import indexer
from vecstow_engine.service.attempts import Attempts
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.indexer import Indexer, IndexingQueue


def collection(name):
    return Collection(Manifest(name=name, dimension=4, distance_metric=DistanceMetric.EUCLIDEAN))


def shares(turns, seconds, rounds):
    """How many turns each collection gets whose slices take so long, while it always has more to do."""
    count = dict.fromkeys(seconds, 0)
    for waiting in seconds:
        turns.add(waiting)
    for _ in range(rounds):
        taken = turns.take(0.0)
        count[taken] += 1
        turns.charge(taken, seconds[taken])
        turns.add(taken)
    return list(count.values())


def test_costly_slices_cost_their_own_collection_its_turns():
    """One of 65,536 dimensions or a large ef_construction has few slices while others have many."""
    costly, cheap, other = map(collection, ("costly", "cheap", "other"))
    assert shares(IndexingQueue(), {costly: 1.0, cheap: 0.01, other: 0.01}, 402) == [2, 200, 200]


def test_equal_slices_get_equal_turns():
    assert shares(IndexingQueue(), {collection(name): 0.02 for name in "abc"}, 300) == [100, 100, 100]


def test_time_in_which_a_collection_had_nothing_to_do_is_no_credit():
    busy, idle = collection("busy"), collection("idle")
    turns = IndexingQueue()
    shares(turns, {busy: 1.0}, 100)
    assert shares(turns, {busy: 1.0, idle: 1.0}, 20) == [10, 10]


def test_collection_stays_in_debt_for_a_long_slice_while_it_has_no_work():
    costly, cheap = collection("costly"), collection("cheap")
    turns = IndexingQueue()
    turns.add(costly)
    turns.add(cheap)
    assert turns.take(0.0) is costly
    turns.charge(costly, 1.0)
    for _ in range(50):
        turns.add(costly)  # a write came
        assert turns.take(0.0) is cheap
        turns.charge(cheap, 0.01)
        turns.add(cheap)


def test_collection_waits_once_however_often_it_is_notified():
    one = collection("one")
    turns = IndexingQueue()
    for _ in range(3):
        turns.add(one)
    assert turns.take(0.0) is one
    assert turns.take(0.0) is None


def test_postponed_collection_waits_for_no_turn_until_its_moment():
    one, other = collection("one"), collection("other")
    turns = IndexingQueue()
    turns.postpone(one, 2.0)
    assert not turns.add(one)  # a write came
    assert turns.add(other)
    assert turns.resumes_at == 2.0
    assert (turns.take(1.9), turns.take(1.9)) == (other, None)
    assert turns.take(2.0) is one
    assert (turns.resumes_at, turns.take(2.0)) == (None, None)


def test_slices_that_cost_more_leave_the_others_their_share(monkeypatch):
    """The thread itself, with a clock that each slice moves on."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(
        indexer, "time", SimpleNamespace(perf_counter=lambda: clock.now, monotonic=lambda: clock.now)
    )
    done = []

    def index(name, seconds, slices):
        left = iter(range(slices, 0, -1))

        def advance(threads):
            more = next(left, 0)
            if more:
                clock.now += seconds
                done.append(name)
            return more

        return SimpleNamespace(advance=advance, count=slices, indexed=0)

    costly, cheap = collection("costly"), collection("cheap")
    for found, seconds in ((costly, 1.0), (cheap, 0.1)):
        found.opened(None, None)
        found.index = index(found.name, seconds, 20)
    running = Indexer(1, Attempts(), SimpleNamespace(update=lambda collection: None))
    running.start()
    with running._lock:
        running._queue.add(costly)
    running.notify(cheap)
    wait_until(lambda: len(done) == 40)
    running.stop()
    assert done.index("cheap") <= 1
    assert done[:22].count("costly") == 2
    assert done[:24].count("cheap") == 20


@pytest.mark.parametrize(("left", "slices"), [(9, 1), (10, 3)])
def test_rows_gather_after_a_slice_that_leaves_few(left, slices, monkeypatch):
    monkeypatch.setattr(indexer, "GATHER_SECONDS", 1e6)
    one, moved = collection("one"), []
    one.opened(None, None)

    def advance(threads):
        moved.append(10)
        return 10 if len(moved) < 3 else 0

    one.index = SimpleNamespace(advance=advance, count=left, indexed=0)
    running = Indexer(1, Attempts(), SimpleNamespace(update=lambda collection: None))
    running.start()
    running.notify(one)
    wait_until(lambda: len(moved) == slices)
    wait_until(lambda: running._at_work is None)
    running.notify(one)  # a write came
    is_postponed = running._queue.resumes_at is not None
    running.stop()
    assert is_postponed == (slices == 1)


@pytest.mark.parametrize("is_dropped", [True, False], ids=["dropped meanwhile", "served"])
def test_slice_that_ends_with_its_collection_is_no_failure(is_dropped):
    one, attempts = collection("one"), Attempts()
    one.opened(None, None)
    began, goes_on = threading.Event(), threading.Event()

    def advance(threads):
        began.set()
        goes_on.wait(SECONDS_MAX)
        raise NotFound("collection 'one' does not exist")

    one.index = SimpleNamespace(advance=advance)
    running = Indexer(1, attempts, SimpleNamespace(update=lambda collection: None))
    running.start()
    running.notify(one)
    assert began.wait(SECONDS_MAX)
    if is_dropped:
        one.drop()
    goes_on.set()
    running.stop()
    assert bool(attempts.failures) is not is_dropped
    assert bool(one.troubles) is not is_dropped


@pytest.mark.parametrize("threads", [1, 8])
def test_slice_of_costly_rows_is_bounded_by_time(threads):
    meter = SliceMeter(0.02)
    for _ in range(200):
        meter.note(meter.rows(threads), meter.rows(threads) * 1.0)
    assert meter.rows(threads) == 1


def test_slice_of_cheap_rows_uses_every_thread():
    meter = SliceMeter(0.02)
    for _ in range(50):
        meter.note(meter.rows(8), meter.rows(8) * 0.001)
    assert meter.rows(8) == 64


def test_first_slice_of_a_graph_is_shorter_the_more_its_rows_cost():
    assert SliceMeter(0.02, 65_536 * 2000).rows(8) == 1
    assert SliceMeter(0.02, 128 * 200).rows(1) == 64
