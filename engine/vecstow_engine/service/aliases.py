"""The aliases in force: the table that lookups read, and its changes by REST or by another program.

The file on the volume is the truth: a change is durable there before a lookup sees it. Lookups take no lock.
They read one table, and a change puts another one in its place.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from vecstow_engine.model.aliases import Alias, AliasTable
from vecstow_engine.model.errors import (
    DiskFull,
    NotFound,
    Quarantined,
    VecstowError,
)
from vecstow_engine.service.lifecycle import State
from vecstow_engine.storage.alias_changes import name_taken, no_alias, remove_alias, set_alias
from vecstow_engine.storage.aliases import (
    Signature,
    change_aliases,
    read_aliases,
    signature_of,
    sync_aliases,
)
from vecstow_engine.storage.layout import Layout

if TYPE_CHECKING:
    from vecstow_engine.service.hold import ChangeGuard
    from vecstow_engine.service.registry import Registry

HIDDEN: Final = "a collection has this name, which leads to that collection"

READS_MAX: Final = 5
"""How often a file is read at most that another program changes during the read."""

Authorise: TypeAlias = Callable[[str, str], None]
"""Raises an error unless the caller may change who reaches a collection.

It gets the collection's name, and the name that the request has for it, which the error shows.
"""

log = structlog.stdlib.get_logger(__name__)


class Aliases:
    """The aliases as lookups see them. Only `AliasChanges` changes the fields."""

    def __init__(self) -> None:
        self.table = AliasTable()
        self.fault: str | None = None
        """Why the file on the volume is not followed; None while it is."""
        self.hint: str | None = None
        self.are_known = True
        """Whether the table is that of a file which could be read, now or earlier in this process."""

    def behind(self, name: str) -> str | None:
        """Return the collection that an alias leads to; None for another name.

        Raises Quarantined when the aliases are unknown.
        """
        alias = self.table.get(name)
        if alias is not None:
            return alias.collection
        self.refuse_unknown()
        return None

    def no_collection(self, name: str) -> NotFound:
        """Return the error for a collection that does not exist. Its aliases stay, for a restore of it."""
        aliases = self.table.names_of(name)
        led = f", to which the alias {aliases[0]!r} leads," if aliases else ""
        restore = "POST /collections/restore brings a dropped collection back"
        hint = f"{restore}; PUT /aliases/{aliases[0]} names another one" if aliases else None
        return NotFound(f"collection {name!r}{led} does not exist", collection=name, hint=hint)

    def refuse_unknown(self) -> None:
        """Raise Quarantined when the aliases are unknown."""
        if not self.are_known:
            message = f"the aliases are unknown, only names of collections are answered: {self.fault}"
            raise Quarantined(message, operation="alias", hint=self.hint)


@dataclass(eq=False)
class AliasChanges:
    """The changes of the aliases. Methods may be called from any thread."""

    _layout: Layout
    _registry: Registry
    _guard: ChangeGuard
    _make_room: Callable[[], bool]
    _seen: Signature | None = field(default=None, init=False)
    """The file that was read last."""
    _waiting: AliasTable | None = field(default=None, init=False)
    """The table of the file, while an alias in it waits for its collection to be served."""
    _changing: threading.Lock = field(default_factory=threading.Lock, init=False)

    def load(self) -> None:
        """Read the file at the start. An error is logged, and becomes the answer of each alias."""
        with self._changing:
            self._served.are_known = self._read()

    def listed(self) -> list[Alias]:
        """Return the aliases in force, sorted by name; raise Quarantined when they are unknown."""
        self._served.refuse_unknown()
        return list(self._served.table)

    def get(self, name: str) -> Alias:
        """Return an alias in force; raise NotFound, or Quarantined when the aliases are unknown."""
        if self._served.behind(name) is None:
            raise no_alias(name)
        return self._served.table.by_name[name]

    def set(self, name: str, collection: str, authorise: Authorise = lambda *_: None) -> None:
        """Let an alias lead to a collection; the alias is made if it is missing.

        `authorise` gets the collection that the alias leads to now, or the name of a new alias, and the one
        behind an alias in the place of `collection`, before an error tells of that alias. Raises the
        errors of `set_alias` and `Collection.readable`, DamagedFile or NewerFormat for the file of aliases,
        and the errors of `ChangeGuard`.
        """

        def decide(table: AliasTable) -> AliasTable:
            found = table.get(name)
            authorise(name if found is None else found.collection, name)
            behind = table.get(collection)
            if behind is not None and not self._registry.knows(collection):
                authorise(behind.collection, collection)
            if self._registry.knows(name):
                raise name_taken(name)
            after = set_alias(self._layout, table, name, collection)
            self._registry.get(collection).readable()
            return after

        self._change("set alias", name, decide)
        log.info("alias set", alias=name, collection=collection)

    def remove(self, name: str, authorise: Authorise = lambda *_: None) -> Alias:
        """Remove an alias and return it. Raises the errors of `remove_alias`, and others as `set`."""

        def decide(table: AliasTable) -> AliasTable:
            found = table.get(name)
            authorise(name if found is None else found.collection, name)
            return remove_alias(table, name)

        before = self._change("remove alias", name, decide)
        removed = before.by_name[name]
        log.info("alias removed", alias=name, collection=removed.collection)
        return removed

    def follow(self) -> None:
        """Serve the aliases that another program wrote; called with each scan of the manifests.

        While a change of this process goes on, do nothing: the next scan follows.
        """
        if self._changing.acquire(blocking=False):
            try:
                # After a failed sync, what the page cache shows may not be what the disk has.
                if signature_of(self._layout) != self._seen and self._guard.failure is None:
                    self._served.are_known |= self._read()
            finally:
                self._changing.release()

    def follow_waiting(self) -> None:
        """Let the aliases switch that waited for their collections."""
        if self._waiting is not None and self._changing.acquire(blocking=False):
            try:
                if self._waiting is not None:
                    self._publish(self._waiting)
            finally:
                self._changing.release()

    def problems(self) -> list[dict[str, str]]:
        """Return the aliases that lead nowhere, or that the name of a collection hides: why each of them."""
        found = []
        for alias in self._served.table:
            if self._registry.knows(alias.name):
                reason = HIDDEN
            elif not self._registry.knows(alias.collection):
                reason = f"collection {alias.collection!r} does not exist"
            else:
                continue
            found.append(alias.document() | {"reason": reason})
        return found

    def document(self) -> dict[str, object]:
        """Return `aliases` of `GET /state`."""
        served = self._served
        return {"count": len(served.table), "fault": served.fault, "problems": self.problems()}

    @property
    def _served(self) -> Aliases:
        return self._registry.aliases

    def _change(self, operation: str, name: str, decide: Callable[[AliasTable], AliasTable]) -> AliasTable:
        """Change the file, then what lookups see; return the aliases before."""
        with self._changing, self._guard.names(operation, name):
            try:
                change = change_aliases(self._layout, decide)
            except DiskFull:
                # A switch precedes the drop that frees room.
                if not self._make_room():
                    raise
                change = change_aliases(self._layout, decide)
            if change.after is change.before and change.signature != self._seen:
                sync_aliases(self._layout)  # Another program wrote it, and may have ended before its sync.
            self._seen = change.signature
            self._mend()
            self._publish(change.after)
        return change.before

    def _read(self) -> bool:
        """Make the file durable and serve it; return whether it can be read. The caller holds the lock."""
        for _ in range(READS_MAX):
            seen = signature_of(self._layout)
            try:
                with self._guard.names("following the aliases", None):
                    table = read_aliases(self._layout)
                    if seen is not None:
                        sync_aliases(self._layout)
            except VecstowError as error:
                self._seen = seen
                self._blame(error)
                return False
            if signature_of(self._layout) == seen:
                self._seen = seen
                self._serve(table)
                return True
        return self._served.are_known  # Another program changes it all the time: the next scan follows.

    def _blame(self, error: VecstowError) -> None:
        if self._served.fault != error.message:
            log.error("aliases cannot be read", reason=error.message, next=error.hint)
        self._served.fault, self._served.hint = error.message, error.hint

    def _serve(self, table: AliasTable) -> None:
        """Serve what the file has, and log what of it leads nowhere."""
        if self._seen is None and len(self._served.table):
            log.warning("aliases are gone with their file", file=str(self._layout.aliases))
        self._mend()
        self._publish(table)
        for problem in self.problems():
            log.warning("alias leads nowhere", **problem)

    def _mend(self) -> None:
        self._served.fault = self._served.hint = None
        self._served.are_known = True

    def _publish(self, table: AliasTable) -> None:
        """Let lookups see the table. An alias whose new collection is not served yet keeps the old one."""
        waiting = {}
        for alias in table:
            known = self._served.table.get(alias.name)
            if known is not None and self._must_wait(known.collection, alias.collection):
                waiting[alias.name] = dataclasses.replace(alias, collection=known.collection)
        self._waiting = table if waiting else None
        self._served.table = (
            dataclasses.replace(table, by_name={**table.by_name, **waiting}) if waiting else table
        )

    def _must_wait(self, old: str, new: str) -> bool:
        if old == new or self._registry.find(old) is None:
            return False
        wanted = self._registry.find(new)
        return wanted is None or wanted.state is State.RECOVERING
