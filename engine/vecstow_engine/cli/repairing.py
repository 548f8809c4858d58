"""`vecstow check --repair`: print the plan, then the progress of the work, then the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vecstow_engine.cli.output import counted, print_json, print_line, progress_bars
from vecstow_engine.model.errors import VecstowError

if TYPE_CHECKING:
    from vecstow_engine.cli.client import Client
    from vecstow_engine.cli.options import Address

LOSSES_PRINTED_MAX: Final = 20
WATCH_SECONDS: Final = 0.5

Document = Mapping[str, Any]


def repair_volume(data: Path, names: list[str] | None, *, dry_run: bool, as_json: bool) -> bool:
    """Repair a stopped volume; return whether everything is sound afterwards."""
    from vecstow_engine.doctor.repair import RepairPlan
    from vecstow_engine.doctor.repair import repair_volume as repair

    def planned(plan: RepairPlan) -> None:
        if not as_json:
            _print_plan(plan.collection, plan.document())

    with progress_bars() as progress:
        report = repair(data, names, dry_run, progress, planned).document()
    return _conclude(report, data, as_json=as_json)


def ask_engine(engine: Address, name: str, *, dry_run: bool, as_json: bool) -> bool:
    """Let an engine repair one collection; return whether the collection is sound afterwards."""
    from vecstow_engine.cli.client import Client

    # No limit: the repair of a large collection takes long, and reports its progress meanwhile.
    with Client(engine.url, key=engine.key, answer_seconds=None) as client:
        answer = first = _post(client, name, dry_run=True)
        if not as_json:
            _print_plan(name, answer["plan"])
        if answer["outcome"] == "planned" and not dry_run:
            answer = _watched(engine, name, lambda: _post(client, name, dry_run=False))
    plan = answer["plan"]
    answer = {**answer, "plan": {**plan, "hint": plan["hint"] or first["plan"]["hint"]}}
    is_open = answer["outcome"] in ("planned", "impossible")
    return _conclude({"open": is_open, "collections": {name: answer}}, Path(), as_json=as_json)


def _post(client: Client, name: str, *, dry_run: bool) -> Document:
    return dict(client.post("collections", name, "repair", document={"dry_run": dry_run}))


def _watched(engine: Address, name: str, call: Callable[[], Document]) -> Document:
    """Return the call's answer, and show the collection's progress meanwhile."""
    from vecstow_engine.cli.client import Client

    with (
        ThreadPoolExecutor(1) as pool,
        Client(engine.url, key=engine.key) as client,
        progress_bars() as progress,
    ):
        answer: Future[Document] = pool.submit(call)
        while not wait([answer], WATCH_SECONDS).done:
            with suppress(VecstowError):
                if stand := client.get("collections", name)["progress"]:
                    progress(f"{name}: {stand['task']}", stand["done"], stand["total"])
        return answer.result()


def _conclude(report: Document, data: Path, *, as_json: bool) -> bool:
    """Print the outcomes; return whether nothing is left to do. `data`: the folder of relative paths."""
    if as_json:
        print_json(report)
        return not report["open"]
    for name, repair in report["collections"].items():
        for line in _outcome(name, repair, data):
            print_line(line)
    return not report["open"]


def _outcome(name: str, repair: Document, data: Path) -> Iterator[str]:
    plan = repair["plan"]
    if repair["outcome"] == "sound":
        yield f"{name}: sound, nothing to do"
    elif repair["outcome"] == "impossible":
        yield f"{name}: cannot be repaired: {plan['impossible']}"
        yield f"    next: {plan['hint']}"
    else:
        planned = repair["outcome"] == "planned"
        yield from _of_plan(name, plan) if planned else _of_repair(name, repair, data)


def _of_plan(name: str, plan: Document) -> Iterator[str]:
    if _loses(plan):
        yield f"{name}: to be repaired{_summary(plan)}"
    if plan["hint"]:
        yield f"    what is lost may be in a backup: {plan['hint']}"
    yield f"{name}: nothing was changed; the same command without --dry-run repairs it"


def _of_repair(name: str, repair: Document, data: Path) -> Iterator[str]:
    plan = repair["plan"]
    yield f"{name}: repaired{_summary(plan)}; what was damaged lies in {repair['quarantine']}"
    if plan["hint"]:
        yield f"    what is lost may be in a backup: {plan['hint']}"
    if _loses(plan):
        yield f"    next: look at what is lost: {data / repair['quarantine'] / 'lost.jsonl'}"


def _loses(plan: Document) -> bool:
    return bool(plan["lost"] or plan.get("lost_records"))


def _summary(plan: Document) -> str:
    """Return the plan's summary of kept and lost points; empty when the plan touches no point."""
    return f" ({plan['summary']})" if plan.get("summary") else ""


def _print_plan(name: str, plan: Document) -> None:
    for number, step in enumerate(plan["steps"], start=1):
        print_line(f"{name}: step {number}: {step['does']}")
        print_line(f"    because {step['because']}")
    for loss in plan["losses"][:LOSSES_PRINTED_MAX]:
        print_line(f"{name}: lost: {_loss(loss)}")
    _print_rest(name, plan)
    for warning in plan["warnings"]:
        print_line(f"{name}: note: {warning}")


def _print_rest(name: str, plan: Document) -> None:
    points = sum("id" in loss for loss in plan["losses"][:LOSSES_PRINTED_MAX])
    more = plan["lost"] - plan["lost_without_id"] - points
    if more > 0:
        print_line(f"{name}: lost: {counted(more, 'point')} more; the repair lists them all in lost.jsonl")
    if plan["lost_without_id"]:
        nameless = counted(plan["lost_without_id"], "point")
        limit = "up to " if plan.get("lost_rows") else ""
        print_line(f"{name}: lost: {limit}{nameless} whose ids nothing tells")


def _records(first: int, last: int | None) -> str:
    if last is None:
        return f"log records from {first} on"
    return f"log record {first}" if first == last else f"log records {first} to {last}"


def _loss(loss: Document) -> str:
    place = loss["file"] if loss["offset"] is None else f"{loss['file']} at byte {loss['offset']}"
    if "records" in loss:
        first, last = loss["records"]
        what = _records(first, last)
    elif "rows" in loss:
        what = "rows {} to {}".format(*loss["rows"])
    else:
        what = f"point {loss['id']!r}"
    return f"{what} ({place}): {loss['reason']}"
