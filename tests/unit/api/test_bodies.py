"""Request bodies: bounded in bytes, in memory and in time."""

from __future__ import annotations

import asyncio

import pytest

from vecstow_engine.api.errors import SlowBody
from vecstow_engine.api.request import BodyLimit, Disconnected, Request
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.errors import Busy, TooLarge
from vecstow_engine.service.request_memory import Part, RequestMemory


class Sender:
    """Gives chunks one by one and counts how many were asked for; after the last it hangs or disconnects."""

    def __init__(self, *chunks: bytes, ends: str = "well") -> None:
        self.chunks = list(chunks)
        self.ends = ends
        self.asked = 0

    async def __call__(self) -> dict[str, object]:
        self.asked += 1
        if self.chunks:
            chunk = self.chunks.pop(0)
            return {
                "type": "http.request",
                "body": chunk,
                "more_body": bool(self.chunks) or self.ends != "well",
            }
        if self.ends == "leaves":
            return {"type": "http.disconnect"}
        await asyncio.Event().wait()
        raise AssertionError


async def send_nothing(message: dict[str, object]) -> None:
    raise AssertionError(message)


class Reader:
    """Reads bodies into one account."""

    def __init__(self, memory_bytes: int = 1 << 20, **settings) -> None:
        self.memory = RequestMemory(memory_bytes)
        self.settings = HttpSettings(**settings)
        self.lease = self.memory.lease()

    async def read(self, sender: Sender, declared: int | None, limit: int) -> bytes | bytearray:
        request = Request({}, sender, send_nothing, self.lease, self.settings, declared_bytes=declared)
        await request.read_body(BodyLimit(limit))
        return request.body

    @property
    def held_bytes(self) -> int:
        return self.memory.held_bytes[Part.BODIES]


async def test_chunks_are_joined_and_held():
    reader = Reader()
    assert await reader.read(Sender(b"ab", b"", b"c"), None, 10) == b"abc"
    assert reader.held_bytes == 3
    reader.lease.release()
    assert reader.held_bytes == 0


async def test_a_declared_length_over_the_limit_is_refused_unread():
    sender = Sender(b"x" * 11)
    with pytest.raises(TooLarge, match="11 bytes"):
        await Reader().read(sender, 11, 10)
    assert sender.asked == 0


async def test_chunks_over_the_limit_are_refused_as_soon_as_they_pass_it():
    sender = Sender(*[b"x" * 4] * 100)
    with pytest.raises(TooLarge, match="the limit is 10"):
        await Reader().read(sender, None, 10)
    assert sender.asked == 3


async def test_a_body_of_exactly_the_limit_is_read():
    assert len(await Reader().read(Sender(b"x" * 10), 10, 10)) == 10


async def test_a_body_that_does_not_fit_the_account_is_refused():
    reader = Reader()
    other = reader.memory.lease()
    other.hold(Part.DECODED, reader.memory.bytes_max - 5)
    with pytest.raises(Busy) as refusal:
        await reader.read(Sender(b"abc", b"def"), None, 10)
    assert refusal.value.retry_after_seconds == 1
    assert reader.held_bytes == 0
    assert len(await reader.read(Sender(b"abc", b"de"), None, 10)) == 5


@pytest.mark.parametrize("error", [TooLarge, SlowBody, Disconnected])
async def test_a_refused_body_holds_nothing(error):
    reader = Reader(body_seconds_max=0.01, body_bytes_per_second_min=1)
    limit = 2000 if error is TooLarge else 10_000
    sender = Sender(bytes(2000), b"xy", ends={TooLarge: "well", SlowBody: "hangs"}.get(error, "leaves"))
    with pytest.raises(error):
        await reader.read(sender, None, limit)
    assert reader.held_bytes == 0


async def test_a_body_that_never_comes_is_given_up():
    with pytest.raises(SlowBody):
        await Reader(body_seconds_max=0.01).read(Sender(ends="hangs"), 5, 10)
