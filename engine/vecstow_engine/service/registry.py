"""Which collections there are: found at start, added and removed later, changed beside the engine."""

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
from vecstow_engine.service.collection import Collection, quarantined, replaced
from vecstow_engine.storage.discovery import Found, claimed_uid, discover, rivals
from vecstow_engine.storage.layout import MANIFEST, ROWS, Layout
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.trash import move_to_deleted

log = structlog.stdlib.get_logger(__name__)


class Bound:
    """The collection of one request, as a context: every search enters one, and a generator costs more."""

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
    """Thread-safe. `changing` is held by whoever adds a collection on disk and here."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._collections: dict[str, Collection] = {}
        self._broken: dict[str, str] = {}
        """Folders whose manifest cannot be read: their names stay taken, and what is wrong is told."""
        self._taken: dict[str, str | None] = {}
        """Folders that somebody else works on, and why their names were kept before; nobody follows them."""
        self._rivals: set[str] = set()
        """Names of the folders that claim a uid together with another one, at the start."""
        self._has_changed = False
        """A claim may have come since the start, when all were compared."""
        self._seen: dict[str, tuple[int, int]] = {}
        """Folder to inode and ctime of its manifest, as last read."""
        self.changing = threading.RLock()

    @contextmanager
    def changing_now(self) -> Iterator[bool]:
        """True, and `changing` is held over the block; False: another thread has it, perhaps for an hour."""
        free = self.changing.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                self.changing.release()

    def discover(self, is_leaving: Callable[[], bool] = lambda: False) -> list[Collection]:
        """Read every manifest of the volume, as long as the engine does not end; returns the collections to
        load, small ones first.
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
        """All collections of this moment."""
        return list(self._collections.values())

    def broken(self) -> dict[str, str]:
        """Folders whose manifest cannot be read, and why."""
        return dict(self._broken)

    def get(self, name: str) -> Collection:
        """The collection of that name; raises NotFound, or Quarantined when its manifest is broken."""
        collection = self._collections.get(name)
        if collection is not None:
            return collection
        if name in self._broken:
            raise quarantined(name, self._broken[name])
        raise NotFound(f"collection {name!r} does not exist", collection=name)

    def bound(self, target: Collection | str) -> Bound:
        """Resolve `target` once, for all steps of a request; raises as `get`.

        A NotFound inside becomes a Conflict when another collection has the name by then.
        """
        return Bound(self, self.get(target) if isinstance(target, str) else target)

    def refuse_gone(self, collection: Collection) -> None:
        """Raise NotFound when this collection was dropped, Conflict when another one has its name."""
        served = self._collections.get(collection.name)
        if served is None:
            raise NotFound(f"collection {collection.name!r} does not exist", collection=collection.name)
        if served is not collection:
            raise replaced(collection.name)

    def find(self, name: str) -> Collection | None:
        """The collection of that name, if there is one."""
        return self._collections.get(name)

    def knows(self, name: str) -> bool:
        """Whether the name is taken, be it by a broken manifest."""
        return name in self._collections or name in self._broken

    def is_rival(self, collection: Collection) -> bool:
        """Whether another folder claims the same uid: it did at the start, or it came since."""
        if collection.name in self._rivals:
            return True
        # All were compared at the start: to do that anew for each one would take the square of their number.
        if collection.manifest.collection_uid is not None and not self._has_changed:
            return False
        is_claimed = self.is_claimed(collection.manifest)
        self._has_changed |= is_claimed
        return is_claimed

    def is_claimed(self, manifest: Manifest) -> bool:
        """Whether a collection of another name has the uid that this folder claims."""
        uid = claimed_uid(self._layout, manifest)
        # The uid first, which hardly ever is the same.
        same = [c for c in self.collections() if c.manifest.collection_uid == uid]
        return uid is not None and any(other.name != manifest.name for other in same)

    def add(self, collection: Collection) -> None:
        """A collection that was created, restored, imported or found.

        Its manifest is read once more by the next scan: somebody may have changed it since it was written.
        """
        self._broken.pop(collection.name, None)
        self._seen.pop(collection.name, None)
        self._has_changed = True
        self._collections[collection.name] = collection

    def put_in_place(self, collection: Collection) -> None:
        """Let another one stand for the collection of that name; what was read of its manifest counts on."""
        self._has_changed = True
        self._collections[collection.name] = collection

    def replace(self, collection: Collection, manifest: Manifest) -> Collection:
        """Put another incarnation in the place of `collection`, with its lock; requests bound to it end."""
        other = Collection(manifest)
        other.take_over(collection)
        self.put_in_place(other)
        collection.drop()
        return other

    def remove(self, collection: Collection) -> None:
        """A collection that is being dropped: its name is unknown from now on."""
        self._collections.pop(collection.name, None)
        self._seen.pop(collection.name, None)

    def is_taken(self, name: str) -> bool:
        """Whether somebody works on that folder."""
        return name in self._taken

    def take_name(self, name: str, reason: str) -> None:
        """Keep the name of a folder without a readable manifest; a manifest that comes there must wait.

        Raises Conflict when it is a collection by now, or is taken already.
        """
        with self.changing:
            if name in self._collections or name in self._taken:
                why = self._broken[name] if name in self._taken else "it is served"
                raise Conflict(f"{name!r}: {why}", collection=name)
            self._taken[name] = self._broken.get(name)
            self._broken[name] = reason

    def give_name_back(self, name: str) -> None:
        """The reverse of `take_name`."""
        with self.changing:
            before = self._taken.pop(name)
            del self._broken[name]
            if before is not None:
                self._broken[name] = before

    def tell_broken(self, name: str, reason: str) -> None:
        """Keep the name of a folder that is not served, and say why."""
        self._broken[name] = reason

    def forget_broken(self, name: str) -> None:
        """Give the name of a folder free that was not served, and has gone."""
        self._broken.pop(name, None)

    def look_again(self, name: str) -> None:
        """Report this manifest as changed once more."""
        self._seen.pop(name, None)

    def changed(self) -> list[str]:
        """Folders whose manifest's file is new or another one since this was asked last."""
        with self.changing:
            changed = []
            for entry in os.scandir(self._layout.data):
                if self._is_followed(entry):
                    signature = self._signature(entry.name)
                    if signature != self._seen.get(entry.name):
                        self._seen[entry.name] = signature
                        changed.append(entry.name)
            return changed

    def _is_followed(self, entry: os.DirEntry[str]) -> bool:
        return (
            is_collection_name(entry.name)
            and entry.name not in self._taken
            and entry.is_dir(follow_symlinks=False)
        )

    def all_opened(self) -> bool:
        """Whether no collection is being opened; one whose opening was postponed is not."""
        return not any(collection.is_being_opened for collection in self.collections())

    def log_counts(self) -> None:
        """One line when everything is loaded."""
        counts = Counter(collection.state.value for collection in self.collections())
        log.info("collections loaded", **counts, failed=len(self._broken), total=len(self._collections))

    def read(self, name: str) -> Manifest | None:
        """The manifest in a folder, if it says anything new; a broken one is logged.

        A collection that opens again when its manifest changes needs no other content: a new time suffices.
        """
        known = self._collections.get(name)
        try:
            manifest = read_manifest(self._layout.collection(name))
        except (DamagedFile, NewerFormat) as error:
            log.error("manifest cannot be read", collection=name, reason=error.message)
            if known is None:
                self._broken[name] = error.message
            return None
        if manifest is None:
            if known is not None:
                log.warning("manifest is missing beside its data", collection=name)
            return None
        is_news = known is None or known.reopens or known.dropping or known.manifest != manifest
        self._has_changed |= is_news
        return manifest if is_news else None

    def _take(self, item: Found) -> None:
        self._seen[item.name] = self._signature(item.name)
        if item.manifest is None:
            if item.bare:
                log.warning("folder without metadata.json is skipped", folder=item.name)
                if item.has_data:
                    self._broken[item.name] = f"{item.problem} beside data files"
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
            # Text, not a Path: every scan asks for each collection, and a Path costs more than the answer.
            stat = os.stat(f"{self._layout.data}/{name}/{MANIFEST}")
        except OSError:
            return 0, 0
        return stat.st_ino, stat.st_ctime_ns

    def _size(self, collection: Collection) -> int:
        try:
            return os.stat(self._layout.collection(collection.name) / ROWS).st_size
        except OSError:
            return 0
