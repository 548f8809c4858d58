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
    """Two pools, so that a backup of an hour never keeps a listing waiting."""

    def __init__(self) -> None:
        self._quick = ThreadPoolExecutor(4, thread_name_prefix="api")
        self._long = ThreadPoolExecutor(2, thread_name_prefix="api-long")

    async def quick(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what takes milliseconds."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, partial(call, *args, **kwargs))

    async def long(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what takes as long as a collection is large."""
        return await asyncio.get_running_loop().run_in_executor(self._long, partial(call, *args, **kwargs))

    def close(self) -> None:
        """Let running calls finish and start no more."""
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._long.shutdown(wait=False, cancel_futures=True)
