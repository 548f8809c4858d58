"""The console script: a signal ends it from its first moment.

As the first process of a container it would not hear SIGTERM while what it needs is still imported, and a pod
that ends would wait for as long as it may.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """`vecstow-operator`."""
    signal.signal(signal.SIGTERM, _end)
    # `env --block-signal` keeps for this moment what came while Python itself started.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    from vecstow_operator.cli import main as run

    try:
        run()
    finally:
        # What has ended in order keeps its exit code: the interpreter takes the handlers away at its end.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _end(number: int, frame: FrameType | None) -> None:
    """End with the code that a shell gives: what was to be done is not. An exception could be lost."""
    os._exit(128 + number)
