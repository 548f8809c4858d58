"""Ledgers of what a client did and of the answers, and the states that may rightly be found afterwards.

A client does one thing after another, on points and collections that no other client touches. After each
operation the world is known, unless the answer never came or was "outcome unknown": then there are two
worlds. The content that is found must be one of them as a whole. This covers three rules at once:
acknowledged is contained in recovered, recovered is contained in submitted, and no batch is half there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Protocol, TypeAlias, TypeVar

from tests.crash.rest import Stored

_Value = TypeVar("_Value")
Points: TypeAlias = dict[str, Stored]
Content: TypeAlias = dict[str, Points]
"""The served points, by collection and id."""

ALIAS = "alias "
"""The prefix of an alias in a content. The one id there is the collection behind the alias."""
DIFFERENCES_TOLD = 3


class Answer(Enum):
    """The answer that the client got."""

    YES = auto()
    NO = auto()
    """Refused: nothing was changed."""
    UNKNOWN = auto()
    """No answer came, or one that says so."""


@dataclass(frozen=True)
class World:
    """The served collections, and the dropped and backed-up ones by a name that the client chose."""

    served: Content = field(default_factory=dict)
    dropped: Content = field(default_factory=dict)
    backups: Content = field(default_factory=dict)


@dataclass(frozen=True)
class Create:
    """Declare a collection, with points when it is an import's."""

    collection: str
    points: Points = field(default_factory=dict)

    def after(self, world: World) -> World:
        return replace(world, served=world.served | {self.collection: self.points})


@dataclass(frozen=True)
class Drop:
    """Drop a collection; without `kept` it is purged too."""

    collection: str
    kept: str | None = None

    def after(self, world: World) -> World:
        dropped = world.dropped
        if self.kept is not None and self.collection in world.served:
            dropped = dropped | {self.kept: world.served[self.collection]}
        return replace(world, served=_without(world.served, self.collection), dropped=dropped)


@dataclass(frozen=True)
class Backup:
    """Copy a collection."""

    collection: str
    kept: str

    def after(self, world: World) -> World:
        return replace(world, backups=world.backups | {self.kept: world.served.get(self.collection, {})})


@dataclass(frozen=True)
class Restore:
    """Bring back what was dropped, or a backup, as `collection`."""

    kept: str
    collection: str

    def after(self, world: World) -> World:
        points = world.dropped.get(self.kept, world.backups.get(self.kept, {}))
        served = world.served | {self.collection: points}
        return replace(world, served=served, dropped=_without(world.dropped, self.kept))


@dataclass(frozen=True)
class Purge:
    """Remove what was dropped, all of it."""

    def after(self, world: World) -> World:
        return replace(world, dropped={})


@dataclass(frozen=True)
class Put:
    """Store a batch."""

    collection: str
    points: Points

    def after(self, world: World) -> World:
        points = world.served.get(self.collection, {}) | self.points
        return replace(world, served=world.served | {self.collection: points})


@dataclass(frozen=True)
class Delete:
    """Delete points by their ids."""

    collection: str
    ids: tuple[str, ...]

    def after(self, world: World) -> World:
        points = _without(world.served.get(self.collection, {}), *self.ids)
        return replace(world, served=world.served | {self.collection: points})


@dataclass(frozen=True)
class Lead:
    """Let an alias lead to a collection."""

    alias: str
    collection: str

    def after(self, world: World) -> World:
        return replace(world, served=world.served | alias_content(self.alias, self.collection))


class Operation(Protocol):
    """A change of the world that one request makes."""

    def after(self, world: World) -> World:
        """Return the world after the operation."""
        ...


def alias_content(alias: str, collection: str) -> Content:
    """Return an alias as a part of a content."""
    return {ALIAS + alias: {collection: (b"", None)}}


class Ledger:
    """One client's operations and answers. Its ids in `shared` collections begin with "<client>/"."""

    def __init__(self, client: str, owned: Iterable[str] = (), shared: Iterable[str] = ()) -> None:
        self.client = client
        self.owned = frozenset(owned)
        self.shared = frozenset(shared)
        self.entries: list[tuple[Operation, Answer]] = []
        self._begin = [World({name: {} for name in self.shared})]

    def add(self, operation: Operation, answer: Answer) -> None:
        """Note an operation once its answer is known, or will never be."""
        self.entries.append((operation, answer))

    def worlds(self, answered: int | None = None) -> list[World]:
        """Return the worlds that are possible when the first `answered` entries were answered (None: all).

        The next entry is perhaps under way.
        """
        worlds = self._begin
        entries = self.entries if answered is None else self.entries[:answered]
        for operation, answer in entries:
            worlds = _after(worlds, operation, answer)
        if answered is not None and answered < len(self.entries):
            # Even what was refused in the end may have been on the disk for a moment.
            worlds = _after(worlds, self.entries[answered][0], Answer.UNKNOWN)
        return worlds

    def past(self) -> Iterator[World]:
        """Every world that there may have been at some time, oldest first; some come twice."""
        worlds = self._begin
        yield from worlds
        for operation, answer in self.entries:
            worlds = _after(worlds, operation, answer)
            yield from worlds

    def settle(self, content: Content) -> None:
        """Go on from what was found: from now on nothing else is right."""
        mine = self.restricted(content)
        self._begin = [world for world in self.worlds() if world.served == mine]
        assert self._begin, f"{self.client}: what was found is no world of its ledger"
        self.entries = []

    def restricted(self, content: Content) -> Content:
        """Return this client's part of the content."""
        mine = {name: points for name, points in content.items() if name in self.owned}
        prefix = self.client + "/"
        for name in self.shared & content.keys():
            mine[name] = {i: point for i, point in content[name].items() if i.startswith(prefix)}
        return mine


def check(
    content: Content, ledgers: Iterable[Ledger], answered: Mapping[str, int] | None = None
) -> str | None:
    """Return what is wrong with the content, or None. `answered`: number of answered entries, by client."""
    ledgers = list(ledgers)
    if strangers := _strangers(content, ledgers):
        return f"nobody wrote {strangers}"
    for ledger in ledgers:
        worlds = ledger.worlds(None if answered is None else answered[ledger.client])
        mine = ledger.restricted(content)
        if all(mine != world.served for world in worlds):
            nearest = min((_differences(mine, world.served) for world in worlds), key=len)
            told = "; ".join(nearest[:DIFFERENCES_TOLD])
            return f"client {ledger.client}, {len(worlds)} worlds, {len(nearest)} differences: {told}"
    return None


def _after(worlds: list[World], operation: Operation, answer: Answer) -> list[World]:
    if answer is Answer.NO:
        return worlds
    after = [operation.after(world) for world in worlds]
    if answer is Answer.YES:
        return after
    return worlds + [world for world in after if world not in worlds]


def _without(mapping: dict[str, _Value], *keys: str) -> dict[str, _Value]:
    return {key: value for key, value in mapping.items() if key not in keys}


def _strangers(content: Content, ledgers: list[Ledger]) -> list[str]:
    strangers = []
    for name, points in content.items():
        if any(name in ledger.owned for ledger in ledgers):
            continue
        prefixes = tuple(f"{ledger.client}/" for ledger in ledgers if name in ledger.shared)
        if not prefixes:
            strangers.append(f"collection {name}")
        strangers += [f"{name}: {point_id}" for point_id in points if not point_id.startswith(prefixes)]
    return strangers[:DIFFERENCES_TOLD]


def _differences(found: Content, wanted: Content) -> list[str]:
    told = [f"collection {name} is missing" for name in wanted.keys() - found.keys()]
    told += [f"collection {name} is there" for name in found.keys() - wanted.keys()]
    for name in sorted(found.keys() & wanted.keys()):
        has, must = found[name], wanted[name]
        told += [f"{name}: {i} is missing" for i in sorted(must.keys() - has.keys())]
        told += [f"{name}: {i} is there" for i in sorted(has.keys() - must.keys())]
        told += [
            f"{name}: {i} has {has[i]}, not {must[i]}"
            for i in sorted(has.keys() & must.keys())
            if has[i] != must[i]
        ]
    return told
