"""Vecstow's finalizer: when a resource gets and loses it, and the release of all in an ending namespace."""

from __future__ import annotations

import contextlib
import time
from typing import Final

import structlog

from vecstow_operator.kube import Away, Changed, Cluster, Silent
from vecstow_operator.manager.assessment import is_released
from vecstow_operator.manager.engines import EngineView
from vecstow_operator.manager.resource_cache import CachedResource, ResourceCache
from vecstow_operator.manager.writer import ResourceWriter
from vecstow_operator.observed import finalizers

RELEASE_AGAIN_SECONDS: Final = 1.0

log = structlog.stdlib.get_logger(__name__)


def loses_finalizer(cached: CachedResource, engine: EngineView) -> bool:
    """Whether the resource is being deleted and the engine needs it no more."""
    resource = cached.resource
    return resource.is_deleting and resource.has_finalizer and is_released(resource, engine)


def is_held_wrongly(cached: CachedResource) -> bool:
    """Whether a living resource has the finalizer without `deletionPolicy: Delete`, or lacks it with that.

    A paused resource that has a status stays as it is.
    """
    resource = cached.resource
    if resource.is_deleting or (resource.is_paused and cached.status.get("conditions")):
        return False
    return resource.is_retained == resource.has_finalizer


class Finalizers:
    """Adds and removes the finalizer."""

    def __init__(self, cluster: Cluster, writer: ResourceWriter) -> None:
        self._cluster = cluster
        self._writer = writer

    def set(self, cached: CachedResource, *, is_held: bool) -> None:
        """Add or remove the finalizer of one resource. Raises Away or Changed."""
        self._writer.patch_metadata(cached, {"finalizers": finalizers(cached.finalizers, held=is_held)})

    def release_all(self) -> int:
        """Remove the finalizer of every resource: with the namespace goes the right to do so later.

        Return how many resources had it when they were read. Raises Away when some have it still.
        """
        self._writer.begin_pass()
        cache = ResourceCache()
        held = [
            cached for cached in map(cache.of, self._cluster.resources()) if cached.resource.has_finalizer
        ]
        refusals = [away for away in self._writer.side_by_side(self._release, held) if away is not None]
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
        if self._writer.is_silent:
            return Silent("the API server does not answer")
        try:
            with contextlib.suppress(Changed):  # the next pass reads the resource again
                self.set(cached, is_held=False)
        except Away as away:
            self._writer.note_silence(away)
            return away
        except Exception as error:
            log.exception("resource could not be released", resource=cached.resource.name)
            return Away(repr(error))
        return None
