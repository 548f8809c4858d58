"""`vecstow check`: every file and every row, verified; what is wrong, and what to type next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vecstow_engine.cli.address import Address
from vecstow_engine.cli.options import DataOrNone, Json, KeyFile, UrlOrNone, choose_place
from vecstow_engine.cli.output import counted, print_json, print_line, progress_bars
from vecstow_engine.cli.repairing import ask_engine, repair_volume
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
    key_file: KeyFile = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set damage aside, and make anew what proves itself.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --repair: print the plan only.")] = False,
    as_json: Json = False,
) -> None:
    """Read every file and every row, and list what is wrong.

    With --data a stopped volume or a copy of one is read, and what lies beside its collections too; with
    --url an engine checks what it serves. Nothing is written. Exits with 1 when stored data is damaged.

    With --repair it is mended: damaged files are set aside in .quarantine, never deleted, and a collection is
    made of every point that proves itself; each one that does not is listed. The plan is printed first. An
    engine repairs one collection while it serves the others. Exits with 1 when something is left to do.

    \b
    Examples:
      vecstow check --data ./data
      vecstow check packages --url http://127.0.0.1:3030
      vecstow check packages --data ./data --repair --dry-run
      vecstow check packages --repair
    """
    names = None if name is None else [check_collection_name(name)]
    place = choose_place(data, url, key_file)
    if dry_run and not repair:
        raise typer.BadParameter("--dry-run goes with --repair")
    if repair:
        _repair(place, name, dry_run=dry_run, as_json=as_json)
        return
    report = _check_volume(place, names) if isinstance(place, Path) else _ask_engine(place, names)
    if as_json:
        print_json(report)
    else:
        _print_report(report, offline=isinstance(place, Path))
    if not report["clean"]:
        raise typer.Exit(1)


def _repair(place: Path | Address, name: str | None, *, dry_run: bool, as_json: bool) -> None:
    if isinstance(place, Path):
        done = repair_volume(place, None if name is None else [name], dry_run=dry_run, as_json=as_json)
    elif name is None:
        raise typer.BadParameter("an engine repairs one collection at a time: give its NAME")
    else:
        done = ask_engine(place, name, dry_run=dry_run, as_json=as_json)
    if not done:
        raise typer.Exit(1)


def _check_volume(data: Path, names: list[str] | None) -> dict[str, Any]:
    from vecstow_engine.storage.check import check_volume

    with progress_bars() as progress:
        return check_volume(data, names, progress).document()


def _ask_engine(engine: Address, names: list[str] | None) -> dict[str, Any]:
    """The reports of the collections, put together as one."""
    from vecstow_engine.cli.client import Client

    whole: dict[str, Any] = {"clean": True, "errors": 0, "warnings": 0, "infos": 0}
    whole |= {"findings": [], "omitted": {}, "collections": {}}
    with Client(engine.url, key=engine.key) as client:
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
        print_line(f"{file}: {counted(count, 'finding')} more")
    collections = report["collections"].values()
    points = sum(facts.get("points") or 0 for facts in collections)
    pending = sum((facts.get("log") or {}).get("pending", 0) for facts in collections) if offline else 0
    waiting = f", and {counted(pending, 'log record')} that the next start will apply" if pending else ""
    print_line(
        f"checked {counted(len(collections), 'collection')} with {counted(points, 'point')}{waiting}: "
        f"{counted(report['errors'], 'error')}, {counted(report['warnings'], 'warning')}"
    )
