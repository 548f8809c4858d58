"""The console script. A signal ends it from the first moment.

The first process of a container ignores SIGTERM until it has a handler. Imports take seconds, and the pod
would wait for its whole grace period.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def main() -> None:
    """Run `vecstow-operator`."""
    _end_on_signals()
    from vecstow_operator.cli import main as run

    _run(run)


def plugin() -> None:
    """Run `kubectl vecstow`."""
    _end_on_signals()
    from vecstow_operator.plugin.cli import main as run

    _run(run)


def _end_on_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, _end)
    # `env --block-signal` has kept the signals that came while Python started.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _run(run: Callable[[], None]) -> None:
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:  # outside the command itself: typer still builds it
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        # The interpreter removes the handlers at its end: a signal then must not change the exit code.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _end(number: int, frame: FrameType | None) -> None:
    """End with the exit code of a shell after a signal. An exception could be lost instead."""
    os._exit(128 + number)
