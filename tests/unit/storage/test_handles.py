"""Open handles: few, shared, opened in parallel, and closed only by the last user."""

import os
import threading

import pytest

from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.errors import DiskFull
from vecstow_engine.storage.handles import HandleCache


class Handle:
    def __init__(self, opened):
        self.opened = opened
        opened.append(self)

    def close(self):
        self.opened.remove(self)


def test_idle_handles_beyond_the_limit_are_closed_oldest_first():
    opened = []
    cache = HandleCache(2)
    for key in "abca":
        with cache.borrow(key, lambda: Handle(opened)) as handle:
            handle.key = key
    assert [handle.key for handle in opened] == ["c", "a"]
    cache.close()
    assert opened == []


def test_handle_in_use_is_never_closed():
    opened = []
    cache = HandleCache(1)
    with cache.borrow("a", lambda: Handle(opened)) as first:
        for key in "bcd":
            with cache.borrow(key, lambda: Handle(opened)):
                assert first in opened
        cache.discard("a")
        assert first in opened
        with cache.borrow("a", lambda: Handle(opened)) as second:
            assert second is not first
    assert first not in opened
    cache.close()
    assert opened == []


def test_opener_that_fails_leaves_nothing_behind():
    cache = HandleCache(1)
    with pytest.raises(OSError, match="no"), cache.borrow("a", fail):
        pass
    assert len(cache) == 0


def fail():
    raise OSError("no")


def test_idle_handle_that_cannot_be_closed_keeps_nobody_from_another_one():
    """The borrower of another handle, perhaps of another collection, has no part in the failed close."""
    opened, unclosed = [], []
    cache = HandleCache(1, unclosed=unclosed.append)
    with cache.borrow("a", lambda: Handle(opened)) as first:
        first.close = fail
    with cache.borrow("b", lambda: Handle(opened)) as second:
        assert [str(error) for error in unclosed] == ["no"]
    assert len(cache) == 1
    second.close = fail
    cache.close()
    assert (len(cache), len(unclosed)) == (0, 2)


def test_slow_opening_keeps_nobody_waiting_for_another_handle():
    cache = HandleCache(2)
    begun, goes_on = threading.Event(), threading.Event()

    def slow():
        begun.set()
        assert goes_on.wait(20)
        return Handle([])

    def borrow_slowly():
        with cache.borrow("slow", slow):
            pass

    thread = threading.Thread(target=borrow_slowly)
    thread.start()
    assert begun.wait(20)
    with cache.borrow("quick", lambda: Handle([])):
        goes_on.set()
    thread.join()


def test_handle_is_opened_once_however_many_want_it_at_once():
    cache = HandleCache(2)
    opened = []
    together = threading.Barrier(4)

    def borrow():
        together.wait(20)
        with cache.borrow("a", lambda: Handle(opened)):
            together.wait(20)

    threads = [threading.Thread(target=borrow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


@pytest.mark.parametrize("there_is_room", [True, False])
def test_handle_that_finds_no_room_is_tried_again_when_room_was_made(there_is_room):
    attempts = []

    def opener():
        attempts.append(1)
        if len(attempts) == 1:
            raise DiskFull("no room for -shm")
        return Handle([])

    cache = HandleCache(1, lambda: there_is_room)
    if there_is_room:
        with cache.borrow("a", opener):
            assert len(attempts) == 2
    else:
        with pytest.raises(DiskFull), cache.borrow("a", opener):
            pass
        assert len(cache) == 0


async def test_files_stay_few_however_many_collections_there_are(tmp_path):
    with RunningEngine(tmp_path / "data", handles_max=8) as engine:
        before = len(list(open_files()))
        for number in range(40):
            engine.declare(f"c{number}")
            await engine.put(f"c{number}", a=number + 1)
            engine.checkpoint(f"c{number}")
        for number in range(40):
            assert await engine.values(f"c{number}", "a") == [number + 1]
        assert len(list(open_files())) <= before + 8 * 3


def open_files():
    for number in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
