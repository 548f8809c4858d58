"""Aliases: second names of collections. Pure: `storage.aliases` reads and writes their file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from vecstow_engine.model.errors import InvalidInput, refused
from vecstow_engine.model.fields import string
from vecstow_engine.model.names import check_collection_name

ALIASES_MAX: Final = 10_000
"""The most aliases of one volume."""
ALIASES_OF_RESOURCE_MAX: Final = 64
"""The most aliases that one resource or file declares."""


@dataclass(frozen=True, slots=True)
class Alias:
    """A second name, which leads to a collection; the collection may be missing at the moment."""

    name: str
    collection: str
    resource_uid: str | None = None
    """The uid of the Kubernetes resource that declares it, which alone changes it; None without one."""
    updated_at: str | None = None
    """The time of the last change (UTC, RFC 3339)."""
    unknown: dict[str, Any] = field(default_factory=dict)
    """Keys that this release does not know, kept unchanged."""

    def __post_init__(self) -> None:
        check_collection_name(self.name, "alias")
        check_collection_name(self.collection, "collection")
        for key in ("resource_uid", "updated_at"):
            if (value := getattr(self, key)) is not None:
                string(value, key)

    def document(self) -> dict[str, str]:
        """Return the JSON object that clients get."""
        return {"alias": self.name, "collection": self.collection}


@dataclass(frozen=True)
class AliasTable:
    """All aliases of a volume, by name. A change makes another table."""

    by_name: Mapping[str, Alias] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the file that this release does not know, kept unchanged."""

    def __iter__(self) -> Iterator[Alias]:
        """Yield the aliases, sorted by name."""
        return (self.by_name[name] for name in sorted(self.by_name))

    def __len__(self) -> int:
        """Return the number of aliases."""
        return len(self.by_name)

    def get(self, name: str) -> Alias | None:
        """Return the alias of that name; None without one."""
        return self.by_name.get(name)

    @cached_property
    def _by_collection(self) -> Mapping[str, tuple[str, ...]]:
        names: dict[str, list[str]] = {}
        for alias in self:
            names.setdefault(alias.collection, []).append(alias.name)
        return {collection: tuple(found) for collection, found in names.items()}

    def names_of(self, collection: str) -> tuple[str, ...]:
        """Return the names of the aliases that lead to a collection, sorted."""
        return self._by_collection.get(collection, ())

    def with_alias(self, alias: Alias) -> AliasTable:
        """Return the table with this alias, new or in the place of the one that has the name.

        Raises InvalidInput when the table is full.
        """
        if alias.name not in self.by_name and len(self.by_name) >= ALIASES_MAX:
            raise InvalidInput(
                f"alias {alias.name!r} would be one more than {ALIASES_MAX}, the most of one volume",
                hint="remove aliases that no client uses: GET /aliases lists them",
                details=refused("alias", alias.name, ALIASES_MAX),
            )
        return dataclasses.replace(self, by_name={**self.by_name, alias.name: alias})

    def without(self, name: str) -> AliasTable:
        """Return the table without the alias of that name."""
        left = {other: alias for other, alias in self.by_name.items() if other != name}
        return dataclasses.replace(self, by_name=left)
