"""The loop of passes, by the clock until a signal ends it, and the watch that begins a pass sooner.

kopf watches the resources, and each relevant event wakes the loop. It ends when the resource's definition
goes and when a token is stale. Without the definition at its start it waits for ever. So kopf runs only while
passes get complete lists, and starts again after each gap. It adds no finalizer, no annotation and no status.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import kopf
import structlog

from vecstow_engine.model.backoff import Backoff
from vecstow_operator.health import Heartbeat
from vecstow_operator.kube import CHUNK
from vecstow_operator.vocabulary import GROUP, PLURAL, VERSION

log = structlog.stdlib.get_logger(__name__)

GATHER_SECONDS: Final = 0.2
"""The wait after a wake, so that simultaneous changes share one pass."""
SHARE_MAX: Final = 0.5
"""The largest share of a core that woken passes take: many changes make fewer, larger passes. Waiting for a
disk or an answer does not count."""
BACKOFF: Final = Backoff(first_seconds=1.0, seconds_max=15.0)
"""The pauses between requests that the API server refuses."""
CONNECT_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 300
"""The lifetime of a watch: a watch whose connection was lost unnoticed would stay silent for ever."""
AGAIN_SECONDS: Final = 5.0
"""The pause before kopf starts again."""
STOP_SECONDS: Final = 5.0
"""The longest wait for kopf to end."""
WORKERS: Final = 50
"""kopf keeps a task and a queue for each resource with a recent event: for thousands, tens of megabytes. The
handler waits for nothing, so few workers that end soon are as fast."""
IDLE_SECONDS: Final = 0.01
"""The idle time after which a worker ends."""
IDENTITY: Final[Any] = "vecstow"
"""Unused without peering. kopf would look up the user's name, and a container may have none."""
LOOK_SECONDS: Final = 1.0
"""The time between two checks whether kopf should run."""


@dataclass(slots=True)
class Loop:
    """Calls `run_pass(is_woken=…)` repeatedly. Any thread may call `wake` and `stop`."""

    run_pass: Callable[..., None]
    tick_seconds: float
    heartbeat: Heartbeat
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set by `stop`: the present pass is the last, and ends early."""
    _woken: threading.Event = field(default_factory=threading.Event)

    def wake(self) -> None:
        """Begin the next pass soon."""
        self._woken.set()

    def stop(self) -> None:
        """Begin no further pass."""
        self.stopped.set()
        self._woken.set()

    def stop_on_signals(self) -> None:
        """End the loop in order on SIGTERM and SIGINT."""

        def stop(*_: Any) -> None:
            self.stop()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)

    def run(self) -> None:
        """Run passes until `stop`. An unexpected error is logged, and the next pass follows."""
        is_woken = True
        while not self.stopped.is_set():
            begun, worked = time.monotonic(), time.thread_time()
            try:
                self.run_pass(is_woken=is_woken)
            except Exception:
                log.exception("pass failed")
            self.heartbeat.beat()
            took, worked = time.monotonic() - begun, time.thread_time() - worked
            # After a pass of much work the pause is longer, so that passes take SHARE_MAX of a core at most.
            self.stopped.wait(max(GATHER_SECONDS, worked / SHARE_MAX - took))
            is_woken = self._woken.wait(max(0.0, self.tick_seconds - took))
            if is_woken:  # a wake after the wait has ended is left for the pass after the next one
                self._woken.clear()


@dataclass(frozen=True, slots=True)
class _EndlessBackoff:
    """Pauses without an end. kopf takes the first with each request, and the next after a refusal."""

    refused: Callable[[], None]

    def __iter__(self) -> Iterator[float]:
        seconds = BACKOFF.after(None)
        while True:
            yield seconds
            self.refused()
            seconds = BACKOFF.after(seconds)


class _NoStorage(kopf.DiffBaseStorage):
    """A storage that keeps nothing, so that kopf compares nothing: comparisons are most of its work."""

    def build(
        self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None
    ) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        pass


class News:
    """Decides which events wake a pass.

    Each status that the manager writes returns to both roles as an event. These events are no news: a pass
    would list all resources again.
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        """A small hash of each resource, by uid. The next list has any change that the hash misses."""

    def is_in(self, event: kopf.RawEvent, **_: Any) -> bool:
        """Whether this event is news. kopf calls this once for each event."""
        document = event["object"]
        uid, content = document["metadata"]["uid"], hash(repr(_relevant(document)))
        if event["type"] == "DELETED":
            self._seen.pop(uid, None)
            return True
        is_news = self._seen.get(uid) != content
        self._seen[uid] = content
        return is_news


def _relevant(document: kopf.RawBody) -> tuple[object, ...]:
    """Return all that others write, and the uid of the data: the sidecar compares it with the volume."""
    metadata, status = document["metadata"], document.get("status") or {}
    keys = ("generation", "deletionTimestamp", "finalizers", "annotations")
    return (*(metadata.get(key) for key in keys), status.get("collectionUid"))


class Watcher:
    """A thread that runs kopf while `may_watch` returns that the last list of resources was complete."""

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
        """End the watch, which takes a moment."""
        self._stop.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._may_watch():
                self._stop.wait(LOOK_SECONDS)
                continue
            self._watch()
            self._wake()  # a list may show why the watch ended
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
                registry=self._registry(),
                settings=self._settings(),
                standalone=True,
                namespaces=[self._namespace],
                stop_flag=end,
                identity=IDENTITY,
            )
        )
        while not watching.done() and not self._stop.is_set() and self._may_watch():
            await asyncio.wait({watching}, timeout=LOOK_SECONDS)
        end.set()
        await watching

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(kopf.login_via_client)

        async def look_again(**_: Any) -> None:  # kopf runs handlers that are not async in threads
            self._wake()

        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry, when=News().is_in)(look_again)
        return registry

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.persistence.diffbase_storage = _NoStorage()
        settings.queueing.worker_limit = WORKERS
        settings.queueing.idle_timeout = IDLE_SECONDS
        settings.watching.chunk_size = CHUNK
        settings.watching.server_timeout = WATCH_SECONDS
        settings.watching.client_timeout = WATCH_SECONDS + CONNECT_SECONDS
        settings.networking.connect_timeout = CONNECT_SECONDS
        settings.networking.error_backoffs = _EndlessBackoff(self._wake)
        if self._engine is not None:
            settings.watching.field_selectors[PLURAL] = f"spec.engine={self._engine}"
        return settings
