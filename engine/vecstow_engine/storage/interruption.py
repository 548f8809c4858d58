"""Long work on files can be cut short: its loops call `check_interruption` between two steps.

The caller of the work passes the check to `interruptible`. The loops do not know it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Check = Callable[[], None]

_check: ContextVar[Check | None] = ContextVar("check", default=None)


@contextmanager
def interruptible(check: Check) -> Iterator[None]:
    """Let the loops inside, in this thread, call `check`, which raises to end the work."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def check_interruption() -> None:
    """Raise what the caller's check raises; return at once where nothing ends the work."""
    check = _check.get()
    if check is not None:
        check()
