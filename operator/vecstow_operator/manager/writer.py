"""The manager's writes to the API server: several at once, and none after a write without an answer.

An ending namespace needs more: all resources lose Vecstow's finalizer at once.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, Final, TypeVar

import structlog
from kubernetes.client import CoreV1Event

from vecstow_operator.health import Metrics
from vecstow_operator.kube import Away, Changed, Cluster, Silent
from vecstow_operator.manager.resources import CachedResource, ResourceCache
from vecstow_operator.observed import finalizers

WRITES_AT_ONCE: Final = 4
BATCH: Final = 16 * WRITES_AT_ONCE
"""Writes that are prepared at the same time: the statuses of thousands would be tens of megabytes."""
RELEASE_AGAIN_SECONDS: Final = 1.0

_Subject = TypeVar("_Subject")
_Result = TypeVar("_Result")

log = structlog.stdlib.get_logger(__name__)


class ResourceWriter:
    """Writes resources and events. Thread-safe. A write of a resource raises Away or Changed."""

    def __init__(self, cluster: Cluster, metrics: Metrics, stopped: threading.Event) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._stopped = stopped
        self._threads = ThreadPoolExecutor(WRITES_AT_ONCE, thread_name_prefix="patch")
        self.is_silent = False
        """Whether a write of this pass got no answer: each further one would wait as long."""

    def begin_pass(self) -> None:
        """Allow writes again after a pass in which the API server was silent."""
        self.is_silent = False

    @property
    def pass_ends_early(self) -> bool:
        """Whether this pass makes no further write."""
        return self.is_silent or self._stopped.is_set()

    def side_by_side(
        self, write: Callable[[_Subject], _Result], subjects: Iterable[_Subject]
    ) -> Iterator[_Result]:
        """Yield the result of `write` for each subject, in their order; several run at once."""
        remaining = iter(subjects)
        while batch := list(islice(remaining, BATCH)):
            for result in self._threads.map(write, batch):
                self._metrics.heartbeat.beat()
                yield result

    def patch_metadata(self, cached: CachedResource, changed: Mapping[str, Any]) -> None:
        """Merge `changed` into the metadata of the resource as it was read."""
        self._cluster.patch_metadata(cached.resource.name, cached.resource.uid, cached.version, changed)
        self._metrics.reconciles.inc()

    def set_finalizer(self, cached: CachedResource, *, is_held: bool) -> None:
        """Add or remove the finalizer of one resource. Raises Away or Changed."""
        self.patch_metadata(cached, {"finalizers": finalizers(cached.finalizers, held=is_held)})

    def release_all(self) -> int:
        """Remove the finalizer of every resource: with the namespace goes the right to do so later.

        Return how many resources had it when they were read. Raises Away when some have it still.
        """
        self.begin_pass()
        cache = ResourceCache()
        held = [
            cached for cached in map(cache.of, self._cluster.resources()) if cached.resource.has_finalizer
        ]
        refusals = [away for away in self.side_by_side(self._release, held) if away is not None]
        if refusals:
            raise Away(f"{len(refusals)} of {len(held)} resources are held still: {refusals[0]}")
        return len(held)

    def release_ending_namespace(self, seconds: float) -> None:
        """Release every resource of a namespace that is being deleted; retry for so many seconds."""
        until = time.monotonic() + seconds
        while True:
            try:
                if self._cluster.namespace_ends():
                    self.release_all()
                return
            except Away as away:
                if time.monotonic() >= until:
                    log.warning("resources are held still: kubectl vecstow release", reason=str(away))
                    return
            time.sleep(RELEASE_AGAIN_SECONDS)

    def _release(self, cached: CachedResource) -> Away | None:
        """Remove the finalizer of one resource. Return the error when the resource has it still."""
        if self.is_silent:
            return Silent("the API server does not answer")
        try:
            with contextlib.suppress(Changed):  # the next pass reads the resource again
                self.set_finalizer(cached, is_held=False)
        except Away as away:
            self.note_silence(away)
            return away
        except Exception as error:
            log.exception("resource could not be released", resource=cached.resource.name)
            self._metrics.errors.labels("operator").inc()
            return Away(repr(error))
        return None

    def apply_status(self, cached: CachedResource, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
        """Apply a status. Return the new document, or None when the status was the same already."""
        applied = self._cluster.apply_status(cached.resource.name, cached.version, wanted)
        if applied is not None:
            self._metrics.reconciles.inc()
        return applied

    def post_event(self, event: CoreV1Event) -> None:
        """Post an event. An event that cannot be posted is lost, and no error is raised."""
        try:
            self._cluster.post_event(event)
        except (Away, Changed) as error:
            self.note_silence(error)
            log.debug("event was not posted", resource=event.involved_object.name, reason=str(error))
        except Exception:
            self._metrics.errors.labels("operator").inc()
            log.exception("event was not posted", resource=event.involved_object.name)

    def note_silence(self, error: Exception) -> None:
        """Skip the rest of the pass when the error is that no answer came."""
        self.is_silent = self.is_silent or isinstance(error, Silent)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
