"""An error at the N-th call of a kind, once or from then on, while a real server does a round of everything.

The error must be named; nothing acknowledged may be lost and nothing refused may be there, at once and after
a restart; when the error has passed, every collection takes writes again, but for those that may not before
a restart: their sync failed. They must say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.crash.faults.aftermath import NEVER, Aftermath
from tests.crash.faults.faulty_engine import Hangs
from tests.crash.faults.injections import Injection, every
from tests.crash.faults.library import missing
from tests.crash.faults.lives import Lives, lives
from tests.crash.faults.measure import measure
from tests.crash.faults.writer import Gone
from tests.crash.prove.part import Finding, Outcome, Part
from tests.crash.rest import Refused

GOALS = {"smoke": 6, "ci": 120, "night": None}
BATCH_INJECTIONS = {"smoke": 3, "ci": 8, "night": 16}


@dataclass(frozen=True)
class Errors:
    """Injections on one volume, each into a server of its own."""

    seed: int
    injections: tuple[Injection, ...]

    @classmethod
    def parse(cls, text: str) -> Errors:
        """Read the `repeat` text of a finding."""
        seed, *injections = text.split()
        return cls(int(seed), tuple(Injection.parse(injection) for injection in injections))

    def run(self, folder: Path) -> Outcome:
        """Stops at the first injection after which something is wrong."""
        outcome = Outcome()
        with lives(folder, self.seed) as life:
            for number, injection in enumerate(self.injections, start=1):
                try:
                    problems = _inject(life, injection, outcome)
                except (Hangs, Gone, Refused) as error:
                    problems = [f"{type(error).__name__.lower()}: {error} {life.log_tail()}"]
                if problems:
                    outcome.findings.append(self._finding(number, life, problems))
                    break
        return outcome

    def _finding(self, number: int, life: Lives, problems: list[str]) -> Finding:
        lived = " ".join(str(injection) for injection in self.injections[:number])
        what = f"{self.injections[number - 1]} at {life.victims_told()}: {'; '.join(problems[:4])}"
        refused = "".join(f"\n      {told}" for told in life.refused[:6])
        return Finding(what + refused, f"{self.seed} {lived}")


def _inject(life: Lives, injection: Injection, outcome: Outcome) -> list[str]:
    """One server's life with one error in it, and what is wrong with what came of it."""
    life.tidy()
    life.control.arm(injection.fault)
    aftermath = Aftermath(life, injection)
    for _, act in life.workload.steps():
        act()
        aftermath.look()
        if life.control.fired and injection.is_the_last:
            break
    life.refused = life.told()
    problems = _see_it_through(life, injection, aftermath)
    outcome.facts[aftermath.kind] += 1
    outcome.cases += aftermath.kind is not NEVER
    life.begin_again()
    return problems + [f"after a restart, {problem}" for problem in life.problems()]


def _see_it_through(life: Lives, injection: Injection, aftermath: Aftermath) -> list[str]:
    """List what is wrong until the server ends."""
    if not life.control.fired:
        return aftermath.end()
    if injection.is_the_last:
        aftermath.kill()
        return []
    life.control.disarm()
    return aftermath.problems() + aftermath.end()


def _batches(depth: str, seed: int) -> Iterator[Errors]:
    """Every error at every call of a round, the different ones first."""
    injections = every([counted.call for counted in measure(seed)], seed)
    while batch := tuple(islice(injections, BATCH_INJECTIONS[depth])):
        yield Errors(seed, batch)


ERRORS = Part(
    name="errors",
    unit="injected errors",
    goals=GOALS,
    batches=_batches,
    again=Errors.parse,
    case_seconds=0.5,
    missing=missing,
)
