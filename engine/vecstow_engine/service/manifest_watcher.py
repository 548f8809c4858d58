"""Changes of manifests and folders by another program: a sidecar, the command line, an editor, `rm`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import structlog

from vecstow_engine.model.errors import Quarantined
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.service import lifecycle
from vecstow_engine.service.attempts import Attempts, Folder, Work
from vecstow_engine.service.catalog import Catalog
from vecstow_engine.service.collection import Collection, State
from vecstow_engine.service.hold_gate import Gate
from vecstow_engine.service.lost_files import close_without_folder, refuse_if_gone, stand_in
from vecstow_engine.service.rebuilds import Rebuilds
from vecstow_engine.service.registry import Registry
from vecstow_engine.storage.handles import missing_folder
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import update_manifest
from vecstow_engine.storage.trash import move_to_deleted

log = structlog.stdlib.get_logger(__name__)


class ManifestWatcher:
    """The follower of manifests: brings the engine to their content. A later scan repeats blocked changes.

    The watcher waits for no lock: a thread that works on files or changes names may take an hour.
    """

    def __init__(
        self,
        layout: Layout,
        registry: Registry,
        catalog: Catalog,
        gate: Gate,
        attempts: Attempts,
        rebuilds: Rebuilds,
    ) -> None:
        self._layout = layout
        self._registry = registry
        self._catalog = catalog
        self._gate = gate
        self._attempts = attempts
        self._rebuilds = rebuilds
        self._folders_in_trouble: dict[str, Folder] = {}
        self._unfollowed: set[str] = set()
        """Names of the manifests that wait for the next attempt."""

    def rescan(self) -> bool:
        """Follow manifests that changed since they were read; then search for collections that lost files.

        The order matters: only a change after the loss is a reason to open such a collection again. Returns
        False, and does nothing, while another thread scans or changes names.
        """
        with self._registry.changing_now() as free:
            if free:
                self._look()
        return free

    def _look(self) -> None:
        for collection in self._registry.collections():
            closed = collection.lifecycle
            if isinstance(closed, lifecycle.Quarantined) and closed.awaited is not None:
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
            self._registry.tell_broken(name, f"its manifest cannot be followed: {trouble.reason}")

    def _holder(self, name: str) -> Collection | Folder:
        return self._registry.find(name) or self._folders_in_trouble.get(name) or Folder(name)

    def _folders(self) -> set[str]:
        """Return the names of all folders. One scan costs less than one look at each folder."""
        with os.scandir(self._layout.data) as entries:
            return {entry.name for entry in entries if entry.is_dir()}

    def _look_for_return(self, collection: Collection, closed: lifecycle.Quarantined) -> None:
        if closed.awaited is not None and closed.awaited.missing() is None:
            collection.move_to(dataclasses.replace(closed, awaited=None))
            self._registry.look_again(collection.name)

    def _look_for_loss(self, collection: Collection, *, has_folder: bool) -> None:
        if not has_folder and collection.store is None and collection.serves():
            self._look_for_folder(collection)
        with suppress(Quarantined):
            refuse_if_gone(collection)
        if collection.is_lost:
            self._registry.put_in_place(stand_in(collection))

    def _look_for_folder(self, collection: Collection) -> None:
        missing = missing_folder(self._layout.collection(collection.name))
        if missing is not None:
            close_without_folder(collection, missing)
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
            self._unless_held(manifest, lambda: self._open_anew(collection, manifest))
        else:
            self._apply_settings(collection, manifest)

    def _unless_held(self, manifest: Manifest, change: Callable[[], None]) -> None:
        with self._gate.passing() as free:
            if free:
                change()
            else:
                self._registry.look_again(manifest.name)

    @contextmanager
    def _upkeep_of(self, collection: Collection) -> Iterator[bool]:
        """Hold the upkeep lock over the block and yield True; yield False when another thread holds it."""
        free = collection.upkeep.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                collection.upkeep.release()
            else:
                self._registry.look_again(collection.name)

    def _open(self, manifest: Manifest) -> None:
        with self._catalog.changes.names("opening", manifest.name):
            self._catalog.open_new(manifest)

    def _open_anew(self, collection: Collection, manifest: Manifest) -> None:
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
                self._catalog.open_anew(collection, manifest)

    def _apply_drop(self, manifest: Manifest, collection: Collection | None) -> None:
        with self._catalog.changes.names("drop", manifest.name):
            if collection is None:
                move_to_deleted(self._layout, manifest.name, manifest.collection_uid)
                self._registry.forget_broken(manifest.name)
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
            self._rebuilds.begin(collection, new)
            collection.forget_snapshot()
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
                log.error(
                    "manifest changed its shape next to the data; not followed", collection=manifest.name
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
