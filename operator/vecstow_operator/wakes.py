"""What wakes a pass: kopf watches the resources, and each event says no more than "look again".

kopf ends when the API server refuses it for a while, when the resource's definition goes, and when a token is
stale; then it is started again. It adds no finalizer, no annotation and no status.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import kopf
import structlog

from vecstow_operator.kube import CHUNK
from vecstow_operator.vocabulary import GROUP, PLURAL, VERSION

log = structlog.stdlib.get_logger(__name__)

BACKOFFS_SECONDS: Final = (1, 2, 4, 8, 15)
"""Between refusals; the last one for ever."""
AGAIN_SECONDS: Final = 5.0
"""Before kopf is started again."""


class _Endless:
    """Backoffs that do not end; kopf begins anew with each request."""

    def __iter__(self) -> Iterator[float]:
        yield from BACKOFFS_SECONDS
        while True:
            yield BACKOFFS_SECONDS[-1]


class Wakes:
    """A thread with kopf in it. `may_start` tells whether the resource is known to the API server."""

    def __init__(
        self,
        namespace: str,
        wake: Callable[[], None],
        may_start: Callable[[], bool],
        engine: str | None = None,
    ) -> None:
        self._namespace = namespace
        self._wake = wake
        self._may_start = may_start
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End within a moment."""
        self._stop.set()
        self._thread.join(AGAIN_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._may_start():
                self._watch()
            self._stop.wait(AGAIN_SECONDS if self._may_start() else 1.0)

    def _watch(self) -> None:
        try:
            asyncio.run(self._operator())
        except Exception as error:  # noqa: BLE001 - whatever ends it, passes go on by the clock
            log.warning("watch ended", reason=f"{type(error).__name__}: {error}")
        else:
            if not self._stop.is_set():
                log.warning("watch ended", reason="the API server refused it")

    async def _operator(self) -> None:
        await kopf.operator(
            registry=self._registry(), settings=self._settings(), standalone=True,
            namespaces=[self._namespace], stop_flag=self._stop,
        )  # fmt: skip

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(kopf.login_via_client)

        def look_again(**_: Any) -> None:
            self._wake()

        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(look_again)
        return registry

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.watching.chunk_size = CHUNK
        settings.networking.error_backoffs = _Endless()
        if self._engine is not None:
            settings.watching.field_selectors[PLURAL] = f"spec.engine={self._engine}"
        return settings
