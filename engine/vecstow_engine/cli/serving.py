"""`vecstow serve`: serve one volume over REST until a signal."""

from __future__ import annotations

import ctypes
import gc
import ipaddress
import os
import socket
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.cli.main import SIGNALS, end_at_once
from vecstow_engine.cli.options import flags, gather, takes_flags
from vecstow_engine.model.errors import InvalidInput
from vecstow_engine.service.settings import Settings

if TYPE_CHECKING:
    from vecstow_engine.api.key_file import KeyFile

M_MMAP_THRESHOLD: Final = -3
"""The parameter of mallopt(3), from <malloc.h>."""
MMAP_THRESHOLD_BYTES: Final = 256 * 1024


class LogFormat(StrEnum):
    """The format of log lines."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least level of the log lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Where the process listens, and how it logs."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 admits other machines, :: those of IPv6 and IPv4."""
    port: int = 3030
    """TCP port to listen on."""
    log_format: LogFormat = LogFormat.TEXT
    """Log lines for people, or JSON for programs; they go to stderr."""
    log_level: LogLevel = LogLevel.INFO
    """The least important lines that are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """The keys that requests need."""

    keys: Path | None = None
    """A file of API keys (api.md): who asks must bring one. It is read again when it changes."""
    without_keys: bool = False
    """Listen on other addresses than loopback without keys: every client of the port may do everything."""


FLAGS = flags(ProcessSettings, KeySettings, Settings, HttpSettings)
"""The flags of every setting of `vecstow serve`."""


@takes_flags(FLAGS)
def serve_command(**values: Any) -> None:
    """Serve the collections of a data directory.

    One engine at a time opens a volume. It comes back from the volume alone, whatever ended the one before.
    SIGTERM and Ctrl-C end it in order: what is in flight is answered, a checkpoint is made. Before it
    listens it has nothing to finish, and ends at once.

    \b
    Examples:
      vecstow serve --data ./data
      VECSTOW_DATA=/data vecstow serve --host 0.0.0.0 --keys keys.yaml --log-format json
    """
    end_at_once(*SIGNALS)
    process = gather(ProcessSettings, values)
    # glibc would raise a threshold that is not fixed, and keep the memory that the tail of an index frees.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    # Index and search have their own threads; threads of BLAS would only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Imports make no garbage, and collections during them would take a tenth of the start.
    gc.disable()
    from vecstow_engine.api.logs import configure_logging
    from vecstow_engine.api.server import serve
    from vecstow_engine.service.engine import Engine

    gc.freeze()
    gc.enable()
    configure_logging(process.log_format.value, process.log_level.value)
    keys = _keys(process.host, gather(KeySettings, values))
    engine = Engine(gather(Settings, values))
    raise typer.Exit(serve(engine, process.host, process.port, gather(HttpSettings, values), keys))


def _keys(host: str, settings: KeySettings) -> KeyFile | None:
    """Return the file of keys, None without one.

    Raises InvalidInput for an invalid file, and when other machines could reach the engine without a key.
    """
    if settings.keys is not None:
        if settings.without_keys:
            raise InvalidInput("--keys and --without-keys exclude each other")
        from vecstow_engine.api.key_file import KeyFile

        return KeyFile(settings.keys)
    if not settings.without_keys and _admits_others(host):
        raise InvalidInput(
            f"--host {host} lets other machines in, and no API keys are asked for",
            hint="--keys FILE asks for them (docs/api.md); --without-keys, if others are kept out already",
        )
    return None


def _admits_others(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise InvalidInput(f"--host {host[:80]!r} is no name of a host") from None
    except OSError:
        return False  # no program can listen there; the attempt to listen reports the error
    return not all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)
