"""`kubectl vecstow backup`, `restore`, `deleted`, `cleanup`, `compact` and `hold`: copies and room."""

from __future__ import annotations

import datetime
from typing import Annotated, Final

import typer

from vecstow_operator.plugin.command import AsJson, Engine, Name, in_session, print_answer, table
from vecstow_operator.plugin.session import Session

RETENTION_HOURS: Final = 24.0


@in_session
def backup(name: Name, *, engine: Engine = None, session: Session, as_json: AsJson = False) -> None:
    """Copy a collection to .backups on the engine's volume.

    The copy has everything that was acknowledged before it began.
    """
    proxy, collection = session.collection(name, engine)
    answer = proxy.call("POST", "collections", collection, "backup")
    text = f"{answer['collection']} is copied to {answer['backup_path']}"
    print_answer(answer, text, as_json=as_json)


@in_session
def restore(
    path: Annotated[str, typer.Argument(help="As `backup` or `deleted` prints it.", show_default=False)],
    *,
    new_name: Annotated[
        str | None, typer.Option("--new-name", help="Make a collection of another name of it.")
    ] = None,
    engine: Engine = None,
    session: Session,
    as_json: AsJson = False,
) -> None:
    """Restore a dropped collection or a backup.

    No resource declares it then: `kubectl vecstow adopt` makes one.
    """
    wanted = {"backup_path": path} | ({} if new_name is None else {"new_name": new_name})
    answer = session.engine(engine).call("POST", "collections", "restore", body=wanted)
    print_answer(answer, f"{answer['name']}: {answer['message']}", as_json=as_json)


@in_session
def deleted(*, engine: Engine = None, session: Session, as_json: AsJson = False) -> None:
    """List the dropped collections that can be restored, newest first."""
    found = session.engine(engine).call("GET", "collections", "deleted")
    rows = [
        (each["name"], _moment(each["deleted_timestamp"]), f"{each['age_hours']:.1f}", each["path"])
        for each in found
    ]
    text = table(("name", "deleted", "age in hours", "path"), rows) if rows else "nothing was dropped"
    print_answer(found, text, as_json=as_json)


@in_session
def cleanup(
    *,
    retention_hours: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="Keep what was dropped later than this.")
    ] = RETENTION_HOURS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    engine: Engine = None,
    session: Session,
    as_json: AsJson = False,
) -> None:
    """Remove dropped collections for good: their room is free at once, and nothing brings them back."""
    proxy = session.engine(engine)
    if dry_run:
        dropped = proxy.call("GET", "collections", "deleted")
        names = [each["name"] for each in dropped if each["age_hours"] >= retention_hours]
    else:
        names = proxy.call("POST", "collections", "cleanup", body={"retention_hours": retention_hours})
    lines = [f"{name} {'would be removed' if dry_run else 'is removed'}" for name in names]
    nothing = f"nothing was dropped {retention_hours:g} hours ago or earlier"
    print_answer(names, "\n".join(lines) or nothing, as_json=as_json)


@in_session
def compact(name: Name, *, engine: Engine = None, session: Session, as_json: AsJson = False) -> None:
    """Give the room of deleted and replaced vectors back."""
    proxy, collection = session.collection(name, engine)
    answer = proxy.call("POST", "collections", collection, "compact")
    text = f"{collection}: {answer['bytes_before']:,} bytes before, {answer['bytes_after']:,} after"
    print_answer(answer, text, as_json=as_json)


@in_session
def hold(
    *,
    seconds: Annotated[float, typer.Option(help="How long, at most.")] = 600.0,
    release_it: Annotated[bool, typer.Option("--release", help="End it.")] = False,
    engine: Engine = None,
    session: Session,
) -> None:
    """Hold an engine's files still, so that a copy of its volume is exact. Writes go on meanwhile."""
    proxy = session.engine(engine)
    answer = (
        proxy.call("DELETE", "hold") if release_it else proxy.call("POST", "hold", body={"seconds": seconds})
    )
    typer.echo(f"{answer['message']}{'' if answer['until'] is None else ' until ' + answer['until']}")


def _moment(timestamp: float) -> str:
    """Return seconds since 1970 as a date and time in UTC."""
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
