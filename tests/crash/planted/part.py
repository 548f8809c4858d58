"""The gate: the proof must find what is planted, or it proves nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.planted.child import Ended, prove
from tests.crash.planted.patches import FOLDER, PlantedBug, plant, planted_bugs, read_bug
from tests.crash.prove.part import Finding, Outcome, Part

HARNESS_FAILED = "the batch ended with"
"""How a finding begins that is the harness's own exception: it catches nothing."""
TOLD_CHARACTERS = 2000


@dataclass(frozen=True)
class Planted:
    """One bug, and the part that must find it."""

    name: str

    def run(self, folder: Path) -> Outcome:
        bug = read_bug(FOLDER / f"{self.name}.patch")
        ended = prove(plant(bug, folder), bug.says, "--only", bug.part, *bug.arguments)
        if (why := not_caught(bug, ended)) is not None:
            return Outcome(0, findings=[Finding(f"planted bug {bug.name}: {why}", bug.name)])
        return Outcome(1, facts=Counter({f"by {bug.part}": 1}))


def not_caught(bug: PlantedBug, ended: Ended) -> str | None:
    """Why a run does not count as having caught the bug by name; None: it does."""
    if ended.code != 1 or not ended.findings:
        return f"not caught; {bug.part} ended with {ended.code}:\n{ended.said[-TOLD_CHARACTERS:]}"
    findings = [what for what in ended.findings if not what.startswith(HARNESS_FAILED)]
    if not any(re.search(bug.says, what) for what in findings):
        return f"caught, but not by name: no finding says {bug.says!r}:\n" + "\n".join(ended.findings)
    return None


def batches(depth: str, seed: int) -> Iterator[Planted]:
    """Each bug once; the patches say with which seed."""
    bugs = planted_bugs()
    for bug in bugs[:1] if depth == "smoke" else bugs:
        yield Planted(bug.name)


PARTS = [
    Part(
        name="planted-bugs",
        unit="planted bugs caught",
        goals={"smoke": 1, "ci": len(planted_bugs()), "night": len(planted_bugs())},
        batches=batches,
        again=Planted,
        case_seconds=15.0,
    )
]
