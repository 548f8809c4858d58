"""The output that all commands of the plugin share: documents and tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import typer


def print_json(document: object) -> None:
    """Write one JSON document to stdout."""
    typer.echo(json.dumps(document, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table to stdout, its heading in capitals."""
    cells = [[column.upper() for column in columns], *(list(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        typer.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
