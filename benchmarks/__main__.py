"""Measure, show a table, write JSON.

python -m benchmarks                         everything but the million rows, three runs each
python -m benchmarks search ingest --runs 5
python -m benchmarks recall --data FOLDER    on other embeddings
python -m benchmarks --large                 the million rows too: ten minutes, 4 GB of memory
python -m benchmarks against --against DIR   ingest and search, compared with another checkout
python -m benchmarks operator                resources by the thousand on a real API server
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

from rich.console import Console

from benchmarks import (
    against,
    create,
    equal_rows,
    filters,
    hybrid,
    ingest,
    latency,
    many_collections,
    million,
    operator,
    recall,
    restart,
    search,
    text,
)
from benchmarks.harness import machine, report
from benchmarks.harness.context import Context, Sizes
from benchmarks.harness.figures import BenchmarkFailed, Figure

MODULES: Final = (
    ingest,
    search,
    latency,
    restart,
    many_collections,
    create,
    recall,
    equal_rows,
    filters,
    million,
    against,
    operator,
    text,
    hybrid,
)
BENCHMARKS: Final[dict[str, ModuleType]] = {module.NAME: module for module in MODULES}
LARGE: Final = million.NAME
ASKED_FOR: Final = (LARGE, equal_rows.NAME, filters.NAME, against.NAME, operator.NAME, text.NAME, hybrid.NAME)
"""Only run when they are named."""
PACKAGES: Final = Path(__file__).parents[1] / "examples" / "packages"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 when a benchmark failed. A missed target is shown, and is no failure."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    sizes = Sizes(**_given(options, "rows", "collections", "search_seconds", "creates", "large_rows"))
    figures: list[Figure] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="vecstow-bench-", dir=options.folder) as folder:
        found = machine.facts(Path(folder))
        console.print("\n".join(f"{name}: {value}" for name, value in found.items()))
        for name in _chosen(options):
            context = Context(
                folder=Path(folder), data=options.data, runs=options.runs, sizes=sizes,
                against=options.against,
                say=lambda text, name=name: console.print(f"[dim]{name}: {text}[/dim]"),
            )  # fmt: skip
            try:
                figures += BENCHMARKS[name].measure(context)
            except (BenchmarkFailed, OSError) as error:
                console.print(f"[red]{name} failed: {error}[/red]")
                failed = True
    report.show(console, figures)
    if options.json:
        settings = dataclasses.asdict(sizes) | {"runs": options.runs, "data": str(options.data)}
        options.json.write_text(json.dumps(report.document(found, settings, figures), indent=2) + "\n")
        console.print(f"written to {options.json}")
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    about = "\n".join(
        f"  {name:<12} {module.__doc__.partition(': ')[2].strip()}" for name, module in BENCHMARKS.items()
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", epilog=f"benchmarks:\n{about}\n\nWhat they mean: docs/benchmarks.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    defaults = Sizes()
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="which benchmarks; default: all but the large one"
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="how often each is measured (3)")
    parser.add_argument(
        "--large", action="store_true", help="also the million rows: ten minutes, 4 GB of memory"
    )
    parser.add_argument("--data", type=Path, default=PACKAGES, metavar="DIR", help="embeddings for `recall`")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, settings and every run")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where volumes are made (the temporary folder)"
    )
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, for `against`")
    parser.add_argument("--rows", type=int, metavar="N", help=f"rows of a collection ({defaults.rows:,})")
    parser.add_argument(
        "--large-rows", type=int, metavar="N", help=f"rows of the large one ({defaults.large_rows:,})"
    )
    parser.add_argument(
        "--collections", type=int, nargs="+", metavar="N", help="numbers of collections (1 10 100 1000)"
    )
    parser.add_argument(
        "--creates", type=int, metavar="N", help=f"collections made by `create` ({defaults.creates})"
    )
    parser.add_argument(
        "--search-seconds", type=float, metavar="S", help=f"of each load ({defaults.search_seconds:g})"
    )
    return parser


def _given(options: argparse.Namespace, *names: str) -> dict[str, object]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _chosen(options: argparse.Namespace) -> list[str]:
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    return [
        name
        for name in BENCHMARKS
        if name in options.names
        or (not options.names and name not in ASKED_FOR)
        or (name == LARGE and options.large)
    ]


if __name__ == "__main__":
    sys.exit(main())
