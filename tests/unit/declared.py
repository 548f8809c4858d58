"""Resources as the API server gives them, manifests and engines' answers as they follow from them."""

from __future__ import annotations

import dataclasses
from typing import Any

from vecstow_engine.model.manifest import ManagedBy, Manifest
from vecstow_engine.model.resource import CollectionResource, manifest_from_resource
from vecstow_operator.manager.engines import CollectionState, EnginePod, EngineState, EngineView
from vecstow_operator.observed import Observed, Report, observed, report_on
from vecstow_operator.vocabulary import FINALIZER, Reason

UID = "0123456789abcdef" * 2
"""The uid of a collection's data."""
OTHER_UID = "f" * 32
VOLUME = "a" * 32
OTHER_VOLUME = "b" * 32

HAD = {"collectionUid": UID, "volumeId": VOLUME, "vectorCount": 7}
"""The status of a resource whose collection has vectors."""


def document(
    name: str = "notes",
    uid: str = "r-1",
    *,
    generation: int = 1,
    created_at: str = "2026-01-01T00:00:00Z",
    is_deleting: bool = False,
    has_finalizer: bool = False,
    annotations: dict[str, str] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """One `VectorCollection` of four dimensions; further arguments are fields of its spec."""
    metadata: dict[str, Any] = {
        "name": name,
        "uid": uid,
        "generation": generation,
        "creationTimestamp": created_at,
        "resourceVersion": "1",
        "annotations": annotations or {},
    }
    if has_finalizer:
        metadata["finalizers"] = [FINALIZER]
    if is_deleting:
        metadata["deletionTimestamp"] = "2026-02-01T00:00:00Z"
    return {
        "apiVersion": "vecstow.dev/v1alpha1",
        "kind": "VectorCollection",
        "metadata": metadata,
        "spec": {"dimension": 4, "distanceMetric": "Euclidean"} | spec,
        "status": status or {},
    }


def claim(name: str = "notes", uid: str = "r-1", **fields: Any) -> Observed:
    """The same, as decisions see it."""
    return observed(document(name, uid, **fields))


def report(reason: Reason, message: str, hint: str | None = None, uid: str = "r-1") -> Report:
    """Return the sidecar's report on the resource `notes` of that uid."""
    return report_on(claim(uid=uid), reason, message, hint)


def manifest_of(resource: Observed, collection_uid: str | None = None) -> Manifest:
    """Return the manifest that the sidecar writes for a resource."""
    assert isinstance(resource.declared, CollectionResource)
    manifest = manifest_from_resource(resource.declared, ManagedBy.KUBERNETES, None)
    return dataclasses.replace(manifest, collection_uid=collection_uid)


def state_of(resource: Observed, **changes: Any) -> CollectionState:
    """Return the state that an engine reports when it serves the resource."""
    values: dict[str, Any] = {
        "name": resource.collection_name,
        "state": "ready",
        "collection_uid": UID,
        "resource_uid": resource.uid,
        "generation": resource.generation,
        "vector_count": 7,
        "indexed": 7,
    }
    return CollectionState(**(values | changes))


def pod(*collections: CollectionState, name: str = "vecstow-0", **state: Any) -> EnginePod:
    """An engine pod that answers with these collections."""
    named = {each.name: each for each in collections}
    values: dict[str, Any] = {"volume_id": VOLUME, "collections": named, "reports": {}}
    return EnginePod(name, f"uid of {name}", EngineState(**(values | state)))


def engine_of(*pods: EnginePod, exists: bool = True, wanted_pods: int = 1) -> EngineView:
    """The engine `vecstow` with these pods."""
    return EngineView("vecstow", exists, wanted_pods, pods)
