"""Changes of the declaration of a living collection by REST: of its payload indexes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

import structlog

from vecstow_engine.model.errors import Conflict, NotFound
from vecstow_engine.model.manifest import ManagedBy, Manifest, PayloadIndex
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.hold import ChangeGuard, Gate
from vecstow_engine.service.registry import Registry
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import update_manifest

OPERATION: Final = "declare payload indexes"
_OWNERS: Final = {
    ManagedBy.KUBERNETES: ("a Kubernetes resource", "change spec.payloadIndexes of the VectorCollection"),
    ManagedBy.FILE: ("a file", "change spec.payloadIndexes there: vecstow apply -f FILE --data DIR"),
}
"""For each owner that REST does not overrule its description, and a hint."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False)
class Declarations:
    """The changes of declarations. Methods may be called from any thread."""

    _layout: Layout
    _registry: Registry
    _gate: Gate
    _changes: ChangeGuard

    def declare_payload_indexes(self, collection: Collection, declared: tuple[PayloadIndex, ...]) -> None:
        """Write payload indexes into the manifest of a collection, and follow them.

        New ones are built in the background. Raises Conflict for a collection that a resource or a file
        manages, and during a hold; NotFound, or an error of `Collection.readable`; InvalidInput for a
        declaration beyond a limit; ReadOnly, OutcomeUnknown, DiskFull or StorageError.
        """
        name = collection.name

        def decide(found: Manifest | None) -> Manifest:
            if found is None or found.dropped_at is not None:
                raise NotFound(f"collection {name!r} does not exist", collection=name)
            if (owner := _OWNERS.get(found.managed_by)) is not None:
                message = f"the declaration of collection {name!r} belongs to {owner[0]}"
                raise Conflict(message, collection=name, operation=OPERATION, hint=owner[1])
            return dataclasses.replace(found, payload_indexes=declared)

        with (
            self._gate.required(OPERATION),
            collection.upkeep_lock,
            self._changes.exclusive(OPERATION, name),
        ):
            self._registry.refuse_gone(collection)
            collection.readable()
            before, after = update_manifest(self._layout, name, decide)
            assert after is not None
            collection.declare_payload_indexes(declared)
            collection.manifest = dataclasses.replace(
                collection.manifest, payload_indexes=declared, updated_at=after.updated_at
            )
        if before != after:
            log.info("payload indexes declared", collection=name, fields=len(declared))
