"""The server: it opens the socket, starts the engine in the background, and ends in order.

On SIGTERM and SIGINT the server accepts no more connections, finishes the requests in flight within the
grace, stops the engine, and exits with 0. After SIGTERM it first accepts requests for `drain_seconds` more.
"""

from __future__ import annotations

import math
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Final

import structlog
import uvicorn

from vecstow_engine.api.app import Application
from vecstow_engine.api.protocol import bounded_protocol
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.errors import VecstowError

if TYPE_CHECKING:
    from vecstow_engine.api.key_file import KeyFile
    from vecstow_engine.service.engine import Engine

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1

log = structlog.stdlib.get_logger(__name__)


def serve(
    engine: Engine,
    host: str,
    port: int,
    settings: HttpSettings | None = None,
    keys: KeyFile | None = None,
) -> int:
    """Serve until a signal; return the exit code. Port 0 selects a free port, which the log names.

    With `keys`, every request except health needs one of the keys. Call `configure_logging` before.
    """
    settings = settings or HttpSettings()
    try:
        listener = _listen(host, port, settings.backlog)
    except OSError as refused:
        log.error("cannot listen", host=host, port=port, reason=str(refused))
        return EXIT_REFUSED
    run = _Run()
    app = Application(engine, settings, on_failure=run.fail, keys=keys)
    run.server = server = _Server(app, engine, settings)
    # uvicorn installs handlers itself only while its loop runs, and restores these afterwards.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    log.info("listening", host=host, port=listener.getsockname()[1], keys=keys and len(keys.ring.keys))
    server.run(sockets=[listener])
    log.info("stopped", exit_code=run.exit_code)
    return run.exit_code


class _Server(uvicorn.Server):
    """The uvicorn server with a drain: it ends some time after SIGTERM, when clients send no more.

    Without a drain, requests on open connections, or on those that wait to be accepted, would be lost.
    """

    def __init__(self, app: Application, engine: Engine, settings: HttpSettings) -> None:
        super().__init__(_config(app, settings, lambda: engine.leaving))
        self._engine = engine
        self._drain_seconds = settings.drain_seconds
        self._ends_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain at the first SIGTERM, and end it at any other signal.

        One more SIGINT ends the server without waiting for requests. uvicorn's own handler would raise the
        signal again at the end, but the process must exit with 0.
        """
        was_leaving, self._engine.leaving = self._engine.leaving, True
        if sig == signal.SIGTERM and not was_leaving:
            self._ends_at = time.monotonic() + self._drain_seconds
        elif sig == signal.SIGINT and self.should_exit:
            self.force_exit = True
        else:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Whether the server must end now."""
        return await super().on_tick(counter) or time.monotonic() >= self._ends_at


class _Run:
    """The exit code of a run, and the server that an error ends."""

    def __init__(self) -> None:
        self.server: uvicorn.Server | None = None
        self.exit_code = EXIT_OK

    def fail(self, reason: Exception) -> None:
        """Log why the engine did not start or stop, and end the server with EXIT_REFUSED."""
        self.exit_code = EXIT_REFUSED
        if isinstance(reason, VecstowError):
            log.error("the data directory cannot be served", reason=reason.message, hint=reason.hint)
        else:
            log.error("the engine failed", exc_info=reason)
        if self.server is not None:
            self.server.should_exit = True


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    """Return a listening socket: the kernel accepts connections from now on, before the engine has started.

    On `::` the socket accepts IPv4 too: clients in the same pod use 127.0.0.1.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, backlog=backlog, dualstack_ipv6=both)


def _config(app: Application, settings: HttpSettings, is_draining: Callable[[], bool]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_protocol(settings, is_draining),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=settings.backlog,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.shutdown_grace_seconds,
    )
