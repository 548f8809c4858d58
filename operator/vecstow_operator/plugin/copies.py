"""`kubectl vecstow backup`, `restore`, `deleted`, `cleanup`, `compact` and `hold`: copies and room."""

from __future__ import annotations

import datetime
from typing import Annotated, Final

import typer

from vecstow_operator.keys import KeyFile
from vecstow_operator.plugin.options import AsJson, Context, Engine, Namespace
from vecstow_operator.plugin.output import print_json, print_table
from vecstow_operator.plugin.session import Session

RETENTION_HOURS: Final = 24.0

Name = Annotated[str, typer.Argument(help="A resource, or a collection that has none.", show_default=False)]


def backup(
    name: Name,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Copy a collection to .backups on the engine's volume.

    The copy has everything that was acknowledged before it began.
    """
    session = Session.open(context, namespace, key_file)
    proxy, collection = session.collection(name, engine)
    answer = proxy.call("POST", "collections", collection, "backup")
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"{answer['collection']} is copied to {answer['backup_path']}")


def restore(
    path: Annotated[str, typer.Argument(help="As `backup` or `deleted` prints it.", show_default=False)],
    new_name: Annotated[
        str | None, typer.Option("--new-name", help="Make a collection of another name of it.")
    ] = None,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Restore a dropped collection or a backup.

    No resource declares it then: `kubectl vecstow adopt` makes one.
    """
    proxy = Session.open(context, namespace, key_file).engine(engine)
    wanted = {"backup_path": path} | ({} if new_name is None else {"new_name": new_name})
    answer = proxy.call("POST", "collections", "restore", body=wanted)
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"{answer['name']}: {answer['message']}")


def deleted(
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List the dropped collections that can be restored, newest first."""
    found = Session.open(context, namespace, key_file).engine(engine).call("GET", "collections", "deleted")
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("nothing was dropped")
    else:
        print_table(
            ("name", "deleted", "age in hours", "path"),
            (
                (each["name"], _moment(each["deleted_timestamp"]), f"{each['age_hours']:.1f}", each["path"])
                for each in found
            ),
        )


def cleanup(
    retention_hours: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="Keep what was dropped later than this.")
    ] = RETENTION_HOURS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove dropped collections for good: their room is free at once, and nothing brings them back."""
    proxy = Session.open(context, namespace, key_file).engine(engine)
    if dry_run:
        dropped = proxy.call("GET", "collections", "deleted")
        names = [each["name"] for each in dropped if each["age_hours"] >= retention_hours]
    else:
        names = proxy.call("POST", "collections", "cleanup", body={"retention_hours": retention_hours})
    if as_json:
        print_json(names)
        return
    for name in names:
        typer.echo(f"{name} {'would be removed' if dry_run else 'is removed'}")
    if not names:
        typer.echo(f"nothing was dropped {retention_hours:g} hours ago or earlier")


def compact(
    name: Name,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Give the room of deleted and replaced vectors back."""
    session = Session.open(context, namespace, key_file)
    proxy, collection = session.collection(name, engine)
    answer = proxy.call("POST", "collections", collection, "compact")
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"{collection}: {answer['bytes_before']:,} bytes before, {answer['bytes_after']:,} after")


def hold(
    seconds: Annotated[float, typer.Option(help="How long, at most.")] = 600.0,
    release_it: Annotated[bool, typer.Option("--release", help="End it.")] = False,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
) -> None:
    """Hold an engine's files still, so that a copy of its volume is exact. Writes go on meanwhile."""
    proxy = Session.open(context, namespace, key_file).engine(engine)
    answer = (
        proxy.call("DELETE", "hold") if release_it else proxy.call("POST", "hold", body={"seconds": seconds})
    )
    typer.echo(f"{answer['message']}{'' if answer['until'] is None else ' until ' + answer['until']}")


def _moment(timestamp: float) -> str:
    """Return seconds since 1970 as a date and time in UTC."""
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
