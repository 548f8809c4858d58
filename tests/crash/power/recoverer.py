"""Recovers one volume after another in this process, which is recorded: each between two marks.

Reads folders from its standard input, a line each, and says when it is done with one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from tests.crash.power.reader import MARK_PREFIX
from tests.crash.prove.runner import silence
from tests.crash.reading import killed, read
from tests.engine_process import end_with_parent

BEGIN, OPEN, END = "begin", "open", "end"
PIECE_BYTES = 2_000
"""Memory of changes that every second recovery has: its log is replayed in pieces."""


def mark(text: str) -> None:
    """Tell the reader of the record: it sees the call, which fails."""
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(MARK_PREFIX + text)


if __name__ == "__main__":
    end_with_parent()
    silence()
    for number, line in enumerate(sys.stdin):
        bounds = {"overlay_bytes_max": PIECE_BYTES} if number % 2 else {}
        mark(BEGIN)
        with killed(Path(line.rstrip("\n")), **bounds) as engine:
            mark(OPEN)
            read(engine)
        mark(END)
        print(flush=True)
