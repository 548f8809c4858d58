"""`vecstow check`: verify every file and every row, print the findings and the next commands; repair damage.

A repair prints the plan, then the progress of the work, then the outcome.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vecstow_engine.cli.options import Address, DataOrNone, Json, KeyFile, UrlOrNone, choose_place
from vecstow_engine.cli.output import counted, print_json, print_line, progress_bars
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.names import check_collection_name

NOT_FOUND: Final = 404
LOSSES_PRINTED_MAX: Final = 20
WATCH_SECONDS: Final = 0.5
ALIASES_FILE: Final = "aliases.json"

Document = dict[str, Any]


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
        if isinstance(place, Path):
            report = _repair_volume(place, names, dry_run=dry_run, as_json=as_json)
        elif name is None:
            raise typer.BadParameter("an engine repairs one collection at a time: give its NAME")
        else:
            report = _repair_by_engine(place, name, dry_run=dry_run, as_json=as_json)
        if as_json:
            print_json(report)
        else:
            _print_outcomes(report["collections"], place if isinstance(place, Path) else Path())
        is_sound = not report["open"]
    else:
        if isinstance(place, Path):
            from vecstow_engine.doctor.check import check_volume

            with progress_bars() as progress:
                report = check_volume(place, names, progress).document()
        else:
            report = _ask_engine(place, names, recall)
            _add_options(report["findings"], {"--url": url, "--key-file": key_file})
        if as_json:
            print_json(report)
        else:
            _print_report(report, offline=isinstance(place, Path))
        is_sound = bool(report["clean"])
    if not is_sound:
        raise typer.Exit(1)


def _add_options(findings: list[dict[str, Any]], options: dict[str, str | Path | None]) -> None:
    """Add the given options to each next command: an engine does not know its own address."""
    given = (f" {option} {shlex.quote(str(value))}" for option, value in options.items() if value is not None)
    added = "".join(given)
    for finding in findings:
        typed = [(finding, "next_command"), *((step, "command") for step in finding.get("next_steps", []))]
        for holder, field in typed:
            if (holder[field] or "").startswith("vecstow "):
                holder[field] += added


def _ask_engine(engine: Address, names: list[str] | None, recall: bool) -> dict[str, Any]:
    """Return the reports of the collections, merged into one.

    Without names it has each collection, also with a broken manifest, except those just dropped.
    """
    from vecstow_engine.cli.client import Client, RequestRefused

    whole: dict[str, Any] = {"clean": True, "errors": 0, "warnings": 0, "infos": 0}
    whole |= {"findings": [], "omitted": {}, "collections": {}}
    parameters = {"recall": "true"} if recall else {}
    with Client(engine.url, key=engine.key) as client:
        state = client.get("state") if names is None else {}
        # An engine of an earlier release has no aliases.
        if (fault := state.get("aliases", {}).get("fault")) is not None:
            finding: Document = {
                "severity": "error",
                "collection": None,
                "file": ALIASES_FILE,
                "offset": None,
            }
            finding |= {"file": ALIASES_FILE, "message": fault, "next_steps": [], "next_command": None}
            whole |= {"clean": False, "errors": 1, "findings": [finding]}
        for name in names or [row["name"] for row in state["collections"]]:
            try:
                part = client.post("collections", name, "check", **parameters)
            except RequestRefused as refused:
                if names is None and refused.status == NOT_FOUND:
                    continue
                raise
            whole["clean"] = whole["clean"] and part["clean"]
            for count in ("errors", "warnings", "infos", "findings"):
                whole[count] += part[count]
            for facts in ("omitted", "collections"):
                whole[facts] |= part[facts]
    return whole


def _print_findings(findings: list[dict[str, Any]]) -> None:
    """Print each finding with its next steps, unless the previous finding has the same steps.

    The command of a step is on a line of its own, for copying.
    """
    printed: list[dict[str, Any]] = []
    for finding in findings:
        offset = finding["offset"]
        where = finding["file"] if offset is None else f"{finding['file']} at byte {offset}"
        print_line(f"{finding['severity']}: {where}: {finding['message']}")
        steps = finding.get("next_steps", [])
        for step in steps if steps != printed else []:
            print_line(f"    {step['link']}: {step['does'] or step['command']}")
            if step["does"] is not None and step["command"] is not None:
                print_line(f"        {step['command']}")
        printed = steps


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


def _repair_volume(data: Path, names: list[str] | None, *, dry_run: bool, as_json: bool) -> Document:
    """Repair a stopped volume, print the plans, and return the report."""
    from vecstow_engine.doctor.repair import RepairPlan, repair_volume

    def planned(plan: RepairPlan) -> None:
        if not as_json:
            _print_plan(plan.collection, plan.document())

    with progress_bars() as progress:
        return repair_volume(data, names, dry_run, progress, planned).document()


def _repair_by_engine(engine: Address, name: str, *, dry_run: bool, as_json: bool) -> Document:
    """Let an engine repair one collection, print the plan, and return a report like that of a volume."""
    from vecstow_engine.cli.client import Client

    def ask(dry_run: bool) -> Document:
        return dict(client.post("collections", name, "repair", document={"dry_run": dry_run}))

    # No limit: the repair of a large collection takes long, and reports its progress meanwhile.
    with Client(engine.url, key=engine.key, answer_seconds=None) as client:
        answer = ask(dry_run=True)
        hint = answer["plan"]["hint"]
        if not as_json:
            _print_plan(name, answer["plan"])
        if answer["outcome"] == "planned" and not dry_run:
            answer = _watched(engine, name, lambda: ask(dry_run=False))
    answer |= {"plan": answer["plan"] | {"hint": answer["plan"]["hint"] or hint}}
    return {"open": answer["outcome"] in ("planned", "impossible"), "collections": {name: answer}}


def _watched(engine: Address, name: str, call: Callable[[], Document]) -> Document:
    """Return the call's answer, and show the collection's progress meanwhile."""
    from vecstow_engine.cli.client import Client

    with (
        ThreadPoolExecutor(1) as pool,
        Client(engine.url, key=engine.key) as client,
        progress_bars() as progress,
    ):
        answer = pool.submit(call)
        while not wait([answer], WATCH_SECONDS).done:
            with suppress(VecstowError):
                if stand := client.get("collections", name)["progress"]:
                    progress(f"{name}: {stand['task']}", stand["done"], stand["total"])
        return answer.result()


def _print_outcomes(repairs: dict[str, Document], data: Path) -> None:
    """Print what each repair did, or would do. `data`: the folder of relative paths."""
    for name, repair in repairs.items():
        plan = repair["plan"]
        loses = plan["lost"] or plan.get("lost_records")
        summary = f" ({plan['summary']})" if plan.get("summary") else ""
        in_a_backup = f"    what is lost may be in a backup: {plan['hint']}"
        lines: list[str | None]
        if repair["outcome"] == "sound":
            lines = [f"{name}: sound, nothing to do"]
        elif repair["outcome"] == "impossible":
            lines = [f"{name}: cannot be repaired: {plan['impossible']}", f"    next: {plan['hint']}"]
        elif repair["outcome"] == "planned":
            lines = [
                f"{name}: to be repaired{summary}" if loses else None,
                in_a_backup if plan["hint"] else None,
                f"{name}: nothing was changed; the same command without --dry-run repairs it",
            ]
        else:
            lost = data / repair["quarantine"] / "lost.jsonl"
            lines = [
                f"{name}: repaired{summary}; what was damaged lies in {repair['quarantine']}",
                in_a_backup if plan["hint"] else None,
                f"    next: look at what is lost: {lost}" if loses else None,
            ]
        for line in filter(None, lines):
            print_line(line)


def _print_plan(name: str, plan: Document) -> None:
    for number, step in enumerate(plan["steps"], start=1):
        print_line(f"{name}: step {number}: {step['does']}")
        print_line(f"    because {step['because']}")
    for loss in plan["losses"][:LOSSES_PRINTED_MAX]:
        print_line(f"{name}: lost: {_loss(loss)}")
    points = sum("id" in loss for loss in plan["losses"][:LOSSES_PRINTED_MAX])
    more = plan["lost"] - plan["lost_without_id"] - points
    if more > 0:
        print_line(f"{name}: lost: {counted(more, 'point')} more; the repair lists them all in lost.jsonl")
    if plan["lost_without_id"]:
        nameless = counted(plan["lost_without_id"], "point")
        limit = "up to " if plan.get("lost_rows") else ""
        print_line(f"{name}: lost: {limit}{nameless} whose ids nothing tells")
    for warning in plan["warnings"]:
        print_line(f"{name}: note: {warning}")


def _loss(loss: Document) -> str:
    place = loss["file"] if loss["offset"] is None else f"{loss['file']} at byte {loss['offset']}"
    if "records" in loss:
        first, last = loss["records"]
        what = f"log record {first}" if first == last else f"log records {first} to {last}"
        what = f"log records from {first} on" if last is None else what
    elif "rows" in loss:
        what = "rows {} to {}".format(*loss["rows"])
    else:
        what = f"point {loss['id']!r}"
    return f"{what} ({place}): {loss['reason']}"
