"""The account of requests: what is held together, by one request, and by answers."""

from __future__ import annotations

import threading

import pytest

from vecstow_engine.model.errors import Busy, TooLarge
from vecstow_engine.service.request_memory import SMALL_BYTES, Part, RequestMemory

MIB = 1 << 20


@pytest.fixture
def memory() -> RequestMemory:
    return RequestMemory(64 * MIB)


@pytest.mark.parametrize("part", [Part.BODIES, Part.DECODED])
def test_one_request_may_have_half_of_the_account(memory, part):
    lease = memory.lease()
    lease.take(Part.BODIES, 30 * MIB)
    lease.take(part, 2 * MIB)
    with pytest.raises(TooLarge) as refusal:
        lease.take(part, 1)
    assert refusal.value.details == {"field": "body", "value": 32 * MIB + 1, "limit": 32 * MIB}
    assert sum(memory.held_bytes) == 32 * MIB


def test_one_answer_may_have_half_of_what_answers_may_have(memory):
    lease = memory.lease()
    lease.grow(Part.ANSWERS, 16 * MIB)
    with pytest.raises(TooLarge, match="the answer takes 16777217 bytes"):
        lease.grow(Part.ANSWERS, 16 * MIB + 1)


def test_parts_of_all_requests_are_counted_together(memory):
    first, second, third = memory.lease(), memory.lease(), memory.lease()
    first.take(Part.BODIES, 20 * MIB)
    second.take(Part.DECODED, 20 * MIB)
    second.take(Part.ANSWERS, 12 * MIB)
    with pytest.raises(Busy) as refusal:
        third.take(Part.BODIES, 5 * MIB)
    assert refusal.value.retry_after_seconds == 1
    second.release()
    third.take(Part.BODIES, 5 * MIB)
    assert memory.held_bytes == [25 * MIB, 0, 0]


def test_answers_leave_room_for_writes(memory):
    leases = [memory.lease() for _ in range(3)]
    for lease in leases[:2]:
        lease.take(Part.ANSWERS, 16 * MIB)
    with pytest.raises(Busy):
        leases[2].take(Part.ANSWERS, MIB)
    leases[2].take(Part.BODIES, 20 * MIB)


def test_small_and_urgent_requests_have_room_of_their_own(memory):
    for _ in range(2):
        memory.lease().take(Part.BODIES, 28 * MIB)
    with pytest.raises(Busy):
        memory.lease().take(Part.BODIES, SMALL_BYTES + 1)
    for part in Part:
        memory.lease().take(part, SMALL_BYTES)
    memory.lease(is_urgent=True).take(Part.BODIES, MIB)


def test_small_requests_are_refused_when_even_their_room_is_taken(memory):
    for _ in range(64 * MIB // SMALL_BYTES):
        memory.lease().take(Part.BODIES, SMALL_BYTES)
    with pytest.raises(Busy):
        memory.lease().take(Part.BODIES, SMALL_BYTES)


def test_what_is_taken_already_is_held_in_any_case(memory):
    lease = memory.lease()
    lease.hold(Part.ANSWERS, 80 * MIB)
    with pytest.raises(Busy):
        memory.lease().take(Part.BODIES, 1)
    lease.hold(Part.ANSWERS, 0)
    memory.lease().take(Part.BODIES, 1)


def test_refusals_are_counted_by_part(memory):
    with pytest.raises(TooLarge):
        memory.lease().take(Part.DECODED, 100 * MIB)
    assert memory.refused == [0, 1, 0]


def test_threads_lose_nothing(memory):
    leases = [memory.lease() for _ in range(4)]

    def work(lease):
        for _ in range(2000):
            lease.take(Part.ANSWERS, 7)
            lease.take(Part.BODIES, 5)
            lease.hold(Part.BODIES, 0)

    threads = [threading.Thread(target=work, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.held_bytes == [0, 0, 4 * 2000 * 7]
