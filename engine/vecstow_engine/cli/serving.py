"""`vecstow serve`: one volume, served over REST until a signal comes."""

from __future__ import annotations

import ctypes
import gc
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import typer

from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.cli.flags import flags, gather, takes_flags
from vecstow_engine.service.settings import Settings

M_MMAP_THRESHOLD: Final = -3
"""mallopt(3), as <malloc.h> has it."""
MMAP_THRESHOLD_BYTES: Final = 256 * 1024


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """From which level on log lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Where the process listens, and how it logs."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: admits other machines."""
    port: int = 3030
    """TCP port to listen on."""
    log_format: LogFormat = LogFormat.TEXT
    """Log lines for people, or JSON for programs; they go to stderr."""
    log_level: LogLevel = LogLevel.INFO
    """The least important lines that are written."""


FLAGS = flags(ProcessSettings, Settings, HttpSettings)
"""Every setting of `vecstow serve`."""


@takes_flags(FLAGS)
def serve_command(**values: Any) -> None:
    """Serve the collections of a data directory.

    One engine at a time opens a volume. It comes back from the volume alone, whatever ended the one before.
    SIGTERM and Ctrl-C end it in order: what is in flight is answered, a checkpoint is made.

    \b
    Examples:
      vecstow serve --data ./data
      VECSTOW_DATA=/data vecstow serve --host 0.0.0.0 --log-format json
    """
    process = gather(ProcessSettings, values)
    # Without a fixed threshold glibc raises it, and keeps what the tail of an index gives back.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    # Index and search bring their own threads; those of BLAS would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Nothing that an import makes is garbage, and looking for some in it takes a tenth of the start.
    gc.disable()
    from vecstow_engine.api.logs import configure_logging
    from vecstow_engine.api.server import serve
    from vecstow_engine.service.engine import Engine

    gc.freeze()
    gc.enable()
    configure_logging(process.log_format.value, process.log_level.value)
    engine = Engine(gather(Settings, values))
    raise typer.Exit(serve(engine, process.host, process.port, gather(HttpSettings, values)))
