"""The reader of a volume without an engine: manifests, and the last checkpoint's counts. Writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vecstow_engine.model.errors import NotFound, StorageError, VolumeRefused
from vecstow_engine.model.manifest import Manifest, manifest_document
from vecstow_engine.storage.discovery import discover
from vecstow_engine.storage.layout import POINTS, Layout
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.points.read_at_rest import peek_meta
from vecstow_engine.storage.trash import list_deleted


def describe_all(data: Path) -> list[dict[str, Any]]:
    """Return each collection of the volume, sorted by name; one with a broken manifest has state `broken`."""
    layout = _layout(data)
    return [
        {"name": found.name, "vector_count": None, "state": "broken", "reason": found.problem}
        if found.manifest is None
        else _describe(layout, found.manifest)
        for found in discover(layout)
        if not found.bare
    ]


def describe(data: Path, name: str) -> dict[str, Any]:
    """Return one collection's manifest, and the facts from its point table.

    Raises NotFound, and DamagedFile or NewerFormat for a manifest that cannot be read.
    """
    layout = _layout(data)
    manifest = read_manifest(layout.collection(name))
    if manifest is None:
        raise NotFound(
            f"{data} has no collection {name!r}", collection=name, hint=f"vecstow ls --data {data} lists them"
        )
    return _describe(layout, manifest)


def describe_deleted(data: Path) -> list[dict[str, object]]:
    """Return the dropped collections that can be restored, newest first, in the form of the engine."""
    return [deleted.document(data) for deleted in list_deleted(_layout(data))]


def _layout(data: Path) -> Layout:
    if not data.is_dir():
        raise VolumeRefused(
            f"{data} is no folder", hint="--data names the directory that `vecstow serve` uses"
        )
    return Layout(data)


def _describe(layout: Layout, manifest: Manifest) -> dict[str, Any]:
    """Return the manifest's keys, `state`, `reason` and `vector_count` (last checkpoint; None: unknown)."""
    live: dict[str, Any] = {"vector_count": 0, "state": "offline", "reason": None}
    if manifest.dropped_at is not None:
        live["state"] = "dropped"
    if manifest.collection_uid is not None:
        try:
            live["vector_count"] = peek_meta(layout.collection(manifest.name) / POINTS).points
        except StorageError as damaged:
            live |= {"vector_count": None, "reason": damaged.message}
    return manifest_document(manifest) | live
