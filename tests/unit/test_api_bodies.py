"""Request bodies: bounded in bytes, in memory and in time."""

from __future__ import annotations

import asyncio

import pytest

from vecstow_engine.api.bodies import FREE_BYTES, Bodies, Disconnected
from vecstow_engine.api.errors import SlowBody
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.errors import Busy, TooLarge


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


def bodies(**settings) -> Bodies:
    return Bodies(HttpSettings(**settings))


async def test_chunks_are_joined():
    assert await bodies().read(Sender(b"ab", b"", b"c"), None, 10) == b"abc"


async def test_a_declared_length_over_the_limit_is_refused_unread():
    sender = Sender(b"x" * 11)
    with pytest.raises(TooLarge, match="11 bytes"):
        await bodies().read(sender, 11, 10)
    assert sender.asked == 0


async def test_chunks_over_the_limit_are_refused_as_soon_as_they_pass_it():
    sender = Sender(*[b"x" * 4] * 100)
    with pytest.raises(TooLarge, match="the limit is 10"):
        await bodies().read(sender, None, 10)
    assert sender.asked == 3


async def test_a_body_of_exactly_the_limit_is_read():
    assert len(await bodies().read(Sender(b"x" * 10), 10, 10)) == 10


async def test_large_bodies_share_a_budget_that_small_ones_do_not_touch():
    reader = bodies(body_memory_bytes_max=2 * FREE_BYTES)
    held = await reader.read(Sender(bytes(2 * FREE_BYTES)), None, 10 * FREE_BYTES)
    assert reader.held_bytes == 2 * FREE_BYTES
    with pytest.raises(Busy) as refusal:
        await reader.read(Sender(bytes(FREE_BYTES), b"x"), None, 10 * FREE_BYTES)
    assert refusal.value.retry_after_seconds == 1
    assert len(await reader.read(Sender(bytes(FREE_BYTES - 1), b"x"), None, 10 * FREE_BYTES)) == FREE_BYTES
    reader.release(held)
    assert reader.held_bytes == 0


@pytest.mark.parametrize("error", [TooLarge, SlowBody, Disconnected])
async def test_a_refused_body_holds_nothing(error):
    reader = bodies(body_seconds_max=0.01, body_bytes_per_second_min=1)
    limit = 2 * FREE_BYTES if error is TooLarge else 10 * FREE_BYTES
    sender = Sender(
        bytes(2 * FREE_BYTES), b"xy", ends={TooLarge: "well", SlowBody: "hangs"}.get(error, "leaves")
    )
    with pytest.raises(error):
        await reader.read(sender, None, limit)
    assert reader.held_bytes == 0


async def test_a_body_that_never_comes_is_given_up():
    with pytest.raises(SlowBody):
        await bodies(body_seconds_max=0.01).read(Sender(ends="hangs"), 5, 10)
