"""The ASGI application: the dispatcher in front, FastAPI behind it, the engine's life tied to the server's.

FastAPI is imported when a route of it is first asked for, or when the server has been up for a moment: that
takes longer than the engine needs to find its collections, and neither health nor points wait for it.
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
"""A start that takes no longer answers nobody with a 503: the kernel holds the connections meanwhile."""

log = structlog.stdlib.get_logger(__name__)

OnFailure = Callable[[Exception], None]


def _log_failure(reason: Exception) -> None:
    log.error("the engine failed", exc_info=reason)


class Application:
    """Answers requests over `engine`, which it starts and stops; with `keys`, those that bring one of them.

    `on_failure` is called when `engine.start` raised, and then there is nothing to serve, or `engine.stop`.
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
        """Answer one request, or live through the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._dispatcher(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        # The server answers only after this message. A start that takes longer than a moment goes on in the
        # background, so that /health/live answers.
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
        except Exception as reason:  # noqa: BLE001 - whoever runs the server is told, once
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
