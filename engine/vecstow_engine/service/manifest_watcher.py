"""Changes of manifests and folders by another program: a sidecar, the command line, an editor, `rm`.

A collection whose files vanish while it is served is closed. A stand-in takes its place until they return.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog

from vecstow_engine.model.errors import Quarantined
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.service.aliases import AliasChanges
from vecstow_engine.service.attempts import Attempts, Folder, Work
from vecstow_engine.service.catalog import Catalog
from vecstow_engine.service.collection import Collection, files_gone
from vecstow_engine.service.hold import Gate
from vecstow_engine.service.indexer import Indexer
from vecstow_engine.service.lifecycle import InQuarantine, State
from vecstow_engine.service.registry import Registry
from vecstow_engine.storage.handles import missing_folder
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import update_manifest
from vecstow_engine.storage.trash import move_to_deleted

log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False)
class ManifestWatcher:
    """The follower of manifests: brings the engine to their content. A later scan repeats blocked changes.

    The watcher waits for no lock: a thread that works on files or changes names may take an hour.
    """

    _layout: Layout
    _registry: Registry
    _catalog: Catalog
    _aliases: AliasChanges
    _gate: Gate
    _attempts: Attempts
    _indexer: Indexer
    _rescan_seconds: float
    _rescanned_at: float = field(default_factory=time.monotonic, init=False)
    _folders_in_trouble: dict[str, Folder] = field(default_factory=dict, init=False)
    _unfollowed: set[str] = field(default_factory=set, init=False)
    """Names of the manifests that could not be followed, and wait for the next attempt."""

    def rescan_when_due(self) -> None:
        """Rescan when the last scan is old or could not be made, or when a collection lost its files."""
        is_due = time.monotonic() - self._rescanned_at > self._rescan_seconds
        if is_due or any(collection.is_lost for collection in self._registry.collections()):
            self.rescan()

    def rescan(self) -> None:
        """Follow manifests that changed since they were read; then search for collections that lost files.

        Follow the aliases last: an alias may lead to a collection whose manifest is new.

        The order matters: only a change after the loss is a reason to open such a collection again. While
        another thread scans or changes names, do nothing: the upkeep thread rescans as soon as it can.
        """
        self._rescanned_at = time.monotonic()
        with self._registry.changing_now() as free:
            if free:
                self._look()
            else:
                self._rescanned_at = -math.inf
        self._aliases.follow()

    def _look(self) -> None:
        for collection in self._registry.collections():
            closed = collection.lifecycle
            if isinstance(closed, InQuarantine) and closed.awaited is not None:
                with self._attempts.at(Work.AWAITING, collection):
                    self._look_for_return(collection, closed)
        self._try_unfollowed()
        for name in self._registry.changed():
            self._handle_change(name)
        folders = self._folders()
        for collection in self._registry.collections():
            if self._attempts.may_begin(Work.LOOKING, collection):
                with self._attempts.at(Work.LOOKING, collection):
                    self._look_for_loss(collection, has_folder=collection.name in folders)

    def _try_unfollowed(self) -> None:
        """Let the registry report the manifests that could not be followed, once their pause is over."""
        for name in list(self._unfollowed):
            if self._attempts.may_begin(Work.FOLLOWING, self._holder(name)):
                self._unfollowed.discard(name)
                self._registry.look_again(name)

    def _handle_change(self, name: str) -> None:
        holder = self._holder(name)
        with self._attempts.at(Work.FOLLOWING, holder):
            manifest = self._registry.read(name)
            if manifest is not None:
                self._apply_manifest(manifest)
        trouble = holder.troubles.get(Work.FOLLOWING)
        if trouble is None:
            self._folders_in_trouble.pop(name, None)
            return
        self._unfollowed.add(name)
        if isinstance(holder, Folder):
            self._folders_in_trouble[name] = holder
            self._registry.refuse_name(name, f"its manifest cannot be followed: {trouble.reason}")

    def _holder(self, name: str) -> Collection | Folder:
        return self._registry.find(name) or self._folders_in_trouble.get(name) or Folder(name)

    def _folders(self) -> set[str]:
        """Return the names of all folders. One scan costs less than one look at each folder."""
        with os.scandir(self._layout.data) as entries:
            return {entry.name for entry in entries if entry.is_dir()}

    def _look_for_return(self, collection: Collection, closed: InQuarantine) -> None:
        if closed.awaited is not None and closed.awaited.missing() is None:
            collection.move_to(dataclasses.replace(closed, awaited=None))
            self._registry.look_again(collection.name)

    def _look_for_loss(self, collection: Collection, *, has_folder: bool) -> None:
        if not has_folder and collection.store is None and collection.serves():
            self._look_for_folder(collection)
        with suppress(Quarantined):
            collection.refuse_if_gone()
        if collection.is_lost:
            self._registry.put_in_place(stand_in(collection))

    def _look_for_folder(self, collection: Collection) -> None:
        missing = missing_folder(self._layout.collection(collection.name))
        if missing is not None:
            # A new declaration restores a collection without data in full.
            collection.move_to(InQuarantine(files_gone(collection.name, missing), reopens=True))
            self._registry.look_again(collection.name)

    def _apply_manifest(self, manifest: Manifest) -> None:
        collection = self._registry.find(manifest.name)
        if collection is not None and manifest.dropped_at is None:
            collection.stop_dropping()  # the mark was removed before the folder could be moved
        if collection is not None and not _may_apply(collection, manifest):
            self._registry.look_again(manifest.name)
        elif manifest.dropped_at is not None:
            self._unless_held(manifest, lambda: self._apply_drop(manifest, collection))
        elif collection is None:
            self._unless_held(manifest, lambda: self._open(manifest))
        elif collection.reopens or _is_to_have_data(collection, manifest):
            self._unless_held(manifest, lambda: self._reopen(collection, manifest))
        else:
            self._unless_held(manifest, lambda: self._apply_settings(collection, manifest))

    def _unless_held(self, manifest: Manifest, change: Callable[[], None]) -> None:
        with self._gate.passing() as free:
            if free:
                change()
            else:
                self._registry.look_again(manifest.name)

    @contextmanager
    def _upkeep_of(self, collection: Collection) -> Iterator[bool]:
        """Hold the upkeep lock over the block and yield True; yield False when another thread holds it.

        After False the block must change nothing: the next scan reads the manifest again.
        """
        free = collection.upkeep_lock.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                collection.upkeep_lock.release()
            else:
                self._registry.look_again(collection.name)

    def _open(self, manifest: Manifest) -> None:
        with self._catalog.changes.names("opening", manifest.name):
            self._catalog.open_new(manifest)

    def _reopen(self, collection: Collection, manifest: Manifest) -> None:
        if manifest.shape != collection.manifest.shape:
            self._change_shape(collection, manifest)
            return
        # The lock is busy while a check reads the files, or the last checkpoint before their loss goes on.
        with self._upkeep_of(collection) as free:
            if not free:
                return
            if collection.store is not None and collection.serves():
                self._registry.look_again(manifest.name)  # a first write created its data meanwhile
                return
            with self._catalog.changes.names("opening", manifest.name):
                self._catalog.reopen(collection, manifest)

    def _apply_drop(self, manifest: Manifest, collection: Collection | None) -> None:
        with self._catalog.changes.names("drop", manifest.name):
            if collection is None:
                move_to_deleted(self._layout, manifest.name, manifest.collection_uid)
                self._registry.free_name(manifest.name)
                return
            collection.drop()  # no more work begins, so the lock gets free
            with self._upkeep_of(collection) as free:
                if free:
                    self._catalog.move_away(collection)

    def _apply_settings(self, collection: Collection, manifest: Manifest) -> None:
        if manifest.shape != collection.manifest.shape:
            self._change_shape(collection, manifest)
            return
        # The lock is busy while a first write sets the uid, which this manifest does not have yet.
        with self._upkeep_of(collection) as free:
            if free:
                self._change_settings(collection, manifest)

    def _change_settings(self, collection: Collection, manifest: Manifest) -> None:
        old, new = collection.manifest.index_config, manifest.index_config
        followed = self._with_uid_of_data(collection, manifest)
        same_graph = old.max_connections == new.max_connections and old.ef_construction == new.ef_construction
        if collection.index is not None and not same_graph:
            # A reader that sees the new generation also sees the rebuild.
            self._indexer.rebuild(collection, new)
            collection.forget_snapshot()
        collection.declare_payload_indexes(followed.payload_indexes)
        collection.manifest = followed
        log.info("manifest followed", collection=manifest.name)

    def _with_uid_of_data(self, collection: Collection, manifest: Manifest) -> Manifest:
        """Write the uid of the served data into a manifest that lacks it; return the manifest to follow.

        The manifest was edited, or was lost and written again. A lost creation time is restored too: only the
        lost manifest recorded it.
        """
        store = collection.store
        if store is None or manifest.collection_uid == store.identity.uid or store.data_files.missing():
            return manifest
        uid, created_at = store.identity.uid, collection.manifest.created_at

        def decide(found: Manifest | None) -> Manifest | None:
            return found and dataclasses.replace(
                found, collection_uid=uid, created_at=created_at or found.created_at
            )

        with self._catalog.changes.names("following the manifest", manifest.name):
            found = update_manifest(self._layout, manifest.name, decide)[1]
        log.warning("manifest did not name its data; put right", collection=manifest.name, uid=uid)
        return found or dataclasses.replace(manifest, collection_uid=uid)

    def _change_shape(self, collection: Collection, manifest: Manifest) -> None:
        """Replace a collection without data by one of the new shape; with data, log an error.

        Waiting writes were checked against the old shape, and fail.
        """
        with self._upkeep_of(collection) as free:
            if not free:
                return
            if collection.store is not None:
                collection.manifest_fault = (
                    "it changed dimension, distance_metric or vector_type next to data"
                )
                log.error(
                    "manifest is not followed", collection=manifest.name, reason=collection.manifest_fault
                )
                return
            collection.drop()
        self._catalog.open_new(manifest)


def _may_apply(collection: Collection, manifest: Manifest) -> bool:
    """Whether a manifest can be applied now: no loader or repair works on the files, or will do so.

    A drop need not wait for an opening that is only postponed.
    """
    if manifest.dropped_at is not None:
        return not collection.is_being_opened
    return collection.state is not State.RECOVERING


def _is_to_have_data(collection: Collection, manifest: Manifest) -> bool:
    """Whether the manifest names data, by its uid, for a collection that is served empty."""
    return collection.store is None and collection.serves() and manifest.collection_uid is not None


def stand_in(lost: Collection) -> Collection:
    """Return a quarantined collection for the place of `lost`, which has lost its files.

    The stand-in has no store and no index, so their memory becomes free. Both share the upkeep lock, since
    the last checkpoint of `lost` may still go on.
    """
    assert lost.store is not None and lost.error is not None
    other = Collection(lost.manifest)
    other.take_over(lost)
    awaited = lost.store.data_files if lost.reopens else None
    other.move_to(InQuarantine(lost.error, reopens=lost.reopens, awaited=awaited))
    return other
