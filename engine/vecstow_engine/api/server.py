"""The server: it opens the socket, starts the engine in the background, and ends in order.

On SIGTERM and SIGINT the server accepts no more connections, finishes the requests in flight within the
grace, stops the engine, and exits with 0. After SIGTERM it first accepts requests for `drain_seconds` more.

The first request for one of its routes imports FastAPI, or a timer shortly after the start. The import takes
longer than the discovery of the collections. Health and points do not wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from vecstow_engine.api.dispatch import App, Dispatcher
from vecstow_engine.api.metrics import EngineCollector, HttpMetrics
from vecstow_engine.api.protocol import bounded_protocol
from vecstow_engine.api.request import Receive, Send
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.errors import VecstowError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from vecstow_engine.api.key_file import KeyFile
    from vecstow_engine.service.engine import Engine

EXIT_OK: Final = 0
EXIT_REFUSED: Final = 1
FASTAPI_AFTER_SECONDS: Final = 2.0
UNSEEN_START_SECONDS: Final = 1.0
"""Time for which the server waits for the engine's start before it accepts requests.

A faster start causes no 503: the kernel holds the connections meanwhile.
"""

log = structlog.stdlib.get_logger(__name__)

OnFailure = Callable[[Exception], None]


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
    server = _Server(engine, settings, keys)
    # uvicorn installs handlers itself only while its loop runs, and restores these afterwards.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    log.info("listening", host=host, port=listener.getsockname()[1], keys=keys and len(keys.ring.keys))
    server.run(sockets=[listener])
    log.info("stopped", exit_code=server.exit_code)
    return server.exit_code


def create_app(
    engine: Engine,
    settings: HttpSettings | None = None,
    on_failure: OnFailure | None = None,
    keys: KeyFile | None = None,
) -> App:
    """Return the application over `engine`, which it starts and stops. With `keys`, requests need a key.

    `on_failure` is called with the exception of `engine.start`, after which no request is served, or of
    `engine.stop`. By default the exception is logged.
    """
    settings = settings or HttpSettings()
    metrics = HttpMetrics(CollectorRegistry())
    metrics.registry.register(EngineCollector(engine, settings.metrics_collections_max))
    if keys is not None:
        metrics.watch_keys(keys)
    inner = _Inner(engine, metrics, on_failure or _log_failure, keys)
    return Dispatcher(inner, engine=engine, settings=settings, metrics=metrics, keys=keys)


class _Inner:
    """The application behind the dispatcher: the start and stop of the server, and FastAPI, loaded late."""

    def __init__(
        self, engine: Engine, metrics: HttpMetrics, on_failure: OnFailure, keys: KeyFile | None
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._on_failure = on_failure
        self._keys = keys
        self._loading: asyncio.Future[FastAPI] | None = None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            app = await asyncio.shield(self._load())
            await app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        # The server answers no request before the message below. A slow start goes on in the background, so
        # that /health/live answers.
        starting = asyncio.create_task(self._run(self._engine.start))
        later = asyncio.get_running_loop().call_later(FASTAPI_AFTER_SECONDS, self._load)
        following = None if self._keys is None else asyncio.create_task(self._keys.follow())
        await asyncio.wait([starting], timeout=UNSEEN_START_SECONDS)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        later.cancel()
        if following is not None:
            following.cancel()
        if await starting:
            await self._run(self._engine.stop)
        if self._loading is not None:
            with contextlib.suppress(Exception):  # The request that loaded FastAPI got the error.
                (await self._loading).state.workers.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _run(self, step: Callable[[], None]) -> bool:
        try:
            await asyncio.to_thread(step)
        except Exception as reason:  # noqa: BLE001 - on_failure reports the error, once
            self._on_failure(reason)
            return False
        return True

    def _load(self) -> asyncio.Future[FastAPI]:
        """Return FastAPI as it is loaded; load it again after an error, for example without descriptors."""
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.get_running_loop().run_in_executor(None, self._create_fastapi)
        return self._loading

    def _create_fastapi(self) -> FastAPI:
        from vecstow_engine.api.fastapi_app import create_fastapi

        return create_fastapi(self._engine, self._metrics)


class _Server(uvicorn.Server):
    """The uvicorn server with a drain: it ends some time after SIGTERM, when clients send no more.

    Without a drain, requests on open connections, or on those that wait to be accepted, would be lost.
    """

    def __init__(self, engine: Engine, settings: HttpSettings, keys: KeyFile | None) -> None:
        self._protocol = bounded_protocol(settings)
        super().__init__(
            uvicorn.Config(
                create_app(engine, settings, self._fail, keys),
                loop="uvloop",
                http=self._protocol,
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
        )
        self.exit_code = EXIT_OK
        self._engine = engine
        self._drain_seconds = settings.drain_seconds
        self._ends_at = math.inf

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain at the first SIGTERM, and end it at any other signal.

        One more SIGINT ends the server without waiting for requests. uvicorn's own handler would raise the
        signal again at the end, but the process must exit with 0.
        """
        was_leaving, self._engine.leaving = self._engine.leaving, True
        self._protocol.is_draining = True
        if sig == signal.SIGTERM and not was_leaving:
            self._ends_at = time.monotonic() + self._drain_seconds
        elif sig == signal.SIGINT and self.should_exit:
            self.force_exit = True
        else:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Whether the server must end now."""
        return await super().on_tick(counter) or time.monotonic() >= self._ends_at

    def _fail(self, reason: Exception) -> None:
        """Log why the engine did not start or stop, and end the server with EXIT_REFUSED."""
        self.exit_code = EXIT_REFUSED
        if isinstance(reason, VecstowError):
            log.error("the data directory cannot be served", reason=reason.message, hint=reason.hint)
        else:
            _log_failure(reason)
        self.should_exit = True


def _log_failure(reason: Exception) -> None:
    log.error("the engine failed", exc_info=reason)


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    """Return a listening socket: the kernel accepts connections from now on, before the engine has started.

    On `::` the socket accepts IPv4 too: clients in the same pod use 127.0.0.1.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    return socket.create_server(address, family=family, backlog=backlog, dualstack_ipv6=both)
