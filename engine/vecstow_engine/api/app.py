"""The ASGI application: the dispatcher, FastAPI behind it, the start and stop of the engine.

The first request for one of its routes imports FastAPI, or a timer shortly after the start. The import takes
longer than the discovery of the collections. Health and points do not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import structlog
from prometheus_client import CollectorRegistry

from vecstow_engine.api.bodies import Receive
from vecstow_engine.api.collector import EngineCollector
from vecstow_engine.api.dispatch import App, Dispatcher
from vecstow_engine.api.exchange import Send
from vecstow_engine.api.metrics import HttpMetrics
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.api.workers import Workers

if TYPE_CHECKING:
    from vecstow_engine.api.key_file import KeyFile
    from vecstow_engine.service.engine import Engine

FASTAPI_AFTER_SECONDS: Final = 2.0
UNSEEN_START_SECONDS: Final = 1.0
"""Time for which the server waits for the engine's start before it accepts requests.

A faster start causes no 503: the kernel holds the connections meanwhile.
"""

log = structlog.stdlib.get_logger(__name__)

OnFailure = Callable[[Exception], None]


def _log_failure(reason: Exception) -> None:
    log.error("the engine failed", exc_info=reason)


class Application:
    """The application over `engine`, which it starts and stops. With `keys`, requests need one of the keys.

    `on_failure` is called with the exception of `engine.start`, after which no request is served, or of
    `engine.stop`.
    """

    def __init__(
        self,
        engine: Engine,
        settings: HttpSettings | None = None,
        on_failure: OnFailure = _log_failure,
        keys: KeyFile | None = None,
    ) -> None:
        settings = settings or HttpSettings()
        self._engine = engine
        self._on_failure = on_failure
        self._workers = Workers()
        self._metrics = HttpMetrics(CollectorRegistry())
        self._metrics.registry.register(EngineCollector(engine, settings.metrics_collections_max))
        self._loading: asyncio.Future[App] | None = None
        self._dispatcher = Dispatcher(
            self._answer_by_fastapi, engine=engine, settings=settings, metrics=self._metrics, keys=keys
        )
        self._keys = keys
        if keys is not None:
            self._metrics.watch_keys(keys)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request, or handle the lifespan: start and stop of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._dispatcher(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        # The server answers no request before the message below. A slow start goes on in the background, so
        # that /health/live answers.
        starting = asyncio.create_task(self._start())
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
        self._workers.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self) -> bool:
        return await self._run(self._engine.start)

    async def _run(self, step: Callable[[], None]) -> bool:
        try:
            await asyncio.to_thread(step)
        except Exception as reason:  # noqa: BLE001 - on_failure reports the error, once
            self._on_failure(reason)
            return False
        return True

    async def _answer_by_fastapi(self, scope: Any, receive: Receive, send: Send) -> None:
        app = await asyncio.shield(self._load())
        await app(scope, receive, send)

    def _load(self) -> asyncio.Future[App]:
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(None, self._create_fastapi)
        return self._loading

    def _create_fastapi(self) -> App:
        from vecstow_engine.api.fastapi_app import create_fastapi

        return create_fastapi(self._engine, self._workers, self._metrics)
