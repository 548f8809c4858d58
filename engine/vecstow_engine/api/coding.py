"""Decoding of bodies and encoding of answers: small ones on the event loop, large ones in two threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

INLINE_BYTES_MAX: Final = 65_536
"""Bytes that are decoded or encoded in a few milliseconds at most, for any content."""
THREADS: Final = 2

_threads: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="coding")


async def run_coding(size: int, call: Callable[..., T], *args: object) -> T:
    """Call `call`, which handles `size` bytes, and return its result; use a thread for a large size."""
    if size <= INLINE_BYTES_MAX:
        return call(*args)
    return await asyncio.get_running_loop().run_in_executor(_threads, call, *args)
