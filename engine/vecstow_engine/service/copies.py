"""Backups, restores and imports, as the engine does them for its callers."""

from __future__ import annotations

from pathlib import Path

import structlog

from vecstow_engine.model.errors import Conflict
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.registry import Registry
from vecstow_engine.service.settings import Settings
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import STAGING, make_backup, path_below, restore_backup
from vecstow_engine.storage.importing import import_orphan, target_folder
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.trash import restore_deleted

log = structlog.stdlib.get_logger(__name__)


class Copies:
    """The caller holds the engine's gate and the collection's upkeep lock."""

    def __init__(self, settings: Settings, layout: Layout, registry: Registry) -> None:
        self._settings = settings
        self._layout = layout
        self._registry = registry

    def remove_unfinished(self) -> None:
        """Throw away what a crash left half made."""
        files.remove_tree(self._layout.data / STAGING)

    def backup(self, collection: Collection) -> str:
        """Copy a collection; returns the path relative to the data directory."""
        path = make_backup(self._layout, collection.manifest)
        log.info("backup made", collection=collection.name, path=str(path))
        return str(path.relative_to(self._layout.data))

    def restore(self, backup_path: str, new_name: str | None) -> Manifest:
        """Bring back a dropped collection or a backup; raises NotFound, Conflict, DamagedFile."""
        path = path_below(self._layout, backup_path, (self._layout.deleted, self._layout.backups))
        if path.parent == self._layout.deleted:
            manifest = restore_deleted(self._layout, path, new_name)
        else:
            manifest = restore_backup(self._layout, path, new_name)
        log.info("collection restored", collection=manifest.name, source=backup_path)
        return manifest

    def import_orphan(self, orphaned_path: str, wanted: Manifest) -> Manifest:
        """Make a collection from orphaned or foreign files below the data directory or the import root."""
        roots: tuple[Path, ...] = (self._layout.data,)
        if self._settings.import_root is not None:
            roots = (*roots, self._settings.import_root)
        source = path_below(self._layout, orphaned_path, roots)
        served = self._registry.find(wanted.name)
        in_place = source == target_folder(self._layout, wanted.name)
        if served is not None and not (in_place and served.state.value == "foreign"):
            raise Conflict(f"collection {wanted.name!r} exists", collection=wanted.name, operation="import")
        manifest, report = import_orphan(self._layout, source, wanted)
        log.info(
            "collection imported", collection=manifest.name, source=orphaned_path,
            format=report.format or "vecstow",
            records=report.points, skipped=report.skipped_count,
        )  # fmt: skip
        for offset, reason in report.skipped:
            log.warning("record was not imported", collection=manifest.name, offset=offset, reason=reason)
        return manifest

    def check(self, collection: Collection) -> dict[str, object]:
        """Verify every file and row of one collection."""
        from vecstow_engine.storage.check import check_collection

        return check_collection(self._layout, collection.manifest).document()
