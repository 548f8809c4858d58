"""`kubectl vecstow status`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

import typer

from vecstow_operator.keys import KeyFile
from vecstow_operator.plugin.claims import claims_of, with_claims
from vecstow_operator.plugin.managers import missing_manager
from vecstow_operator.plugin.options import AsJson, Context, Names, Namespace
from vecstow_operator.plugin.output import print_json, print_table
from vecstow_operator.plugin.session import Session
from vecstow_operator.plugin.status_lines import WHOLE, Line, report

COLUMNS: Final = ("resource", "collection", "engine", "state", "reason", "vectors")


def status(
    names: Names = None,
    namespace: Namespace = None,
    context: Context = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """Print how each collection stands, by the answers of the engines now.

    Exit code 1 when one of them is not served whole, whether it has a resource, is paused, or neither.
    """
    session = Session.open(context, namespace, key_file)
    session.refuse_incomplete()
    lines = [
        line
        for line in with_claims(
            report(session.found.resources, session.found.engines, session.namespace),
            claims_of(session.api, session.namespace, session.found.pods),
        )
        if not names or line.resource in names or line.collection in names
    ]
    if as_json:
        print_json([asdict(line) for line in lines])
    else:
        _print_lines(lines)
    if (away := missing_manager(session.api, session.namespace)) is not None:
        typer.echo(f"warning: {away}", err=True)
    if any(line.reason not in WHOLE for line in lines):
        raise typer.Exit(1)


def _print_lines(lines: list[Line]) -> None:
    print_table(COLUMNS, ([getattr(line, column) for column in COLUMNS] for line in lines))
    for line in lines:
        if line.reason != "Served":
            typer.echo(f"\n{line.resource if line.resource != '-' else line.collection}: {line.message}")
            if line.next_command is not None:
                typer.echo(f"  next: {line.next_command}")
