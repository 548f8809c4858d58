"""The loop of passes: by the clock, sooner when woken, whatever a pass raises, until it is stopped."""

import os
import queue
import signal
import threading
from contextlib import contextmanager

import pytest
import structlog

from tests.waiting import SECONDS_MAX
from vecstow_operator import loop as loop_module
from vecstow_operator.health import Heartbeat
from vecstow_operator.loop import Loop

NEVER = 1e6


class Passes:
    """Each pass, with whether it was woken; `during` is called in it."""

    def __init__(self):
        self.queue = queue.Queue()
        self.during = lambda: None

    def __call__(self, *, is_woken):
        self.queue.put(is_woken)
        self.during()

    def next(self):
        return self.queue.get(timeout=SECONDS_MAX)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Wakes are not gathered: no test waits for the clock."""
    monkeypatch.setattr(loop_module, "GATHER_SECONDS", 0.0)


@contextmanager
def running(passes, tick_seconds=NEVER, heartbeat=None):
    loop = Loop(passes, tick_seconds, heartbeat or Heartbeat())
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield loop
    finally:
        loop.stop()
        thread.join(SECONDS_MAX)
    assert not thread.is_alive()


def test_first_pass_counts_as_woken_and_comes_at_once():
    passes = Passes()
    with running(passes):
        assert passes.next() is True


def test_pass_by_the_clock_is_not_woken():
    passes = Passes()
    with running(passes, tick_seconds=0.001):
        assert [passes.next() for _ in range(3)] == [True, False, False]


def test_wake_brings_the_next_pass_before_its_time():
    passes = Passes()
    with running(passes) as loop:
        passes.next()
        loop.wake()
        assert passes.next() is True


def test_wake_during_a_pass_is_not_lost():
    passes = Passes()
    with running(passes) as loop:
        passes.during = loop.wake
        loop.wake()
        assert [passes.next() for _ in range(4)] == [True] * 4
        passes.during = lambda: None


def test_wakes_that_come_together_are_one_pass():
    passes = Passes()
    inside, go_on = threading.Event(), threading.Event()

    def during():
        inside.set()
        go_on.wait(SECONDS_MAX)

    passes.during = during
    with running(passes) as loop:
        assert inside.wait(SECONDS_MAX)
        for _ in range(100):
            loop.wake()
        go_on.set()
        assert [passes.next(), passes.next()] == [True, True]
        assert passes.queue.empty()


def test_wake_just_after_the_time_was_up_counts_for_a_later_pass():
    """Between the end of the wait and what is done with it: the next pass may have listed already."""

    class Late(threading.Event):
        waits = 0

        def wait(self, timeout=None):
            self.waits += 1
            if self.waits == 1:
                self.set()
                return False
            return super().wait(timeout)

    passes = Passes()
    loop = Loop(passes, NEVER, Heartbeat(), _woken=Late())
    thread = threading.Thread(target=loop.run)
    thread.start()
    assert [passes.next() for _ in range(3)] == [True, False, True]
    loop.stop()
    thread.join(SECONDS_MAX)


def test_exception_ends_the_pass_and_not_the_loop():
    passes = Passes()
    beaten = []
    heartbeat = Heartbeat(lambda: float(len(beaten)))

    def fail():
        beaten.append(1)
        raise RuntimeError("nobody expected it")

    passes.during = fail
    with structlog.testing.capture_logs() as logs, running(passes, 0.001, heartbeat):
        for _ in range(3):
            passes.next()
    assert {line["event"] for line in logs} == {"pass failed"}
    assert not heartbeat.stands_still


@pytest.mark.parametrize(
    ("took", "worked", "waits"),
    [
        pytest.param(40.0, 40.0, 40.0, id="it computed all the time"),
        pytest.param(40.0, 30.0, 20.0, id="it waited for others now and then"),
        pytest.param(40.0, 10.0, 0.0, id="it waited for others"),
    ],
)
def test_passes_leave_half_of_a_core_to_others(monkeypatch, took, worked, waits):
    """Many changes make fewer, larger passes: the next one waits as long as the last one computed."""
    clock, processor = [0.0], [0.0]
    waited = []

    class Stopped(threading.Event):
        def wait(self, timeout=None):
            waited.append(timeout)
            return self.is_set()

    monkeypatch.setattr(loop_module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop_module.time, "thread_time", lambda: processor[0])
    passes = Passes()

    def during():
        clock[0] += took
        processor[0] += worked
        if len(waited) == 2:
            loop.stop()
        loop.wake()

    passes.during = during
    loop = Loop(passes, 5.0, Heartbeat(lambda: 0.0), stopped=Stopped())
    loop.run()
    assert waited == [waits] * 3


def test_stopped_loop_begins_no_pass():
    passes = Passes()
    loop = Loop(passes, NEVER, Heartbeat())
    loop.stop()
    loop.run()
    assert passes.queue.empty()


def test_pass_under_way_is_finished():
    passes = Passes()
    done = []
    loop = Loop(passes, NEVER, Heartbeat())
    passes.during = lambda: (loop.stop(), done.append(1))
    loop.run()
    assert done == [1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_signal_ends_it_in_order(number):
    passes = Passes()
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        loop = Loop(passes, NEVER, Heartbeat())
        loop.stop_on_signals()
        passes.during = lambda: os.kill(os.getpid(), number)
        loop.run()
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert passes.queue.qsize() == 1
