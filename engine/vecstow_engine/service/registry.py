"""The registry of collections: found at the start, added and removed later, changed by other programs."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from vecstow_engine.model.errors import Conflict, DamagedFile, NewerFormat, NotFound
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import is_collection_name
from vecstow_engine.service.aliases import Aliases
from vecstow_engine.service.collection import Collection, quarantined, replaced
from vecstow_engine.storage.discovery import Found, claimed_uid, discover, rivals
from vecstow_engine.storage.layout import MANIFEST, ROWS, Layout
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.trash import move_to_deleted

log = structlog.stdlib.get_logger(__name__)


class Bound:
    """The collection of one request, as a context, for all steps of the request.

    A NotFound inside the context becomes a Conflict when another collection has the name by then. Bound is a
    class, because every search enters one, and a generator is slower.
    """

    __slots__ = ("_collection", "_registry")

    def __init__(self, registry: Registry, collection: Collection) -> None:
        self._registry = registry
        self._collection = collection

    def __enter__(self) -> Collection:
        if self._collection.dropping:
            self._registry.refuse_gone(self._collection)
            self._collection.readable()
        return self._collection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, NotFound):
            self._registry.refuse_gone(self._collection)


class Registry:
    """The collections by name. Thread-safe. A change on the disk and here holds `changing` over both."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._collections: dict[str, Collection] = {}
        self._broken: dict[str, str] = {}
        """Folders that are not served, mostly for a broken manifest, and why. Their names stay taken."""
        self._taken: dict[str, str | None] = {}
        """Folders without a readable manifest that a repair works on, and their earlier entry in `_broken`.

        Their manifests are not followed meanwhile.
        """
        self._rivals: set[str] = set()
        """Names of the folders that shared a uid with another folder at the start."""
        self._has_changed = False
        """Whether a collection was added or changed since the start, which compared all uids."""
        self._seen: dict[str, tuple[int, int]] = {}
        """Inode and ctime (ns) of each folder's manifest at the last scan."""
        self.changing = threading.RLock()
        self.aliases = Aliases()

    @contextmanager
    def changing_now(self) -> Iterator[bool]:
        """Hold `changing` over the block and yield True; yield False at once when another thread holds it."""
        free = self.changing.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self.changing.release()

    def discover(self, is_leaving: Callable[[], bool] = lambda: False) -> list[Collection]:
        """Read every manifest of the volume; return the collections to open, small ones first.

        The scan ends early once `is_leaving` returns True.
        """
        log.info("scanning for collections", data=str(self._layout.data))
        found = discover(self._layout, is_leaving)
        self._rivals = rivals(self._layout, found)
        if self._rivals:
            log.warning("folders claim a uid together", folders=sorted(self._rivals))
        for item in found:
            self._take(item)
        return sorted(self._collections.values(), key=self._size)

    def collections(self) -> list[Collection]:
        """Return all collections; the list is a copy."""
        return list(self._collections.values())

    def broken(self) -> dict[str, str]:
        """Return the folders that are not served, and why."""
        return dict(self._broken)

    def resolve(self, name: str) -> str:
        """Return the name of the collection behind an alias; return any other name unchanged.

        The name of a collection takes precedence. Raises Quarantined when the aliases are unknown.
        """
        return name if self.knows(name) else self.aliases.behind(name) or name

    def get(self, name: str) -> Collection:
        """Return the collection of a name or alias; raise NotFound, or Quarantined when it is not served."""
        collection = self._collections.get(name) or self._collections.get(name := self.resolve(name))
        if collection is not None:
            return collection
        if name in self._broken:
            raise quarantined(name, self._broken[name])
        raise self.aliases.no_collection(name)

    def refuse_gone(self, collection: Collection) -> None:
        """Raise NotFound when this collection was dropped, Conflict when another one has its name."""
        served = self._collections.get(collection.name)
        if served is None:
            raise NotFound(f"collection {collection.name!r} does not exist", collection=collection.name)
        if served is not collection:
            raise replaced(collection.name)

    def aliases_of(self, name: str) -> list[str]:
        """Return the aliases under which a collection is reached, sorted."""
        return [alias for alias in self.aliases.table.names_of(name) if not self.knows(alias)]

    def find(self, name: str) -> Collection | None:
        """Return the collection of that name; None without one."""
        return self._collections.get(name)

    def find_by_alias(self, name: str) -> Collection | None:
        """Return the collection that an alias leads to; None without the alias or without the collection."""
        alias = self.aliases.table.get(name)
        return None if alias is None else self._collections.get(alias.collection)

    def knows(self, name: str) -> bool:
        """Whether a collection or a folder that is not served has the name."""
        return name in self._collections or name in self._broken

    def is_rival(self, collection: Collection) -> bool:
        """Whether another folder claims the same uid: one found at the start, or one that came later."""
        if collection.name in self._rivals:
            return True
        # The start compared all folders. A comparison for each folder would take quadratic time.
        if collection.manifest.collection_uid is not None and not self._has_changed:
            return False
        is_claimed = self.is_claimed(collection.manifest)
        self._has_changed |= is_claimed
        return is_claimed

    def is_claimed(self, manifest: Manifest) -> bool:
        """Whether a collection of another name has the uid that this folder claims."""
        uid = claimed_uid(self._layout, manifest)
        # The uid is compared first: it is hardly ever the same.
        same = [c for c in self.collections() if c.manifest.collection_uid == uid]
        return uid is not None and any(other.name != manifest.name for other in same)

    def add(self, collection: Collection) -> None:
        """Add a collection that was created, restored, imported or found.

        The next scan reads the manifest again: another program may have changed it since it was written.
        """
        self._broken.pop(collection.name, None)
        self._seen.pop(collection.name, None)
        self._has_changed = True
        self._collections[collection.name] = collection

    def put_in_place(self, collection: Collection) -> None:
        """Put another object in the place of the collection of that name; the manifest is not read again."""
        self._has_changed = True
        self._collections[collection.name] = collection

    def replace(self, collection: Collection, manifest: Manifest) -> Collection:
        """Put another incarnation, with the same upkeep lock, in the place of `collection`, and return it.

        Requests that are bound to `collection` get Conflict.
        """
        other = Collection(manifest)
        other.take_over(collection)
        self.put_in_place(other)
        collection.drop()
        return other

    def remove(self, collection: Collection) -> None:
        """Remove a collection that is being dropped."""
        self._collections.pop(collection.name, None)
        self._seen.pop(collection.name, None)

    def is_taken(self, name: str) -> bool:
        """Whether a repair works on that folder."""
        return name in self._taken

    def take_name(self, name: str, reason: str) -> None:
        """Take the name of a folder without a readable manifest; a new manifest there must wait.

        Raises Conflict when the folder is a collection by now, or its name is taken already.
        """
        with self.changing:
            if name in self._collections or name in self._taken:
                why = self._broken[name] if name in self._taken else "it is served"
                raise Conflict(f"{name!r}: {why}", collection=name)
            self._taken[name] = self._broken.get(name)
            self._broken[name] = reason

    def give_name_back(self, name: str) -> None:
        """Undo `take_name`."""
        with self.changing:
            before = self._taken.pop(name)
            del self._broken[name]
            if before is not None:
                self._broken[name] = before

    def refuse_name(self, name: str, reason: str) -> None:
        """Record that a folder is not served, and why; its name stays taken."""
        self._broken[name] = reason

    def free_name(self, name: str) -> None:
        """Free the name of a folder that was not served and is gone."""
        self._broken.pop(name, None)

    def look_again(self, name: str) -> None:
        """Let `changed` return this folder again."""
        self._seen.pop(name, None)

    def changed(self) -> list[str]:
        """Return the folders whose manifest file is new or changed since the last call.

        The names of folders that were not served and are gone become free.
        """
        with self.changing:
            changed = []
            gone = self._broken.keys() - self._taken.keys()
            for entry in os.scandir(self._layout.data):
                gone.discard(entry.name)
                if self._is_followed(entry):
                    signature = self._signature(entry.name)
                    if signature != self._seen.get(entry.name):
                        self._seen[entry.name] = signature
                        changed.append(entry.name)
            for name in gone:
                self.free_name(name)
            return changed

    def _is_followed(self, entry: os.DirEntry[str]) -> bool:
        return (
            is_collection_name(entry.name)
            and entry.name not in self._taken
            and entry.is_dir(follow_symlinks=False)
        )

    def all_opened(self) -> bool:
        """Whether no collection is being opened; a postponed opening does not count."""
        return not any(collection.is_being_opened for collection in self.collections())

    def log_counts(self) -> None:
        """Log one line with the number of collections in each state."""
        counts = Counter(collection.state.value for collection in self.collections())
        total = len(self._collections.keys() | self._broken.keys())
        log.info("collections loaded", **counts, failed=len(self._broken), total=total)

    def read(self, name: str) -> Manifest | None:
        """Return the manifest in a folder if it differs from the known one, else None; log a broken one.

        For a collection that reopens after a change of its manifest, the same content counts too: a
        new inode or ctime is enough.
        """
        known = self._collections.get(name)
        try:
            manifest = read_manifest(self._layout.collection(name))
        except (DamagedFile, NewerFormat) as error:
            log.error("manifest cannot be read", collection=name, reason=error.message)
            if known is None:
                self._broken[name] = error.message
            else:
                known.manifest_fault = error.message
            return None
        if manifest is None:
            if known is not None:
                known.manifest_fault = f"{MANIFEST} is missing"
                log.warning("manifest is missing", collection=name)
            return None
        if known is not None:
            known.manifest_fault = None
        is_news = known is None or known.reopens or known.dropping or known.manifest != manifest
        self._has_changed |= is_news
        return manifest if is_news else None

    def _take(self, item: Found) -> None:
        self._seen[item.name] = self._signature(item.name)
        if item.manifest is None:
            if item.bare:
                log.warning("folder without metadata.json is skipped", folder=item.name)
                if item.has_data:
                    self._broken[item.name] = f"{item.problem} next to data files"
            else:
                log.error("collection failed to load", collection=item.name, reason=item.problem)
                self._broken[item.name] = item.problem or ""
        elif item.manifest.dropped_at is not None:
            self._follow_drop(item.manifest)
        else:
            self._collections[item.name] = Collection(item.manifest)

    def _follow_drop(self, manifest: Manifest) -> None:
        try:
            path = move_to_deleted(self._layout, manifest.name, manifest.collection_uid)
        except Exception as error:  # noqa: BLE001  # The others are discovered all the same.
            self._broken[manifest.name] = f"it was dropped, but cannot be moved away: {error}"
            log.error("collection could not be dropped", collection=manifest.name, reason=str(error))
        else:
            log.info("collection dropped", collection=manifest.name, path=str(path))

    def _signature(self, name: str) -> tuple[int, int]:
        try:
            # A string, not a Path: every scan does this for each collection, and a Path costs more than stat.
            stat = os.stat(f"{self._layout.data}/{name}/{MANIFEST}")
        except OSError:
            return 0, 0
        return stat.st_ino, stat.st_ctime_ns

    def _size(self, collection: Collection) -> int:
        try:
            return os.stat(self._layout.collection(collection.name) / ROWS).st_size
        except OSError:
            return 0
