"""The figures of collections and of the server, read at each request."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from vecstow_engine.service.collection import Collection
from vecstow_engine.service.registry import Registry
from vecstow_engine.storage.layout import INDEX, Layout


def collection_stats(collection: Collection) -> dict[str, object]:
    """Return the figures of a collection under d-vecDB's names; sizes in bytes."""
    store, index = collection.store, collection.index
    return {
        "name": collection.name,
        "vector_count": collection.count,
        "dimension": collection.manifest.dimension,
        "index_size": _size(store.layers.folder / INDEX) if store is not None else 0,
        "memory_usage": collection_memory(collection) if index is not None else 0,
    }


def collection_memory(collection: Collection) -> int:
    """Return the approximate bytes of memory that a collection takes."""
    store, index = collection.store, collection.index
    if store is None or index is None:
        return 0
    return store.overlay_bytes + index.memory_bytes


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
    rows = [_state_row(collection) for collection in registry.collections()]
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


def _state_row(collection: Collection) -> dict[str, object]:
    manifest = collection.manifest
    store = collection.store
    return {
        "name": manifest.name,
        "collection_uid": manifest.collection_uid,
        "resource_uid": manifest.resource_uid,
        "generation": manifest.generation,
        "managed_by": manifest.managed_by.value,
        "state": collection.state.value,
        "reason": collection.reason,
        "vector_count": collection.count,
        "indexed": collection.index.indexed if collection.index is not None else 0,
        "rebuilt": _rebuilt(collection),
        "self_recall": collection.self_recall,
        "overlay_bytes": store.overlay_bytes if store is not None else 0,
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
