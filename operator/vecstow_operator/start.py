"""The console script: a signal ends it from its first moment.

As the first process of a container it would not hear SIGTERM while what it needs is still imported, and a pod
that ends would wait for as long as it may.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> None:
    """`vecstow-operator`."""
    signal.signal(signal.SIGTERM, _end)
    from vecstow_operator.cli import main as run

    run()


def _end(number: int, frame: FrameType | None) -> None:
    """With the code that a shell gives: what was to be done is not."""
    sys.exit(128 + number)
