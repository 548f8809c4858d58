"""Figures as a table for people and as a document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness.figures import Figure, spelt

_WIDTH_MIN = 180


def show(console: Console, figures: Sequence[Figure]) -> None:
    """Print one table: medians over the runs, and their extremes."""
    table = Table(title="Medians over the runs", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("benchmark", "figure"):
        table.add_column(heading, no_wrap=True)
    for heading in ("median", "min - max", "reference", "ratio", "target", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, figure in enumerate(figures):
        new = number == 0 or figures[number - 1].benchmark != figure.benchmark
        if new and number:
            table.add_section()
        table.add_row(figure.benchmark if new else "", *_cells(figure))
    # Too wide for a narrow terminal is better than cut off.
    Console(width=max(console.width, _WIDTH_MIN), file=console.file).print(table)
    for line in sorted({figure.note for figure in figures if figure.note}):
        console.print(f"[dim]{line}[/dim]")


def document(machine: dict[str, Any], settings: dict[str, Any], figures: Sequence[Figure]) -> dict[str, Any]:
    """Return the content of the JSON file."""
    return {"machine": machine, "settings": settings, "figures": [figure.document() for figure in figures]}


def _cells(figure: Figure) -> list[str]:
    beside = ratio = ""
    if figure.beside:
        beside = f"{figure.beside_name} {spelt(median(figure.beside))}"
        ratios = figure.ratios
        ratio = f"{median(ratios):.3g}"
        if len(ratios) > 1:
            ratio += f" ({min(ratios):.3g} - {max(ratios):.3g})"
    met = {True: "met", False: "[red]not met[/red]", None: ""}[figure.met]
    extremes = ""
    if len(figure.values) > 1:
        extremes = f"{spelt(min(figure.values))} - {spelt(max(figure.values))}"
    target = "" if figure.target is None else str(figure.target)
    return [f"{figure.name}", f"{spelt(figure.median)} {figure.unit}", extremes, beside, ratio, target, met]
