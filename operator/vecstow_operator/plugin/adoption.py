"""A resource for a collection that has none: pure."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Container, Iterator, Mapping
from typing import Any, Final

from vecstow_engine.model.resource import API_VERSION, INDEX_FIELDS, KIND

HASH_CHARACTERS: Final = 6
_LEGAL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def resource_name(collection: str, taken: Container[str] = ()) -> str:
    """Return the collection's name where Kubernetes allows it; otherwise a lower-case form with a short hash.

    Several engines may have collections of one name: each gets a name that is not `taken`.
    """
    if _LEGAL.fullmatch(collection) and collection not in taken:
        return collection
    return next(name for name in _hashed(collection) if name not in taken)


def _hashed(collection: str) -> Iterator[str]:
    plain = re.sub(r"[^a-z0-9-]", "-", collection.lower())[: 62 - HASH_CHARACTERS].strip("-") or "collection"
    for number in itertools.count():
        digest = hashlib.sha256(f"{collection}{number or ''}".encode()).hexdigest()[:HASH_CHARACTERS]
        yield f"{plain}-{digest}"


def resource_of(
    description: Mapping[str, Any], engine: str, namespace: str, taken: Container[str] = ()
) -> dict[str, Any]:
    """Return the resource that declares a collection, from the answer of `GET /collections/{c}`."""
    collection = description["name"]
    name = resource_name(collection, taken)
    spec: dict[str, Any] = {
        "dimension": description["dimension"],
        "distanceMetric": description["distance_metric"],
        "vectorType": description["vector_type"],
        "index": {field: description["index_config"][key] for field, key in INDEX_FIELDS.items()},
        "engine": engine,
        "deletionPolicy": "Retain",
    }
    if description.get("payload_indexes"):
        spec["payloadIndexes"] = description["payload_indexes"]
    if description.get("owner"):
        spec["owner"] = description["owner"]
    if name != collection:
        spec["collectionName"] = collection
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
