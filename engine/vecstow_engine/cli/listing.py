"""`vecstow ls` and `vecstow show`: the collections of an engine, or of a volume without one.

A volume shows its manifests, and the counts of the last checkpoint. Nothing is written.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vecstow_engine.cli.options import Address, Collection, DataOrNone, Json, KeyFile, UrlOrNone, choose_place
from vecstow_engine.cli.output import print_facts, print_json, print_line, print_note, print_table
from vecstow_engine.model.aliases import AliasTable
from vecstow_engine.model.errors import NotFound, StorageError
from vecstow_engine.model.manifest import Manifest, manifest_document
from vecstow_engine.model.names import check_collection_name

if TYPE_CHECKING:
    from vecstow_engine.cli.client import Client
    from vecstow_engine.storage.layout import Layout

NOT_FOUND: Final = 404
UNAVAILABLE: Final = 503
UNREAD_STATES: Final = ("quarantined", "foreign")
"""The states in which the engine has no open collection, and counts 0 vectors."""
COLUMNS: Final = {
    "name": "name",
    "vectors#": "vector_count",
    "dimension#": "dimension",
    "metric": "distance_metric",
    "type": "vector_type",
    "managed by": "managed_by",
    "state": "state",
    "aliases": "aliases",
}
"""The columns of `vecstow ls`, and the keys of their values."""


def ls_command(
    deleted: Annotated[
        bool, typer.Option("--deleted", help="List what was dropped and can be restored.")
    ] = False,
    data: DataOrNone = None,
    url: UrlOrNone = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """List the collections.

    With --data, vectors are those of the last checkpoint; the log may hold newer ones.

    \b
    Examples:
      vecstow ls
      vecstow ls --data ./data --json
    """
    place = choose_place(data, url, key_file)
    if isinstance(place, Path):
        found = _deleted_on_volume(place) if deleted else _from_volume(place)
    else:
        found = _from_engine(place, deleted=deleted)
    if as_json:
        print_json(found)
    elif not found:
        print_line("nothing was dropped" if deleted else "no collections")
    elif deleted:
        rows = (
            (entry["name"], _moment(entry["deleted_timestamp"]), f"{entry['age_hours']:.1f}", entry["path"])
            for entry in found
        )
        print_table(("name", "deleted", "age in hours#", "path"), rows)
    else:
        print_table(tuple(COLUMNS), ([entry.get(key) for key in COLUMNS.values()] for entry in found))


def show_command(
    name: Collection,
    data: DataOrNone = None,
    url: UrlOrNone = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Show one collection: its declaration, and how it is.

    \b
    Examples:
      vecstow show packages
      vecstow show packages --data ./data
    """
    check_collection_name(name)
    place = choose_place(data, url, key_file)
    if isinstance(place, Path):
        found = _find_on_volume(place, name)
    else:
        from vecstow_engine.cli.client import Client

        with Client(place.url, key=place.key) as client:
            found = _known(client.get("collections", name))
    if as_json:
        print_json(found)
    else:
        print_facts(_summed_up(found))


def _summed_up(description: dict[str, Any]) -> dict[str, Any]:
    """Return a description for people: a payload index in a few words."""
    state = {each["field"]: each for each in description.get("payload_index_state", ())}
    indexes = [
        f"{each['field']} ({each['type']}{_readiness(state.get(each['field']))})"
        for each in description["payload_indexes"]
    ]
    rest = {key: value for key, value in description.items() if key != "payload_index_state"}
    return rest | {"payload_indexes": indexes}


def _readiness(index: dict[str, Any] | None) -> str:
    """Return whether a payload index answers, and its memory; nothing for an index of a stopped volume."""
    if index is None:
        return ""
    return f", {index['bytes']:,} bytes" if index["ready"] else ", not ready"


def _from_engine(engine: Address, *, deleted: bool) -> list[dict[str, Any]]:
    from vecstow_engine.cli.client import Client

    with Client(engine.url, key=engine.key) as client:
        if deleted:
            return list(client.get("collections", "deleted"))
        found = (_described(client, row) for row in client.get("state")["collections"])
        return [entry for entry in found if entry is not None]


def _described(client: Client, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return a collection's description; without one its row of GET /state; None after a drop."""
    from vecstow_engine.cli.client import RequestRefused

    try:
        return _known(client.get("collections", row["name"]))
    except RequestRefused as refused:
        if refused.status == NOT_FOUND:
            return None
        if refused.status != UNAVAILABLE:
            raise
    return _known({key: row.get(key) for key in ("name", "aliases", "vector_count", "state", "reason")})


def _known(description: dict[str, Any]) -> dict[str, Any]:
    """Return the description, without the count of vectors when the engine could not read them."""
    if description.get("state") in UNREAD_STATES:
        return description | {"vector_count": None}
    return description


def _from_volume(data: Path) -> list[dict[str, Any]]:
    """Return each collection of the volume, sorted by name; one with a broken manifest has state `broken`."""
    from vecstow_engine.storage.discovery import discover

    layout = _layout(data)
    aliases = _aliases(layout)
    return [
        {"name": found.name, "vector_count": None, "state": "broken", "reason": found.problem}
        if found.manifest is None
        else _describe(layout, found.manifest, aliases)
        for found in discover(layout)
        if not found.bare
    ]


def _find_on_volume(data: Path, name: str) -> dict[str, Any]:
    """Return one collection's manifest, and the facts from its point table.

    Raises NotFound, and DamagedFile or NewerFormat for a manifest that cannot be read.
    """
    from vecstow_engine.storage.manifests import read_manifest

    layout = _layout(data)
    aliases = _aliases(layout)
    manifest = read_manifest(layout.collection(name))
    if manifest is None and (alias := aliases.get(name)) is not None:
        manifest = read_manifest(layout.collection(alias.collection))
    if manifest is None:
        raise NotFound(
            f"{data} has no collection {name!r}", collection=name, hint=f"vecstow ls --data {data} lists them"
        )
    return _describe(layout, manifest, aliases)


def _deleted_on_volume(data: Path) -> list[dict[str, Any]]:
    """Return the dropped collections that can be restored, newest first, in the form of the engine."""
    from vecstow_engine.storage.trash import list_deleted

    layout = _layout(data)
    return [deleted.document(layout.data) for deleted in list_deleted(layout)]


def _layout(data: Path) -> Layout:
    from vecstow_engine.storage.volume import stopped_volume

    return stopped_volume(data)


def _aliases(layout: Layout) -> AliasTable:
    """Return the aliases; with a note, none when their file cannot be read."""
    from vecstow_engine.storage.aliases import read_aliases

    try:
        return read_aliases(layout)
    except StorageError as error:
        print_note(f"the aliases are unknown: {error.message}")
        return AliasTable()


def _describe(layout: Layout, manifest: Manifest, aliases: AliasTable) -> dict[str, Any]:
    """Return the manifest's keys, `aliases`, `state`, `reason` and `vector_count`.

    The count is that of the last checkpoint; None when it is unknown.
    """
    from vecstow_engine.storage.layout import POINTS
    from vecstow_engine.storage.points.reader import peek_meta

    live: dict[str, Any] = {"aliases": list(aliases.names_of(manifest.name)), "vector_count": 0}
    live |= {"state": "offline", "reason": None}
    if manifest.dropped_at is not None:
        live["state"] = "dropped"
    if manifest.collection_uid is not None:
        try:
            live["vector_count"] = peek_meta(layout.collection(manifest.name) / POINTS).points
        except StorageError as damaged:
            live |= {"vector_count": None, "reason": damaged.message}
    return manifest_document(manifest) | live


def _moment(timestamp: object) -> object:
    """Return seconds since 1970 as a date and time, UTC; return any other value unchanged."""
    if isinstance(timestamp, int | float):
        return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return timestamp
