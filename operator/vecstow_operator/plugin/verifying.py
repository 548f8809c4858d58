"""`kubectl vecstow check` and `repair`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from vecstow_operator.manager.state_poller import CONTAINER
from vecstow_operator.plugin.command import AsJson, Engine, in_session, print_answer
from vecstow_operator.plugin.session import Session


@in_session
def check(name: str, *, engine: Engine = None, session: Session, as_json: AsJson = False) -> None:
    """Verify every file and row of one collection, which is served meanwhile. Exit code 1: damage."""
    proxy, collection = session.collection(name, engine)
    document = proxy.call("POST", "collections", collection, "check")
    findings, lines = document["findings"], []
    for finding in findings:
        where = "" if finding.get("offset") is None else f" at {finding['offset']}"
        lines.append(f"{finding['severity']}: {finding['file']}{where}: {finding['message']}")
    lines.append(f"{collection}: {len(findings)} finding{'' if len(findings) == 1 else 's'}")
    is_damaged = any(finding["severity"] == "error" for finding in findings)
    if is_damaged:
        lines.append(f"  next: kubectl vecstow repair -n {session.namespace} {name} --dry-run")
    print_answer(document, "\n".join(lines), as_json=as_json)
    if is_damaged:
        raise typer.Exit(1)


@in_session
def repair(
    name: str,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    engine: Engine = None,
    session: Session,
    as_json: AsJson = False,
) -> None:
    """Set a collection's damaged files aside, and rebuild it from intact data.

    The collection answers 503 meanwhile; others are served. Exit code 1: something is left to do.
    """
    proxy, collection = session.collection(name, engine)
    answer = proxy.call("POST", "collections", collection, "repair", body={"dry_run": dry_run})
    where = f"-n {session.namespace} {proxy.pod} -c {CONTAINER}"
    resource = session.resource(name)
    counted = None if resource is None else resource.known.vector_count
    print_answer(answer, "\n".join(repaired(collection, answer, where, counted)), as_json=as_json)
    if answer["outcome"] in ("planned", "impossible"):
        raise typer.Exit(1)


def repaired(
    collection: str, answer: Mapping[str, Any], where: str, counted: int | None = None
) -> Iterator[str]:
    """Yield lines on the steps of a repair, done or planned; `where` is the engine's container, for kubectl.

    `counted` is the last count of vectors in the resource's status.
    """
    plan = answer["plan"]
    for number, step in enumerate(plan["steps"], start=1):
        yield f"{collection}: step {number}: {step['does']}, because {step['because']}"
    for warning in plan["warnings"]:
        yield f"{collection}: note: {warning}"
    outcome = answer["outcome"]
    if outcome == "sound":
        yield f"{collection}: sound, nothing to do"
    elif outcome == "impossible":
        yield f"{collection}: cannot be repaired: {plan['impossible']}"
    else:
        saved = plan["kept"] + plan["restored"]
        summary = plan["summary"] or "no point is touched"
        yield f"{collection}: {outcome}: {summary}"
        if counted is not None and plan["summary"] and saved < counted:
            missing = f"{counted - saved} of the {counted} points that were counted last are missing"
            yield f"{collection}: {missing}"
    if answer["quarantine"]:
        yield f"{collection}: what was damaged lies in {answer['quarantine']} on the volume"
        if plan["lost"] or plan["lost_records"]:
            lost = f"$VECSTOW_DATA/{answer['quarantine']}/lost.jsonl"
            yield f"  next: look at what is lost: kubectl exec {where} -- sh -c 'cat \"{lost}\"'"
    if plan["hint"]:
        yield f"  next: {plan['hint']}"
