"""The threads in which blocking calls of the service run: few, whatever the number of collections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from vecstow_engine.service.fair_pool import FairPool

WAITING_MAX: Final = 64
"""Calls that wait for a thread, in each of the slow pools."""

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """Three pools, so that no listing waits for a backup of an hour, nor for a drop that waits for it.

    In the slow ones no collection and no key takes the last thread.
    """

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(4, thread_name_prefix="api")
        self._waiting = FairPool(4, "api-waiting", WAITING_MAX)
        self._long = FairPool(3, "api-long", WAITING_MAX)

    async def quick(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what takes milliseconds, and waits for nobody."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, partial(call, *args, **kwargs))

    async def waiting(self, collection: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what takes milliseconds once its turn comes: others change names, or have the files."""
        return await self._waiting.run(collection, partial(call, *args, **kwargs))

    async def long(
        self, collection: str | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run what takes as long as a collection is large."""
        return await self._long.run(collection, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Let running calls finish and start no more."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._waiting.shutdown(wait=False)
        self._long.shutdown(wait=False)
