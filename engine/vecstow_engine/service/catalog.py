"""Changes of the set of collections: create, first write, drop, purge, restore, import, open.

Each change is made on the volume first, then in the registry. `registry.changing` is held over both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import structlog

from vecstow_engine.importers import import_orphan
from vecstow_engine.importers.report import ImportReport
from vecstow_engine.model.errors import Busy, Conflict, DiskFull, StorageError, VecstowError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.hold import ChangeGuard, Gate
from vecstow_engine.service.lifecycle import State
from vecstow_engine.service.loader import Loader
from vecstow_engine.service.registry import Registry
from vecstow_engine.service.settings import Settings
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import path_below, remove_unfinished_backups, restore
from vecstow_engine.storage.creation import create_data_files, refuse_orphan
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import MANIFEST, Layout
from vecstow_engine.storage.manifests import mark_dropped, update_manifest
from vecstow_engine.storage.staging import clear_refused, finish_interrupted, remove_unfinished
from vecstow_engine.storage.trash import list_deleted, move_to_deleted, purge

PURGE_SECONDS: Final = 60.0

_Answer = TypeVar("_Answer")

log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False)
class Catalog:
    """The changes of the set of collections. Methods may be called from any thread."""

    _layout: Layout
    _registry: Registry
    _loader: Loader
    _handles: HandleCache
    _gate: Gate
    changes: ChangeGuard
    _settings: Settings
    _make_room: Callable[[], bool]
    _purged_at: float = field(default_factory=time.monotonic, init=False)

    def finish_interrupted_changes(self) -> None:
        """Finish imports and repairs that lacked only the last rename; remove other leftovers of a crash."""
        for name in finish_interrupted(self._layout):
            log.warning("finished an import or a repair that a crash had cut", collection=name)
        for remove in (remove_unfinished, remove_unfinished_backups):
            try:
                remove(self._layout)
            except OSError as error:  # leftovers take room, and harm no collection
                log.warning("what a crash left could not be removed", reason=str(error))

    def create(self, manifest: Manifest, *, exist_ok: bool = False) -> bool:
        """Declare a collection durably, and return True.

        Return False when the collection exists with the same shape and `exist_ok` is true. Raises Conflict
        when the name is taken, ReadOnly, OutcomeUnknown, DiskFull or StorageError.
        """

        def decide(found: Manifest | None) -> Manifest:
            if found is not None:
                raise _exists(manifest.name, "create")
            refuse_orphan(self._layout, manifest.name)
            return manifest

        existing = self._registry.find(manifest.name) or self._registry.find_by_alias(manifest.name)
        if existing is not None and exist_ok:
            if existing.manifest.shape == manifest.shape:
                return False
            shapes = f" with {_words(existing.manifest)}, not with {_words(manifest)}"
            raise _exists(manifest.name, "create", shapes)
        with self._registry.changing, self.changes.names("create", manifest.name):
            self._refuse_known(manifest.name)
            _, created = update_manifest(self._layout, manifest.name, decide)
            assert created is not None
            collection = Collection(created)
            collection.opened(None, None)
            self._registry.add(collection)
        log.info("collection created", collection=manifest.name)
        return True

    def _refuse_known(self, name: str, operation: str = "create") -> None:
        """Raise Conflict when the registry knows the name, be it of a folder with a broken manifest."""
        if self._registry.knows(name):
            if not (self._layout.collection(name) / MANIFEST).exists():
                refuse_orphan(self._layout, name)
            broken = self._registry.broken().get(name)
            raise _exists(name, operation, f", but it is not served: {broken}" if broken else "")

    def create_files_of(self, collection: Collection) -> None:
        """Create the data files of a collection that gets its first write.

        Raises Busy during a hold, and the errors of `Collection.writable`: ReadOnly after a failed sync of
        these files.
        """
        with self._gate.passing() as free, collection.upkeep_lock:
            if not free:
                seconds = math.ceil(self._gate.remaining_seconds)
                reason = (
                    f"not logged: the first write makes files, and the volume is held for {seconds} s more"
                )
                later = max(1, seconds)
                raise Busy(reason, collection=collection.name, operation="write", retry_after_seconds=later)
            collection.writable()
            if collection.store is not None:
                return
            try:
                manifest, store = create_data_files(self._layout, collection.manifest, self._handles)
            except files.SyncFailed as error:
                collection.fail(f"a sync of its first files failed: {error}")
                collection.writable()  # raises ReadOnly now
            else:
                collection.manifest = manifest
                collection.opened(store, self._loader.new_index(collection))

    def drop(self, collection: Collection) -> Path | None:
        """Move a collection to `.deleted/` and return the new path; None when its folder was gone.

        The name is free afterwards. Raises Conflict, NotFound, or Recovering while the collection is opened:
        its loader would go on with the next collection of that name.
        """
        if collection.is_being_opened:
            collection.readable()
        # The upkeep lock comes first: its holder may take an hour, and other names must change meanwhile.
        with (
            self._gate.required("drop"),
            collection.upkeep_lock,
            self.changes.exclusive("drop", collection.name),
        ):
            self._registry.refuse_gone(collection)
            if collection.is_being_opened:
                collection.readable()
            self._mark_dropped(collection)
            collection.drop()
            return self.move_away(collection)

    def _mark_dropped(self, collection: Collection) -> None:
        """Mark the manifest as dropped; after a failed sync of the mark, take no more writes.

        The next start may find the mark and drop the collection, with every write accepted until then.
        """
        try:
            self._with_room(mark_dropped, self._layout, collection.name, collection.manifest)
        except files.SyncFailed as error:
            collection.fail(f"whether it is dropped is unknown until the next start: {error}")
            raise

    def hard_delete(self, collection: Collection) -> None:
        """Drop a collection and purge it at once."""
        with self._gate.required("hard delete"):
            path = self.drop(collection)
            with self.changes.exclusive("hard delete", collection.name):
                for deleted in list_deleted(self._layout):
                    if deleted.path == path:
                        purge(self._layout, deleted)
        log.info("collection purged", collection=collection.name)

    def deleted(self) -> list[dict[str, object]]:
        """Return the collections that can be restored, newest first; paths are relative to the volume."""
        return [deleted.document(self._layout.data) for deleted in list_deleted(self._layout)]

    def cleanup(self, retention_hours: float) -> list[str]:
        """Purge the collections that were dropped at least `retention_hours` ago; return their names.

        A failed purge does not stop the others; the first error is raised at the end.
        """
        names = []
        errors: list[Exception] = []
        with self.changes.exclusive("cleanup"):
            for deleted in list_deleted(self._layout):
                if deleted.age_hours >= retention_hours and not self.changes.failure:
                    try:
                        with self.changes.names("cleanup", deleted.name):
                            purge(self._layout, deleted)
                    except Exception as error:  # noqa: BLE001  # Raised below.
                        errors.append(error)
                        continue
                    log.info("collection purged", collection=deleted.name, path=str(deleted.path))
                    names.append(deleted.name)
        if errors:
            raise errors[0]
        return names

    def purge_when_due(self) -> None:
        """Purge collections whose retention is over; do nothing during a hold or a change of names."""
        now, retention = time.monotonic(), self._settings.storage.retention_hours
        if now - self._purged_at <= PURGE_SECONDS or self._gate.remaining_seconds > 0 or retention <= 0:
            return
        with self._registry.changing_now() as free:
            if free:
                self._purged_at = now
                self.cleanup(retention)

    def clear_leftovers(self) -> None:
        """Remove leftovers of failed copies and repairs that an error kept on the disk; not during a hold."""
        if self._gate.remaining_seconds == 0:
            clear_refused(self._layout.data)

    def restore(self, backup_path: str, new_name: str | None) -> str:
        """Restore a dropped collection or a backup; return the collection's name."""
        with self.changes.exclusive("restore", new_name):
            with self._gate.interruptible("restore"):
                restored = restore(self._layout, backup_path, new_name)
            log.info("collection restored", collection=restored.manifest.name, source=backup_path)
            self.open_new(restored.manifest, restored.remarks, made_whole=restored.made_whole)
        return restored.manifest.name

    def import_orphan(self, orphaned_path: str, wanted: Manifest) -> None:
        """Make a collection from orphaned or foreign files below the data directory or the import root.

        Raises Conflict when the name is taken or the files are served.
        """
        with self.changes.exclusive("import", wanted.name):
            roots = tuple(filter(None, (self._layout.data, self._settings.import_root)))
            source = path_below(self._layout, orphaned_path, roots, "orphaned_path")
            served = self._registry.find(wanted.name)
            in_place = source == self._layout.collection(wanted.name)
            if served is not None and not (in_place and served.state is State.FOREIGN):
                raise _exists(wanted.name, "import")
            if self._registry.is_taken(wanted.name):
                self._refuse_known(wanted.name, "import")
            self._refuse_served(source)
            with self._gate.interruptible("import"):
                made, report = import_orphan(self._layout, source, wanted)
            _log_import(wanted.name, orphaned_path, report)
            self.open_new(made.manifest, made.remarks, made_whole=True)

    def _refuse_served(self, source: Path) -> None:
        """Raise Conflict for files that are served: a copy during writes may mix two moments."""
        source = source.resolve()
        is_ours = source.parent == self._layout.data.resolve()
        served = self._registry.find(source.name) if is_ours else None
        if served is not None and served.store is not None:
            message = f"{source} is served as collection {served.name!r}, and changes while it is copied"
            hint = "back it up, and restore under a new name"
            raise Conflict(message, collection=served.name, operation="import", hint=hint)

    def open_new(self, manifest: Manifest, remarks: Sequence[str] = (), *, made_whole: bool = False) -> None:
        """Serve a collection whose folder is in its place. The caller holds `registry.changing`.

        `remarks`: the findings of the copy, import or repair that made the folder. `made_whole`: the
        collection's log holds nothing, because it just began or begins with the first write.
        """
        collection = Collection(manifest)
        collection.made_whole = made_whole
        self._registry.add(collection)
        self._loader.load(collection, lambda: self._registry.is_claimed(manifest))
        for remark in remarks:
            log.warning("collection was made with a remark", collection=manifest.name, remark=remark)
        collection.warnings += tuple(remarks)

    def reopen(self, collection: Collection, manifest: Manifest) -> None:
        """Open the files that are in a collection's folder now, as another incarnation.

        The caller holds `registry.changing` and the collection's upkeep lock.
        """
        self._loader.load(self._registry.replace(collection, manifest))

    def move_away(self, collection: Collection) -> Path | None:
        """Move a collection that is marked as dropped to `.deleted/`; return the path, None without a folder.

        The caller holds `registry.changing` and the collection's upkeep lock.
        """
        name, path = collection.name, None
        self._registry.remove(collection)
        if collection.store is not None:
            collection.store.retire("it was dropped")
        if self._layout.collection(name).exists():
            uid = collection.manifest.collection_uid
            try:
                path = self._with_room(move_to_deleted, self._layout, name, uid)
            except (DiskFull, StorageError) as error:
                raise _marked(name, error) from error
        log.info("collection dropped", collection=name, path=str(path or "its folder was gone"))
        return path

    def _with_room(self, call: Callable[..., _Answer], *values: object) -> _Answer:
        """Call, and on a full disk give up the reserve and call again: a drop frees room in the end."""
        try:
            return call(*values)
        except DiskFull:
            if not self._make_room():
                raise
        return call(*values)


def _marked(name: str, error: DiskFull | StorageError) -> VecstowError:
    """Return the error of a marked drop; the manifest watcher or the next start finishes the drop."""
    kind = DiskFull if isinstance(error, DiskFull) else StorageError
    reason = error.message.removesuffix("; nothing was changed")
    message = f"collection {name!r} is dropped, but its folder could not be moved away yet: {reason}"
    hint = "nothing: it is tried again every few seconds"
    return kind(message, collection=name, operation="drop", hint=hint)


def _exists(name: str, operation: str, more: str = "") -> Conflict:
    return Conflict(f"collection {name!r} exists{more}", collection=name, operation=operation)


def _log_import(name: str, source: str, report: ImportReport) -> None:
    counts = {"format": report.format, "records": report.points, "skipped": report.skipped_count}
    log.info("collection imported", collection=name, source=source, **counts)
    for offset, reason in report.skipped:
        log.warning("record was not imported", collection=name, offset=offset, reason=reason)
    for doubt in report.doubts.values():
        where = {
            "field": doubt.field,
            "reason": doubt.reason,
            "records": doubt.records,
            "offset": doubt.offset,
        }
        log.warning("metadata could be read in more than one way", collection=name, **where)


def _words(manifest: Manifest) -> str:
    return f"dimension {manifest.dimension}, {manifest.distance_metric}, {manifest.vector_type}"
