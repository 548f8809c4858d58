"""Steps of two requests in an order that a test sets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from vecstow_engine.storage import files


class Slowed:
    """A function that waits, once it is called, until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
        self.entered = threading.Event()
        self.goes_on = threading.Event()
        self._real = getattr(module, name)
        monkeypatch.setattr(module, name, self)

    def __call__(self, *values: Any, **options: Any) -> Any:
        self.entered.set()
        assert self.goes_on.wait(20)
        return self._real(*values, **options)


class SlowSync:
    """`data_sync` waits until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Semaphore(0)
        self.goes_on = threading.Semaphore(0)
        self.count = 0
        real = files.data_sync

        def sync(fd: int) -> None:
            self.count += 1
            self.entered.release()
            assert self.goes_on.acquire(timeout=20)
            real(fd)

        monkeypatch.setattr(files, "data_sync", sync)

    async def under_way(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=20)


def overtaken(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, by: Callable[[], object], *, times: int = 1
) -> None:
    """Let `by` happen after each of the first calls of a coroutine function, before its caller goes on."""
    real = getattr(module, name)
    left = times

    async def call(*values: Any, **options: Any) -> Any:
        nonlocal left
        answer = await real(*values, **options)
        left -= 1
        if left >= 0:
            by()
        return answer

    monkeypatch.setattr(module, name, call)
