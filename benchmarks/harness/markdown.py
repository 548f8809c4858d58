"""JSON files of earlier runs as tables for a page:

python -m benchmarks.harness.markdown FILES
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.harness.figures import spelt

HEADINGS: Final = ("figure", "median", "min to max", "reference", "ratio", "target", "")


def render(documents: Sequence[dict[str, Any]]) -> str:
    """The machine of each run, and one table per benchmark."""
    return "\n".join(line for document in documents for line in _lines(document))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    machine = document["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    yield (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"{machine['file_system']}, Python {machine['python']}, {versions}; "
        f"load by {machine['load_generator']}, load average before it {machine['load_average_at_start']}."
    )
    seen = ""
    for figure in document["figures"]:
        if figure["benchmark"] != seen:
            seen = figure["benchmark"]
            yield f"\n### {seen}\n\n| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}"
        yield f"| {' | '.join(_cells(figure))} |"
    yield ""


def _cells(figure: dict[str, Any]) -> list[str]:
    extremes = f"{spelt(figure['min'])} to {spelt(figure['max'])}" if len(figure["runs"]) > 1 else ""
    beside, ratio = figure.get("beside"), figure.get("ratio")
    target = figure.get("target")
    return [
        figure["figure"],
        f"{spelt(figure['median'])} {figure['unit']}".strip(),
        extremes,
        f"{beside['name']} {spelt(beside['median'])}" if beside else "",
        f"{ratio['median']:.3g}" if ratio else "",
        target["text"] if target else "",
        ("met" if target["met"] else "not met") if target else "",
    ]


if __name__ == "__main__":
    print(render([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))
