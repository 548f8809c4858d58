"""The options and arguments that several commands of the plugin share."""

from __future__ import annotations

from typing import Annotated

import typer

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; default: the context's.")
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Engine = Annotated[str | None, typer.Option("--engine", help="Which engine; not needed when there is one.")]
Names = Annotated[list[str] | None, typer.Argument(help="Names; default: all.", show_default=False)]
Resources = Annotated[list[str] | None, typer.Argument(help="Names of resources.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
