"""The console script, which a signal can end from its first moment.

The first process of a container ignores SIGTERM until it has a handler. Without one during the imports, a pod
that ends would wait for its whole grace period.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
INTERRUPTED: Final = 128 + signal.SIGINT
"""The exit code of a shell after SIGINT."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command (default: the process's arguments), and raise SystemExit with its exit code."""
    if arguments is None:
        end_at_once(*SIGNALS)
        # `env --block-signal` delays signals that arrive while Python starts until this line.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    from vecstow_engine.cli.commands import run

    try:
        if arguments is None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run(arguments)
    except KeyboardInterrupt:  # outside the command itself: typer still builds it, or its end is written
        raise SystemExit(INTERRUPTED) from None
    finally:
        if arguments is None:
            # A command that ended in order keeps its exit code. At its end Python removes the handlers.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_at_once(*numbers: int) -> None:
    """Let these signals end the process at once with a shell's exit code, while it holds no resource.

    An exception would be lost where Python ignores it, for example in a callback of the import system.
    """
    for number in numbers:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
