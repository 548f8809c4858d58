"""The standard streams: there whatever the caller closed, and flushed before the exit code is known."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}
"""In the order of their file descriptors."""


def open_streams() -> None:
    """Give each stream that the caller closed the null device, and let each print any text.

    A file of the volume would get the free descriptor otherwise, and all that is printed.
    """
    for number, (name, mode) in enumerate(_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest descriptor that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush_stdout() -> None:
    """Write what is buffered. Raises OSError; nothing is printed any more then."""
    try:
        sys.stdout.flush()
    except OSError:
        # Python flushes once more when it ends, and would report the error a second time.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise
