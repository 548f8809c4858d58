"""The restore of dropped collections and backups, by a running engine or on a stopped volume."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vecstow_engine.model.errors import as_storage_error
from vecstow_engine.storage.backup import Settled, path_below, restore_backup
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.quarantine import finish_interrupted
from vecstow_engine.storage.recovery.apply import WAL_MISSING
from vecstow_engine.storage.trash import restore_deleted
from vecstow_engine.storage.volume import alone, stopped_volume


def restore(layout: Layout, given: str, new_name: str | None) -> Settled:
    """Restore the dropped collection or the backup at `given`, a path below `.deleted/` or `.backups/`.

    Raises InvalidInput for another path, NotFound, Conflict when the name is taken, DiskFull or DamagedFile.
    """
    path = path_below(layout, given, (layout.deleted, layout.backups), "backup_path")
    if path.parent == layout.deleted:
        return Settled(restore_deleted(layout, path, new_name), made_whole=False)
    return restore_backup(layout, path, new_name)


def restore_on_volume(data: Path, given: str, new_name: str | None) -> Settled:
    """Restore on a stopped volume. Raises the errors of `restore`, and VolumeRefused while an engine runs.

    The remarks also report a missing log of a dropped collection. A running engine reports that on opening.
    """
    layout = stopped_volume(data)
    with alone(layout, f"vecstow restore {given}"):
        finish_interrupted(layout)
        try:
            settled = restore(layout, given, new_name)
        except OSError as error:
            raise as_storage_error(error, "restore") from error
    uid = settled.manifest.collection_uid
    if settled.made_whole or uid is None or segment_paths(layout.log(uid)):
        return settled
    return dataclasses.replace(settled, remarks=(*settled.remarks, WAL_MISSING))
