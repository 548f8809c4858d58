"""Batches of damaged files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.damage.cases import make_case
from tests.crash.damage.child import run_apart
from tests.crash.damage.volume import whole_volume
from tests.crash.prove.part import Finding, Outcome, Part

CASES = 20
TOLD_MAX = 5


@dataclass(frozen=True)
class Damage:
    """Cases `first` to `first + count - 1` of a seed. `only`: of files whose name has this in it."""

    seed: int
    first: int
    count: int = CASES
    only: str = ""

    def run(self, folder: Path) -> Outcome:
        volume, outcome = whole_volume(), Outcome()
        for number in range(self.first, self.first + self.count):
            case = make_case(volume, self.seed, number, self.only)
            verdict = run_apart(volume, case, folder / str(number))
            outcome.cases += 1
            outcome.facts[verdict.ending] += 1
            if verdict.repair is not None:
                outcome.facts[verdict.repair] += 1
            if verdict.wrong:
                what = f"{case}: " + "\n      ".join(verdict.wrong[:TOLD_MAX])
                outcome.findings.append(Finding(what, f"{self.seed} {number} 1 {self.only}".strip()))
        return outcome


def batches(depth: str, seed: int) -> Iterator[Damage]:
    """Endless."""
    first = 0
    while True:
        yield Damage(seed, first)
        first += CASES


def again(text: str) -> Damage:
    """SEED FIRST COUNT [PART OF A FILE'S NAME]"""
    seed, first, count, *only = text.split()
    return Damage(int(seed), int(first), int(count), *only)


PARTS = (
    Part(
        "damage",
        "damaged files",
        {"smoke": 30, "ci": 300, "night": 10_000},
        batches,
        again,
        case_seconds=0.05,
    ),
)
