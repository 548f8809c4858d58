"""`kubectl vecstow check` and `repair`."""

from __future__ import annotations

from typing import Annotated

import typer

from vecstow_operator.keys import KeyFile
from vecstow_operator.manager.state_poller import CONTAINER
from vecstow_operator.plugin.options import AsJson, Context, Engine, Namespace
from vecstow_operator.plugin.output import print_json
from vecstow_operator.plugin.session import Session
from vecstow_operator.plugin.status_lines import repaired


def check(
    name: str,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Verify every file and row of one collection, which is served meanwhile. Exit code 1: damage."""
    session = Session.open(context, namespace, key_file)
    proxy, collection = session.collection(name, engine)
    document = proxy.call("POST", "collections", collection, "check")
    if as_json:
        print_json(document)
    else:
        for finding in document["findings"]:
            where = "" if finding.get("offset") is None else f" at {finding['offset']}"
            typer.echo(f"{finding['severity']}: {finding['file']}{where}: {finding['message']}")
        count = len(document["findings"])
        typer.echo(f"{collection}: {count} finding{'' if count == 1 else 's'}")
    if any(finding["severity"] == "error" for finding in document["findings"]):
        if not as_json:
            typer.echo(f"  next: kubectl vecstow repair -n {session.namespace} {name}")
        raise typer.Exit(1)


def repair(
    name: str,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan only.")] = False,
    engine: Engine = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Set a collection's damaged files aside, and rebuild it from intact data.

    The collection answers 503 meanwhile; others are served. Exit code 1: something is left to do.
    """
    session = Session.open(context, namespace, key_file)
    proxy, collection = session.collection(name, engine)
    answer = proxy.call("POST", "collections", collection, "repair", body={"dry_run": dry_run})
    if as_json:
        print_json(answer)
    else:
        where = f"-n {session.namespace} {proxy.pod} -c {CONTAINER}"
        for line in repaired(collection, answer, where, session.counted(name)):
            typer.echo(line)
    if answer["outcome"] in ("planned", "impossible"):
        raise typer.Exit(1)
