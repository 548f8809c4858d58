"""The threads in which blocking calls of the service run: few, whatever the number of collections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """Three pools, so that no listing waits for a backup of an hour, nor for a drop that waits for it."""

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(4, thread_name_prefix="api")
        self._waiting = ThreadPoolExecutor(2, thread_name_prefix="api-waiting")
        self._long = ThreadPoolExecutor(2, thread_name_prefix="api-long")

    async def quick(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what takes milliseconds, and waits for nobody."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, partial(call, *args, **kwargs))

    async def waiting(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what takes milliseconds once its turn comes: others change names, or have the files."""
        return await asyncio.get_running_loop().run_in_executor(self._waiting, partial(call, *args, **kwargs))

    async def long(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what takes as long as a collection is large."""
        return await asyncio.get_running_loop().run_in_executor(self._long, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Let running calls finish and start no more."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._waiting.shutdown(wait=False, cancel_futures=True)
        self._long.shutdown(wait=False, cancel_futures=True)
