"""The rules of a change of an alias, by what is on the volume. The caller holds the lock of the manifests."""

from __future__ import annotations

import dataclasses

from vecstow_engine.model.aliases import Alias, AliasTable
from vecstow_engine.model.errors import Conflict, InvalidInput, NotFound, refused
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import read_manifest


def set_alias(layout: Layout, table: AliasTable, name: str, collection: str) -> AliasTable:
    """Return the table in which the alias leads to a collection of the volume.

    Raises Conflict for the alias of a resource and for the name of a collection, InvalidInput for an alias in
    the place of the collection and beyond the number of aliases, NotFound without the collection, and
    DamagedFile or NewerFormat for its manifest.
    """
    found = table.get(name)
    if found is not None:
        _refuse_managed(found)
    if has_folder(layout, name):
        raise name_taken(name)
    manifest = read_manifest(layout.collection(collection))
    if manifest is None and table.get(collection) is not None:
        raise InvalidInput(
            f"collection {collection!r} is itself an alias; an alias leads to a collection",
            hint=f"GET /aliases/{collection} has the collection's own name",
            details=refused("collection", collection),
        )
    if manifest is None:
        raise NotFound(f"collection {collection!r} does not exist", collection=collection)
    if manifest.dropped_at is not None:
        raise NotFound(f"collection {collection!r} is being dropped", collection=collection)
    alias = found or Alias(name, collection)
    return table.with_alias(dataclasses.replace(alias, collection=collection))


def remove_alias(table: AliasTable, name: str) -> AliasTable:
    """Return the table without the alias. Raises NotFound, and Conflict for the alias of a resource."""
    found = table.get(name)
    if found is None:
        raise no_alias(name)
    _refuse_managed(found)
    return table.without(name)


def no_alias(name: str) -> NotFound:
    """Return the error for an alias that does not exist."""
    hint = "vecstow aliases ls lists those that do"
    return NotFound(f"alias {name!r} does not exist", hint=hint, details={"alias": name})


def name_taken(name: str) -> Conflict:
    """Return the error for an alias with the name of a collection."""
    message = f"{name!r} is the name of a collection: no alias can have it"
    hint = "choose another name for the alias"
    return Conflict(message, collection=name, operation="set alias", hint=hint)


def has_folder(layout: Layout, name: str) -> bool:
    """Whether a folder has the name, or is about to take it after a repair or an import."""
    return layout.collection(name).exists() or (layout.staging / name).exists()


def _refuse_managed(alias: Alias) -> None:
    if alias.resource_uid is not None:
        raise Conflict(
            f"alias {alias.name!r} belongs to the Kubernetes resource with uid {alias.resource_uid}",
            operation="alias",
            hint="change spec.aliases of that resource instead: kubectl edit vcol",
        )
