"""The threads for blocking calls of the service; their number does not depend on the collections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from vecstow_engine.service.searcher import FairPool

WAITING_MAX: Final = 64
"""The most calls that wait for a thread, in each of the slow pools."""

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """Three pools: a listing never waits for a backup of an hour, nor for a drop that waits for that backup.

    In the two slow pools no collection and no key takes the last thread.
    """

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(4, thread_name_prefix="api")
        self._waiting = FairPool(4, "api-waiting", WAITING_MAX)
        self._long = FairPool(3, "api-long", WAITING_MAX)

    async def quick(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that takes milliseconds and waits for no lock; return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, partial(call, *args, **kwargs))

    async def waiting(self, collection: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that may wait long for a lock on names or files, and then takes milliseconds."""
        return await self._waiting.run(collection, partial(call, *args, **kwargs))

    async def long(
        self, collection: str | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a call whose time grows with the size of a collection."""
        return await self._long.run(collection, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Start no more calls; let the running calls finish."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._waiting.shutdown(wait=False)
        self._long.shutdown(wait=False)
