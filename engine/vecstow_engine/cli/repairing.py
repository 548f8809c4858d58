"""`vecstow check --repair`: the plan first, then the work with its progress, then what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vecstow_engine.cli.output import counted, print_json, print_line, progress_bars
from vecstow_engine.model.errors import VecstowError

if TYPE_CHECKING:
    from vecstow_engine.cli.client import Client

LOSSES_PRINTED_MAX: Final = 20
WATCH_SECONDS: Final = 0.5

Document = Mapping[str, Any]


def repair_volume(data: Path, names: list[str] | None, *, dry_run: bool, as_json: bool) -> bool:
    """Repair a stopped volume; whether everything is sound afterwards."""
    from vecstow_engine.storage.repair import RepairPlan
    from vecstow_engine.storage.repair import repair_volume as repair

    def planned(plan: RepairPlan) -> None:
        if not as_json:
            _print_plan(plan.collection, plan.document())

    with progress_bars() as progress:
        report = repair(data, names, dry_run, progress, planned).document()
    return _conclude(report, as_json=as_json)


def ask_engine(url: str, name: str, *, dry_run: bool, as_json: bool) -> bool:
    """Let an engine repair one collection; whether it is sound afterwards."""
    from vecstow_engine.cli.client import Client

    with Client(url, answer_seconds=None) as client:  # a large collection takes its time, and tells of it
        answer = _post(client, name, dry_run=True)
        if not as_json:
            _print_plan(name, answer["plan"])
        if answer["outcome"] == "planned" and not dry_run:
            answer = _watched(url, name, lambda: _post(client, name, dry_run=False))
    is_open = answer["outcome"] in ("planned", "impossible")
    return _conclude({"open": is_open, "collections": {name: answer}}, as_json=as_json)


def _post(client: Client, name: str, *, dry_run: bool) -> Document:
    return dict(client.post("collections", name, "repair", document={"dry_run": dry_run}))


def _watched(url: str, name: str, call: Callable[[], Document]) -> Document:
    """The call's answer; meanwhile the collection is asked how far it is."""
    from vecstow_engine.cli.client import Client

    with ThreadPoolExecutor(1) as pool, Client(url) as client, progress_bars() as progress:
        answer: Future[Document] = pool.submit(call)
        while not wait([answer], WATCH_SECONDS).done:
            with suppress(VecstowError):
                if stand := client.get("collections", name)["progress"]:
                    progress(f"{name}: {stand['task']}", stand["done"], stand["total"])
        return answer.result()


def _conclude(report: Document, *, as_json: bool) -> bool:
    if as_json:
        print_json(report)
        return not report["open"]
    for name, repair in report["collections"].items():
        print_line(_outcome(name, repair))
    return not report["open"]


def _outcome(name: str, repair: Document) -> str:
    plan = repair["plan"]
    if repair["outcome"] == "sound":
        return f"{name}: sound, nothing to do"
    if repair["outcome"] == "planned":
        return f"{name}: nothing was done; without --dry-run it is"
    if repair["outcome"] == "impossible":
        return f"{name}: cannot be repaired: {plan['impossible']}\n    next: {plan['hint']}"
    saved = ""
    if plan["kept"] or plan["restored"]:
        points = f"{counted(plan['kept'], 'point')} kept, {plan['restored']:,} from the log"
        saved = f" ({points}, {plan['lost']:,} lost)"
    return f"{name}: repaired{saved}; what was damaged lies in {repair['quarantine']}"


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
    points = sum("records" not in loss for loss in plan["losses"][:LOSSES_PRINTED_MAX])
    more = plan["lost"] - plan["lost_without_id"] - points
    if more > 0:
        print_line(f"{name}: lost: {counted(more, 'point')} more; the repair lists them all in lost.jsonl")
    if plan["lost_without_id"]:
        print_line(f"{name}: lost: {counted(plan['lost_without_id'], 'point')} whose ids nothing tells")


def _records(first: int, last: int | None) -> str:
    if last is None:
        return f"log records from {first} on"
    return f"log record {first}" if first == last else f"log records {first} to {last}"


def _loss(loss: Document) -> str:
    place = loss["file"] if loss["offset"] is None else f"{loss['file']} at byte {loss['offset']}"
    if "records" in loss:
        first, last = loss["records"]
        what = _records(first, last)
    else:
        what = f"point {loss['id']!r}"
    return f"{what} ({place}): {loss['reason']}"
