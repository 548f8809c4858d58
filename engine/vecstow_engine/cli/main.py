"""The console script: a signal ends it from its first moment.

As the first process of a container it would not hear SIGTERM while what it needs is still imported, and a pod
that ends would wait for as long as it may.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def main(arguments: list[str] | None = None) -> None:
    """Run one command (default: the process's arguments); always ends in SystemExit."""
    if arguments is None:
        end_at_once(*SIGNALS)
        # `env --block-signal` keeps for this moment what came while Python itself started.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    from vecstow_engine.cli.commands import run

    if arguments is None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(arguments)
    finally:
        if arguments is None:
            # What has ended in order keeps its exit code: the interpreter takes the handlers away at its end.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def end_at_once(*numbers: int) -> None:
    """Let these signals end the process with the code that a shell gives, as long as it owns nothing.

    An exception would be lost where Python raises none: in a callback of the import system, for example.
    """
    for number in numbers:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
