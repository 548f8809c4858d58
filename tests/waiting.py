"""Waiting for what others do, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SECONDS_MAX = 240.0
"""An end for what hangs. A machine with other work to do takes its time, and that is no finding."""
PAUSE_SECONDS = 0.1
_Found = TypeVar("_Found")


def wait_for(
    look: Callable[[], _Found | None], what: str | Callable[[], str], seconds: float = SECONDS_MAX
) -> _Found:
    """Return the first true thing that `look` finds; `what` is the message when it does not come."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(PAUSE_SECONDS)
    return found
