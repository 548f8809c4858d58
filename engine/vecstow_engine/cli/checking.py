"""`vecstow check`: every file and every row, verified; what is wrong, and what to type next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vecstow_engine.cli.options import DataOrNone, Json, UrlOrNone, choose_place
from vecstow_engine.cli.output import console, print_json, print_line
from vecstow_engine.model.names import check_collection_name

if TYPE_CHECKING:
    from vecstow_engine.cli.client import Client

NOT_FOUND: Final = 404


def check_command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The collection; all of them without a name.")
    ] = None,
    data: DataOrNone = None,
    url: UrlOrNone = None,
    as_json: Json = False,
) -> None:
    """Read every file and every row, and list what is wrong.

    With --data a stopped volume or a copy of one is read, and what lies beside its collections too; with
    --url an engine checks what it serves. Nothing is written. Exits with 1 when stored data is damaged.

    \b
    Examples:
      vecstow check --data ./data
      vecstow check packages --url http://127.0.0.1:3030
    """
    names = None if name is None else [check_collection_name(name)]
    place = choose_place(data, url)
    report = _check_volume(place, names) if isinstance(place, Path) else _ask_engine(place, names)
    if as_json:
        print_json(report)
    else:
        _print_report(report, offline=isinstance(place, Path))
    if not report["clean"]:
        raise typer.Exit(1)


def _check_volume(data: Path, names: list[str] | None) -> dict[str, Any]:
    from vecstow_engine.storage.check import check_volume

    with _progress() as progress:
        return check_volume(data, names, progress).document()


def _ask_engine(url: str, names: list[str] | None) -> dict[str, Any]:
    """The reports of the collections, put together as one."""
    from vecstow_engine.cli.client import Client

    whole: dict[str, Any] = {"clean": True, "errors": 0, "warnings": 0, "infos": 0}
    whole |= {"findings": [], "omitted": {}, "collections": {}}
    with Client(url) as client:
        for part in _reports(client, names):
            whole["clean"] = whole["clean"] and part["clean"]
            for count in ("errors", "warnings", "infos"):
                whole[count] += part[count]
            whole["findings"] += part["findings"]
            for facts in ("omitted", "collections"):
                whole[facts] |= part[facts]
    return whole


def _reports(client: Client, names: list[str] | None) -> Iterator[dict[str, Any]]:
    """A report each; without names of all: those with a broken manifest too, but not those just dropped."""
    from vecstow_engine.cli.client import RequestRefused

    rows = client.get("state")["collections"] if names is None else [{"name": name} for name in names]
    for row in rows:
        try:
            yield client.post("collections", row["name"], "check")
        except RequestRefused as refused:
            if names is not None or refused.status != NOT_FOUND:
                raise


def _print_report(report: dict[str, Any], *, offline: bool) -> None:
    for finding in report["findings"]:
        offset = finding["offset"]
        where = finding["file"] if offset is None else f"{finding['file']} at byte {offset}"
        print_line(f"{finding['severity']}: {where}: {finding['message']}")
        if finding["next_command"]:
            print_line(f"    next: {finding['next_command']}")
    for file, count in report["omitted"].items():
        print_line(f"{file}: {_counted(count, 'finding')} more")
    collections = report["collections"].values()
    points = sum(facts.get("points") or 0 for facts in collections)
    pending = sum((facts.get("log") or {}).get("pending", 0) for facts in collections) if offline else 0
    waiting = f", and {_counted(pending, 'log record')} that the next start will apply" if pending else ""
    print_line(
        f"checked {_counted(len(collections), 'collection')} with {_counted(points, 'point')}{waiting}: "
        f"{_counted(report['errors'], 'error')}, {_counted(report['warnings'], 'warning')}"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per collection on stderr, where that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    out = console(stderr=True)
    tasks: dict[str, TaskID] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as bars:

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield advance
