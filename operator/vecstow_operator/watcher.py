"""What wakes a pass: kopf watches the resources, and what is news in one says no more than "look again".

kopf ends when the resource's definition goes and when a token is stale, and when it begins without the
definition it waits for ever. So it runs only as long as the passes get complete lists, and begins anew after
each gap. It adds no finalizer, no annotation and no status.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import kopf
import structlog

from vecstow_engine.model.backoff import Backoff
from vecstow_operator.kube import CHUNK
from vecstow_operator.vocabulary import GROUP, PLURAL, VERSION

log = structlog.stdlib.get_logger(__name__)

BACKOFF: Final = Backoff(first_seconds=1.0, seconds_max=15.0)
"""Between two requests that the API server refuses."""
CONNECT_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 300
"""A watch is asked for anew so often: one whose connection was lost without a word would stay silent."""
AGAIN_SECONDS: Final = 5.0
"""Before kopf is started again."""
STOP_SECONDS: Final = 5.0
"""For kopf to end."""
WORKERS: Final = 50
"""kopf keeps a task and a queue for each resource of which it heard lately: for thousands, tens of megabytes.
The handler waits for nothing, so few workers that end soon are as fast."""
IDLE_SECONDS: Final = 0.01
"""Before a worker ends."""
IDENTITY: Final[Any] = "vecstow"
"""Of no use without peering. kopf would ask for the user's name, and in a container there may be none."""
LOOK_SECONDS: Final = 1.0
"""Between two looks at whether it should run."""


@dataclass(frozen=True, slots=True)
class _Endless:
    """Backoffs that do not end; kopf begins anew with each request, and asks for the next after a refusal."""

    refused: Callable[[], None]

    def __iter__(self) -> Iterator[float]:
        seconds = BACKOFF.after(None)
        while True:
            yield seconds
            self.refused()
            seconds = BACKOFF.after(seconds)


class _Nothing(kopf.DiffBaseStorage):
    """kopf keeps nothing of a resource, and compares nothing: that takes it longer than all else it does."""

    def build(
        self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None
    ) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        pass


class News:
    """Which events a pass need know of.

    The manager's own words in a status come back to both roles, an event for each resource. They are no news,
    and would have all resources listed once more.
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        """By uid: a hash, which is small. What it misses the next list has."""

    def is_in(self, event: kopf.RawEvent, **_: Any) -> bool:
        """Whether this event says something; kopf asks once for each."""
        document = event["object"]
        uid, told = document["metadata"]["uid"], hash(repr(_told(document)))
        if event["type"] == "DELETED":
            self._seen.pop(uid, None)
            return True
        is_news = self._seen.get(uid) != told
        self._seen[uid] = told
        return is_news


def _told(document: kopf.RawBody) -> tuple[object, ...]:
    """All that others write; and which collection there was, for its data may be gone at any moment."""
    metadata, status = document["metadata"], document.get("status") or {}
    keys = ("generation", "deletionTimestamp", "finalizers", "annotations")
    return (*(metadata.get(key) for key in keys), status.get("collectionUid"))


class Watcher:
    """A thread with kopf in it, while `may_watch` says that the last list of resources was complete."""

    def __init__(
        self,
        namespace: str,
        wake: Callable[[], None],
        may_watch: Callable[[], bool],
        engine: str | None = None,
    ) -> None:
        self._namespace = namespace
        self._wake = wake
        self._may_watch = may_watch
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End within a moment."""
        self._stop.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._may_watch():
                self._stop.wait(LOOK_SECONDS)
                continue
            self._watch()
            self._wake()  # what ended the watch, a list may say
            self._stop.wait(AGAIN_SECONDS)

    def _watch(self) -> None:
        try:
            asyncio.run(self._operator())
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - passes go on by the clock
            log.warning("watch ended", reason=f"{type(error).__name__}: {error}")
        else:
            if not self._stop.is_set():
                log.warning("watch ended", reason="the API server refuses it, or is away")

    async def _operator(self) -> None:
        end = asyncio.Event()
        watching = asyncio.create_task(
            kopf.operator(
                registry=self._registry(), settings=self._settings(), standalone=True,
                namespaces=[self._namespace], stop_flag=end, identity=IDENTITY,
            )
        )  # fmt: skip
        while not watching.done() and not self._stop.is_set() and self._may_watch():
            await asyncio.wait({watching}, timeout=LOOK_SECONDS)
        end.set()
        await watching

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(kopf.login_via_client)

        async def look_again(**_: Any) -> None:  # not async, it would go through a thread
            self._wake()

        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, when=News().is_in)(look_again)
        return registry

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.persistence.diffbase_storage = _Nothing()
        settings.queueing.worker_limit = WORKERS
        settings.queueing.idle_timeout = IDLE_SECONDS
        settings.watching.chunk_size = CHUNK
        settings.watching.server_timeout = WATCH_SECONDS
        settings.watching.client_timeout = WATCH_SECONDS + CONNECT_SECONDS
        settings.networking.connect_timeout = CONNECT_SECONDS
        settings.networking.error_backoffs = _Endless(self._wake)
        if self._engine is not None:
            settings.watching.field_selectors[PLURAL] = f"spec.engine={self._engine}"
        return settings
