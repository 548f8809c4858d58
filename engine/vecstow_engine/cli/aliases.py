"""`vecstow aliases`: the second names of collections, of an engine or of a volume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecstow_engine.cli.options import Collection, DataOrNone, Json, KeyFile, UrlOrNone, choose_place
from vecstow_engine.cli.output import print_answer, print_json, print_line, print_table
from vecstow_engine.model.names import check_collection_name

if TYPE_CHECKING:
    from vecstow_engine.storage.layout import Layout

aliases_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="The second name.", show_default=False)]


@aliases_app.callback()
def aliases_root() -> None:
    """List, set and remove second names of collections.

    \b
    Example:
      vecstow aliases set docs docs-v2
    """


@aliases_app.command("ls")
def ls_command(
    data: DataOrNone = None, url: UrlOrNone = None, key_file: KeyFile = None, as_json: Json = False
) -> None:
    """List the aliases, and the collections that they lead to.

    \b
    Examples:
      vecstow aliases ls
      vecstow aliases ls --data ./data --json
    """
    place = choose_place(data, url, key_file)
    if isinstance(place, Path):
        from vecstow_engine.storage.aliases import read_aliases

        found: list[dict[str, Any]] = [alias.document() for alias in read_aliases(_layout(place))]
    else:
        from vecstow_engine.cli.client import Client

        with Client(place.url, key=place.key) as client:
            found = client.get("aliases")
    if as_json:
        print_json(found)
    elif not found:
        print_line("no aliases")
    else:
        print_table(("alias", "collection"), [(row["alias"], row["collection"]) for row in found])


@aliases_app.command("set")
def set_command(
    alias: AliasName,
    name: Collection,
    data: DataOrNone = None,
    url: UrlOrNone = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Let an alias lead to a collection: make it, or switch it.

    No reader misses the alias meanwhile. With --data the file of aliases is written, whether an engine runs
    there or not.

    \b
    Example:
      vecstow aliases set docs docs-v2
    """
    check_collection_name(alias, "ALIAS")
    check_collection_name(name, "NAME")
    place = choose_place(data, url, key_file)
    if isinstance(place, Path):
        from vecstow_engine.storage.alias_changes import set_alias
        from vecstow_engine.storage.aliases import change_aliases

        layout = _layout(place)
        change_aliases(layout, lambda table: set_alias(layout, table, alias, name))
    else:
        from vecstow_engine.cli.client import Client

        with Client(place.url, key=place.key) as client:
            client.put("aliases", alias, document={"collection": name})
    print_answer({"alias": alias, "collection": name}, f"{alias} leads to {name}", as_json=as_json)


@aliases_app.command("rm")
def rm_command(
    alias: AliasName,
    data: DataOrNone = None,
    url: UrlOrNone = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Remove an alias; the collection stays.

    \b
    Example:
      vecstow aliases rm docs
    """
    check_collection_name(alias, "ALIAS")
    place = choose_place(data, url, key_file)
    if isinstance(place, Path):
        from vecstow_engine.storage.alias_changes import remove_alias
        from vecstow_engine.storage.aliases import change_aliases

        change = change_aliases(_layout(place), lambda table: remove_alias(table, alias))
        removed = change.before.by_name[alias].document()
    else:
        from vecstow_engine.cli.client import Client

        with Client(place.url, key=place.key) as client:
            removed = client.delete("aliases", alias)
    line = f"{alias} is removed; the collection {removed['collection']} stays"
    print_answer(removed, line, as_json=as_json)


def _layout(data: Path) -> Layout:
    from vecstow_engine.storage.volume import stopped_volume

    return stopped_volume(data)
