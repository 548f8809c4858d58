"""`vecstow ls` and `vecstow show`: the collections of an engine, or of a volume without one."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vecstow_engine.cli.options import Address, Collection, DataOrNone, Json, KeyFile, UrlOrNone, choose_place
from vecstow_engine.cli.output import print_facts, print_json, print_line, print_table
from vecstow_engine.model.names import check_collection_name

if TYPE_CHECKING:
    from vecstow_engine.cli.client import Client

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
    if deleted:
        _print_deleted(place, as_json)
        return
    if isinstance(place, Path):
        from vecstow_engine.cli.offline_volume import describe_all

        found = describe_all(place)
    else:
        found = _from_engine(place)
    if as_json:
        print_json(found)
    elif not found:
        print_line("no collections")
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
        from vecstow_engine.cli.offline_volume import describe

        found = describe(place, name)
    else:
        from vecstow_engine.cli.client import Client

        with Client(place.url, key=place.key) as client:
            found = _known(client.get("collections", name))
    if as_json:
        print_json(found)
    else:
        print_facts(found)


def _from_engine(engine: Address) -> list[dict[str, Any]]:
    from vecstow_engine.cli.client import Client

    with Client(engine.url, key=engine.key) as client:
        rows = client.get("state")["collections"]
        found = (_described(client, row) for row in rows)
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
    return _known({key: row.get(key) for key in ("name", "vector_count", "state", "reason")})


def _known(description: dict[str, Any]) -> dict[str, Any]:
    """Return the description, without the count of vectors when the engine could not read them."""
    if description.get("state") in UNREAD_STATES:
        return description | {"vector_count": None}
    return description


def _print_deleted(place: Path | Address, as_json: bool) -> None:
    found: Any
    if isinstance(place, Path):
        from vecstow_engine.cli.offline_volume import describe_deleted

        found = describe_deleted(place)
    else:
        from vecstow_engine.cli.client import Client

        with Client(place.url, key=place.key) as client:
            found = client.get("collections", "deleted")
    if as_json:
        print_json(found)
    elif not found:
        print_line("nothing was dropped")
    else:
        rows = (
            (entry["name"], _moment(entry["deleted_timestamp"]), f"{entry['age_hours']:.1f}", entry["path"])
            for entry in found
        )
        print_table(("name", "deleted", "age in hours#", "path"), rows)


def _moment(timestamp: object) -> object:
    """Return seconds since 1970 as a date and time, UTC; return any other value unchanged."""
    if isinstance(timestamp, int | float):
        return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return timestamp
