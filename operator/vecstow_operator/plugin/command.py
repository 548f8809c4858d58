"""The parts that commands of the plugin share: options, the session that they open, and output."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any

import typer

from vecstow_operator.keys import KeyFile
from vecstow_operator.plugin.session import Session

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Engine = Annotated[str | None, typer.Option("--engine", help="Which engine; not needed when there is one.")]
Name = Annotated[str, typer.Argument(help="A resource, or a collection that has none.", show_default=False)]
Names = Annotated[list[str] | None, typer.Argument(help="Names; default: all.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]

SESSION_OPTIONS = [
    Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    for name, annotation in (("namespace", Namespace), ("context", Context), ("key_file", KeyFile))
]


def in_session(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the options that open a session where `command` takes the `session` itself."""
    signature = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(*, namespace: str | None, context: str | None, key_file: Path | None, **arguments: Any) -> None:
        command(session=Session.open(context, namespace, key_file), **arguments)

    parameters: list[Parameter] = []
    for parameter in signature.parameters.values():
        parameters += SESSION_OPTIONS if parameter.name == "session" else [parameter]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def print_answer(answer: object, text: str, *, as_json: bool) -> None:
    """Write an answer to stdout, as one JSON document or as text."""
    typer.echo(json.dumps(answer, indent=2) if as_json else text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table, its heading in capitals."""
    cells = [[column.upper() for column in columns], *(list(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = ((cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join("   ".join(row).rstrip() for row in padded)
