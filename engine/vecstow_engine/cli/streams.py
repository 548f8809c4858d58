"""The standard streams: opened if the caller closed them, and flushed before the exit code is decided."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}
"""The mode of each stream, in the order of the file descriptors."""


def open_streams() -> None:
    """Open the null device for each stream that the caller closed, and let stdout print any text.

    Otherwise a file of the volume would get the free descriptor, and everything that is printed.
    """
    for number, (name, mode) in enumerate(_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this stream's
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush_stdout() -> None:
    """Write the buffered text. Raises OSError, after which nothing more is printed."""
    try:
        sys.stdout.flush()
    except OSError:
        # Python flushes again when it ends, and would report the error a second time.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise
