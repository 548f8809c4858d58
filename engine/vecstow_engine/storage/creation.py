"""The creation of data files: at the first write of a collection, and by a bulk load.

The first write makes durable, in this order: the data files, the manifest with their uid, the first log
segment with the write itself. A crash in between leaves files without points. With both files in place, the
next recovery serves them, and writes their uid into the manifest. With `vectors.bin` alone, the next first
write replaces it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np

from vecstow_engine.model.errors import Conflict, NotFound, as_storage_error
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import new_collection_uid
from vecstow_engine.model.points import PointBatch
from vecstow_engine.storage import files
from vecstow_engine.storage.handles import DataFiles, HandleCache
from vecstow_engine.storage.identity import HEADER_BYTES, Identity, encode_header, identity_of
from vecstow_engine.storage.layers import Layers
from vecstow_engine.storage.layout import POINTS, ROWS, Layout, has_content
from vecstow_engine.storage.log.writer import Log
from vecstow_engine.storage.manifests import update_manifest, write_manifest
from vecstow_engine.storage.points.records import Meta, StoredPoint
from vecstow_engine.storage.points.writer import create_points, write_points
from vecstow_engine.storage.rows import RowsFile, SlotTable, row_checksums
from vecstow_engine.storage.store import Store


def create_data_files(layout: Layout, expected: Manifest, handles: HandleCache) -> tuple[Manifest, Store]:
    """Create the data files of an empty collection, as its manifest on the volume declares.

    Raises DiskFull, StorageError, or NotFound when the manifest is gone. Raises Conflict when the manifest
    has another shape than `expected`, or the folder holds data by now. Raises files.SyncFailed, after which
    no retry is allowed.
    """
    name = expected.name

    def decide(found: Manifest | None) -> Manifest | None:
        if found is None or found.dropped_at is not None:
            raise NotFound(f"collection {name!r} does not exist", collection=name)
        if found.shape != expected.shape:
            raise Conflict(f"the shape of collection {name!r} was changed meanwhile", collection=name)
        _refuse_data(layout.collection(name), found)
        identity = identity_of(found, new_collection_uid())
        create_files(layout.collection(name), identity)
        return dataclasses.replace(found, collection_uid=identity.uid)

    try:
        _, manifest = update_manifest(layout, name, decide)
    except files.SyncFailed:
        raise
    except OSError as error:
        raise as_storage_error(error, f"creating the files of {name}") from error
    assert manifest is not None and manifest.collection_uid is not None
    identity = identity_of(manifest, manifest.collection_uid)
    meta = Meta(identity.uid, identity.name)
    layers = Layers(layout.collection(name), identity, SlotTable(), handles, meta.checkpoints + 1)
    log = Log(layout.log(identity.uid), identity)
    return manifest, Store(layers, log, meta, DataFiles.of(layers.folder))


def refuse_orphan(layout: Layout, name: str) -> None:
    """Raise Conflict when the folder holds data without a manifest: no empty collection may replace it."""
    for file in (ROWS, POINTS):
        path = layout.collection(name) / file
        if has_content(path):
            message = f"{path} holds data, though there is no manifest next to it"
            hint = f"vecstow check {name} --repair rebuilds its manifest; or move the folder away"
            raise Conflict(message, collection=name, operation="create", hint=hint)


def _refuse_data(folder: Path, manifest: Manifest) -> None:
    """Raise Conflict when data appeared in the folder of a collection that was opened as empty."""
    path = folder / ROWS
    if manifest.collection_uid is not None or (path.exists() and path.stat().st_size > HEADER_BYTES):
        message = f"{folder} was empty when it was opened, and holds data now"
        hint = "restart the engine: it serves the data that it finds"
        raise Conflict(message, collection=manifest.name, operation="write", hint=hint)


def bulk_load(folder: Path, manifest: Manifest, batches: Iterable[PointBatch]) -> tuple[Manifest, int]:
    """Fill a new folder with a whole collection, the manifest last; return the manifest and applied sequence.

    No engine may serve the folder during the load. A repeated id replaces its point.
    """
    identity = identity_of(manifest, new_collection_uid())
    files.make_folder(folder.parent)
    files.make_folder(folder)
    create_files(folder, identity)
    with closing(RowsFile(folder / ROWS, identity.stride)) as rows:
        applied = _load_batches(folder, rows, batches)
    manifest = dataclasses.replace(manifest, collection_uid=identity.uid)
    write_manifest(folder, manifest)
    return manifest, applied


def create_files(folder: Path, identity: Identity) -> None:
    """Create empty data files, durably, in a folder that no engine serves."""
    files.replace_file(folder / ROWS, [encode_header(identity)])
    create_points(folder / POINTS, Meta(identity.uid, identity.name))


def _load_batches(folder: Path, rows: RowsFile, batches: Iterable[PointBatch]) -> int:
    slots_by_id: dict[str, int] = {}
    next_slot = sequence = 0
    for sequence, batch in enumerate(batches, start=1):
        files.check_interruption()
        slots = np.arange(next_slot, next_slot + len(batch.ids), dtype=np.int64)
        next_slot += len(batch.ids)
        rows.write(slots, batch.rows)
        rows.sync()
        freed = [slots_by_id[i] for i in batch.ids if i in slots_by_id]
        slots_by_id.update(zip(batch.ids, slots.tolist(), strict=True))
        points = (
            StoredPoint(slot, point_id, sequence, 1, checksum, payload)
            for slot, point_id, checksum, payload in zip(
                slots.tolist(), batch.ids, row_checksums(batch.rows).tolist(), batch.payloads, strict=True
            )
        )
        write_points(folder / POINTS, freed, points, applied=sequence, checkpoints=1)
    return sequence
