"""The console script. A signal ends it from the first moment.

The first process of a container ignores SIGTERM until it has a handler. Imports take seconds, and the pod
would wait for its whole grace period.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Run `vecstow-operator`."""
    signal.signal(signal.SIGTERM, _end)
    # `env --block-signal` has kept the signals that came while Python started.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    from vecstow_operator.cli import main as run

    try:
        run()
    finally:
        # The interpreter removes the handlers at its end: a signal then must not change the exit code.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _end(number: int, frame: FrameType | None) -> None:
    """End with the exit code of a shell after a signal. An exception could be lost instead."""
    os._exit(128 + number)
