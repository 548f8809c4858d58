"""The interruption of long work on files: its loops call `check_interruption` between two steps.

The caller of the work sets the check with `interruptible`. The loops do not know the check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Check = Callable[[], None]

_check: ContextVar[Check | None] = ContextVar("check", default=None)


@contextmanager
def interruptible(check: Check) -> Iterator[None]:
    """Set the check that the loops inside the block, in this thread, call; `check` raises to end the work."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def check_interruption() -> None:
    """Call the check of `interruptible`, which raises to end the work; do nothing when no check is set."""
    check = _check.get()
    if check is not None:
        check()
