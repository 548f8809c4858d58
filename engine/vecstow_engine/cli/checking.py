"""`vecstow check`: verify every file and every row; print the findings and the next commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vecstow_engine.cli.options import Address, DataOrNone, Json, KeyFile, UrlOrNone, choose_place
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
        bool, typer.Option("--repair", help="Set damage aside, and rebuild what proves itself.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --repair: print the plan only.")] = False,
    recall: Annotated[
        bool, typer.Option("--recall", help="With --url: say what share of a sample finds itself.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read every file and every row, and list what is wrong.

    With --data a stopped volume or a copy of one is read, and what else lies on the volume too; with
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
      vecstow check packages --recall --url http://127.0.0.1:3030
    """
    names = None if name is None else [check_collection_name(name)]
    place = choose_place(data, url, key_file)
    if dry_run and not repair:
        raise typer.BadParameter("--dry-run goes with --repair")
    if recall and (repair or isinstance(place, Path)):
        raise typer.BadParameter("--recall asks an engine: give --url, and no --repair")
    if repair:
        _repair(place, name, dry_run=dry_run, as_json=as_json)
        return
    asked = {} if isinstance(place, Path) else {"--url": url, "--key-file": key_file}
    _check(place, names, asked, recall=recall, as_json=as_json)


def _check(
    place: Path | Address,
    names: list[str] | None,
    asked: dict[str, str | Path | None],
    *,
    recall: bool,
    as_json: bool,
) -> None:
    """Check and print. `asked`: the given options that name the engine; the next commands need them too."""
    report = _check_volume(place, names) if isinstance(place, Path) else _ask_engine(place, names, recall)
    _add_options(report, asked)
    if as_json:
        print_json(report)
    else:
        _print_report(report, offline=isinstance(place, Path))
    if not report["clean"]:
        raise typer.Exit(1)


def _add_options(report: dict[str, Any], asked: dict[str, str | Path | None]) -> None:
    """Add the options that name the engine to each next command: an engine does not know its own address."""
    given = {option: shlex.quote(str(value)) for option, value in asked.items() if value is not None}
    added = "".join(f" {option} {value}" for option, value in given.items())
    for finding in report["findings"]:
        typed = [(finding, "next_command"), *((step, "command") for step in finding.get("next_steps", []))]
        for holder, field in typed:
            if (holder[field] or "").startswith("vecstow "):
                holder[field] += added


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
    from vecstow_engine.doctor.check import check_volume

    with progress_bars() as progress:
        return check_volume(data, names, progress).document()


def _ask_engine(engine: Address, names: list[str] | None, recall: bool) -> dict[str, Any]:
    """Return the reports of the collections, merged into one."""
    from vecstow_engine.cli.client import Client

    whole: dict[str, Any] = {"clean": True, "errors": 0, "warnings": 0, "infos": 0}
    whole |= {"findings": [], "omitted": {}, "collections": {}}
    with Client(engine.url, key=engine.key) as client:
        for part in _reports(client, names, recall):
            whole["clean"] = whole["clean"] and part["clean"]
            for count in ("errors", "warnings", "infos"):
                whole[count] += part[count]
            whole["findings"] += part["findings"]
            for facts in ("omitted", "collections"):
                whole[facts] |= part[facts]
    return whole


def _reports(client: Client, names: list[str] | None, recall: bool) -> Iterator[dict[str, Any]]:
    """Yield a report for each name.

    Without names yield one for each collection, also with a broken manifest, except those just dropped.
    """
    from vecstow_engine.cli.client import RequestRefused

    rows = client.get("state")["collections"] if names is None else [{"name": name} for name in names]
    for row in rows:
        try:
            yield client.post("collections", row["name"], "check", **({"recall": "true"} if recall else {}))
        except RequestRefused as refused:
            if names is not None or refused.status != NOT_FOUND:
                raise


def _print_findings(findings: list[dict[str, Any]]) -> None:
    """Print each finding with its next steps, unless the previous finding has the same steps."""
    printed: list[dict[str, Any]] = []
    for finding in findings:
        offset = finding["offset"]
        where = finding["file"] if offset is None else f"{finding['file']} at byte {offset}"
        print_line(f"{finding['severity']}: {where}: {finding['message']}")
        if finding.get("next_steps", []) != printed:
            printed = finding.get("next_steps", [])
            for step in printed:
                _print_step(step)


def _print_step(step: dict[str, Any]) -> None:
    """Print a step, and its command on a line of its own, for copying."""
    if step["does"] is None:
        print_line(f"    {step['link']}: {step['command']}")
        return
    print_line(f"    {step['link']}: {step['does']}")
    if step["command"] is not None:
        print_line(f"        {step['command']}")


def _print_report(report: dict[str, Any], *, offline: bool) -> None:
    _print_findings(report["findings"])
    for file, count in report["omitted"].items():
        print_line(f"{file}: {counted(count, 'finding')} more")
    for name, facts in report["collections"].items():
        if (measured := facts.get("recall")) and measured["sample"]:
            print_line(
                f"{name}: {measured['found']} of {counted(measured['sample'], 'point')} found by their own "
                f"vector (ef {measured['ef']}, first {measured['k']}): {measured['share']:.1%}"
            )
    collections = report["collections"].values()
    points = sum(facts.get("points") or 0 for facts in collections)
    pending = sum((facts.get("log") or {}).get("pending", 0) for facts in collections) if offline else 0
    waiting = f", and {counted(pending, 'log record')} that the next start will apply" if pending else ""
    print_line(
        f"checked {counted(len(collections), 'collection')} with {counted(points, 'point')}{waiting}: "
        f"{counted(report['errors'], 'error')}, {counted(report['warnings'], 'warning')}"
    )
