"""The figures of collections and of the server, read at each request, and the self-recall of a collection."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.exact import Labels, Rows
from vecstow_engine.model.manifest import manifest_document
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.registry import Registry
from vecstow_engine.storage.layout import INDEX, Layout

WITHHELD_LISTED_MAX: Final = 100
SAMPLE_POINTS: Final = 1000
K: Final = 10
_QUERIES_AT_ONCE: Final = 32
"""Queries of one call: few enough that other searches run between two calls."""
_ROUNDING: Final = 1e-5
"""Relative tolerance of a distance: the graph and the exact search add in different orders."""


def description(collection: Collection, registry: Registry) -> dict[str, Any]:
    """Return the body of `GET /collections/{c}`: manifest, aliases and live facts of a collection."""
    store, index = collection.store, collection.index
    withheld = list(store.layers.withheld.items())[:WITHHELD_LISTED_MAX] if store is not None else []
    return manifest_document(collection.manifest) | {
        "aliases": registry.aliases_of(collection.name),
        "vector_count": collection.count,
        "indexed": index.indexed if index is not None else 0,
        "state": collection.state.value,
        "reason": collection.reason,
        "withheld": [{"slot": slot, "reason": reason} for slot, reason in withheld],
        "progress": progress(collection),
        "payload_index_state": payload_index_state(collection),
    }


def payload_index_state(collection: Collection) -> list[dict[str, object]]:
    """Return for each declared field whether its index answers, and the bytes of memory that it takes."""
    indexes = collection.payload_indexes
    return [
        {
            "field": each.field,
            "type": each.type,
            "ready": indexes.answers(each),
            "bytes": indexes.bytes_of(each.field),
        }
        for each in collection.manifest.payload_indexes
    ]


def progress(collection: Collection) -> dict[str, object] | None:
    """Return the long work that is under way: `{"task", "done", "total"}`; None without any."""
    index = collection.index
    if collection.progress is not None or index is None:
        return collection.progress
    done, total = index.progress
    if index.rebuilding:
        return {"task": "rebuild", "done": done, "total": total}
    if (columns := collection.payload_indexes.unfinished) is not None:
        total = collection.count
        return {"task": "payload indexes", "done": min(columns.filled, total), "total": total}
    is_growing = index.pending and collection.held_out is None
    return {"task": "index", "done": done, "total": total} if is_growing else None


def collection_stats(collection: Collection) -> dict[str, object]:
    """Return the figures of a collection under d-vecDB's names; sizes in bytes."""
    store, index = collection.store, collection.index
    return {
        "name": collection.name,
        "vector_count": collection.count,
        "dimension": collection.manifest.dimension,
        "index_size": _size(store.layers.folder / INDEX) if store is not None else 0,
        "memory_usage": store.overlay_bytes + index.memory_bytes + collection.payload_indexes.memory_bytes
        if store is not None and index is not None
        else 0,
    }


def server_stats(collections: Iterable[Collection], layout: Layout, started_at: float) -> dict[str, object]:
    """Return the figures of the server under d-vecDB's names; sizes in bytes.

    `started_at`: the time.monotonic of the start.
    """
    collections = list(collections)
    return {
        "total_vectors": sum(collection.count for collection in collections),
        "total_collections": len(collections),
        "memory_usage": resident_bytes(),
        "disk_usage": folder_bytes(layout.data),
        "uptime_seconds": int(time.monotonic() - started_at),
    }


def state_rows(registry: Registry) -> list[dict[str, object]]:
    """Return `collections` of `GET /state`, sorted by name: collections, and folders that are not served."""
    rows = [
        _state_row(collection, registry.aliases_of(collection.name)) for collection in registry.collections()
    ]
    rows += [
        {"name": name, "state": "quarantined", "reason": reason, "vector_count": 0}
        for name, reason in registry.broken().items()
    ]
    return sorted(rows, key=lambda row: str(row["name"]))


def resident_bytes() -> int:
    """Return the bytes of this process's resident memory."""
    with Path("/proc/self/statm").open() as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def folder_bytes(folder: Path) -> int:
    """Return the bytes on disk below a folder; files that vanish meanwhile do not count."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
            except OSError:
                continue
    return total


def _state_row(collection: Collection, aliases: list[str]) -> dict[str, object]:
    manifest = collection.manifest
    store = collection.store
    return {
        "name": manifest.name,
        "collection_uid": manifest.collection_uid,
        "resource_uid": manifest.resource_uid,
        "generation": manifest.generation,
        "managed_by": manifest.managed_by.value,
        "aliases": aliases,
        "state": collection.state.value,
        "reason": collection.reason,
        "vector_count": collection.count,
        "indexed": collection.index.indexed if collection.index is not None else 0,
        "rebuilt": _rebuilt(collection),
        "self_recall": collection.self_recall,
        "overlay_bytes": store.overlay_bytes if store is not None else 0,
        "payload_index_bytes": collection.payload_indexes.memory_bytes,
        "log_bytes": store.log.total_bytes if store is not None else 0,
    }


def _rebuilt(collection: Collection) -> int | None:
    """Return the number of vectors in the graph of a rebuild; None without a rebuild."""
    index = collection.index
    return index.progress[0] if index is not None and index.rebuilding else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def self_recall(collection: Collection, sample_max: int = SAMPLE_POINTS) -> dict[str, object]:
    """Search for a sample of points by their own vectors, at the default ef.

    A point counts as found when it is among the first `k` hits, or when the `k` hits are as near. Returns
    `sample`, `found`, `share` (None for an empty sample), `k` and `ef`. Stores the share in
    `collection.self_recall` for the metrics.
    """
    ef = collection.manifest.index_config.ef_search
    labels, rows = _sample(collection, sample_max)
    found = 0
    for start in range(0, len(labels), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        found += _found(collection, rows[part], labels[part], ef)
    share = found / len(labels) if len(labels) else None
    collection.self_recall = share
    return {"sample": len(labels), "found": found, "share": share, "k": K, "ef": ef}


def _sample(collection: Collection, sample_max: int) -> tuple[Labels, Rows]:
    if collection.store is None:
        return np.empty(0, np.uint64), np.empty((0, collection.manifest.dimension), np.float32)
    labels = collection.store.view.labels()
    labels = np.random.default_rng().permutation(labels)[:sample_max]
    rows = collection.store.view.vectors(labels)
    good = ~np.isnan(rows[:, 0])
    return labels[good], rows[good]


def _found(collection: Collection, rows: Rows, labels: Labels, ef: int) -> int:
    assert collection.index is not None
    metric = collection.manifest.distance_metric
    hits = collection.index.search(rows, K, ef)
    prepared = exact.prepare(metric, rows)
    own = exact.distances_of_pairs(metric, prepared, prepared)
    as_near = hits.distances[:, -1] <= own + _ROUNDING * np.maximum(1, np.abs(own))
    return int(np.count_nonzero((hits.labels == labels[:, None]).any(axis=1) | as_near))
