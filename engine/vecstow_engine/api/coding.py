"""Where bodies are decoded and answers encoded: small ones on the event loop, large ones in two threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

INLINE_BYTES_MAX: Final = 65_536
"""Bytes that are decoded or encoded within a slice of a few milliseconds, whatever they hold."""
THREADS: Final = 2

_threads: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="coding")


async def run_coding(size: int, call: Callable[..., T], *args: object) -> T:
    """Return what `call` returns, which handles `size` bytes; a large size goes to a thread."""
    if size <= INLINE_BYTES_MAX:
        return call(*args)
    return await asyncio.get_running_loop().run_in_executor(_threads, call, *args)
