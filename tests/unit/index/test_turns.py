"""The lock of the graph is handed on in the order in which it was asked for."""

import threading

import pytest

from tests.unit.watched_turns import WatchedTurns


@pytest.fixture
def turns():
    return WatchedTurns()


def test_turns_go_to_whoever_asked_first(turns):
    order = []

    def take(number):
        with turns:
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
    with turns:
        for thread in threads:
            thread.start()
            turns.queued.acquire()
        order.append("holder")
    for thread in threads:
        thread.join()
    assert order == ["holder", 0, 1, 2, 3, 4]


def test_a_releasing_thread_that_asks_again_does_not_overtake(turns):
    order = []

    def waiter():
        with turns:
            order.append("waiter")

    thread = threading.Thread(target=waiter)
    with turns:
        thread.start()
        turns.queued.acquire()
    with turns:
        order.append("holder again")
    thread.join()
    assert order == ["waiter", "holder again"]


def test_only_one_thread_is_inside(turns):
    inside, seen = [], []

    def work():
        for _ in range(200):
            with turns:
                inside.append(1)
                seen.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [1] * 800


def test_an_error_inside_gives_the_turn_back(turns):
    with pytest.raises(ValueError, match="inside"), turns:
        raise ValueError("inside")
    with turns:
        assert turns._held
