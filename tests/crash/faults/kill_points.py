"""SIGKILL at the N-th call of a round that changes the volume, then a start for real; again and again.

Each life of the server begins where the one before was killed. The server recovers. All points are read and
compared with the answers that the clients got. The volume returns to the state in which a round begins, and
the next kill is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.crash.faults.control import Action, Fault, Kind
from tests.crash.faults.library import missing
from tests.crash.faults.lives import Lives, lives
from tests.crash.faults.measure import measure
from tests.crash.prove.part import Finding, Outcome, Part

GOALS = {"smoke": 6, "ci": 200, "night": None}
BATCH_POINTS = {"smoke": 3, "ci": 12, "night": 24}
"""Lives on one volume."""
HIDDEN_EVERY = 3
"""After so many kill points it is also looked at what the volume has without its log."""


@dataclass(frozen=True)
class KillPoint:
    """Before the `nth` change of a round, or in the midst of it when it is a write."""

    nth: int
    torn: bool

    def __str__(self) -> str:
        return f"{self.nth}{'t' if self.torn else ''}"

    @classmethod
    def parse(cls, text: str) -> KillPoint:
        """The inverse of str."""
        return cls(int(text.removesuffix("t")), text.endswith("t"))

    @property
    def fault(self) -> Fault:
        """Return the fault to arm."""
        return Fault(Action.KILL_TORN if self.torn else Action.KILL_BEFORE, self.nth)


@dataclass(frozen=True)
class Kills:
    """Lives on one volume, and how each one ends."""

    seed: int
    points: tuple[KillPoint, ...]

    @classmethod
    def parse(cls, text: str) -> Kills:
        """Read the `repeat` text of a finding."""
        seed, *points = text.split()
        return cls(int(seed), tuple(KillPoint.parse(point) for point in points))

    def run(self, folder: Path) -> Outcome:
        """Stops at the first life after which something is wrong."""
        outcome = Outcome()
        with lives(folder, self.seed) as life:
            for number, point in enumerate(self.points, start=1):
                problems = _kill(life, point, outcome)
                if number == len(self.points):
                    life.end()
                    problems += life.damage()
                if problems:
                    outcome.findings.append(self._finding(number, life, problems))
                    break
        return outcome

    def _finding(self, number: int, life: Lives, problems: list[str]) -> Finding:
        lived = " ".join(str(point) for point in self.points[:number])
        what = f"killed at {life.victims_told()}: {'; '.join(problems[:3])}"
        return Finding(what, f"{self.seed} {lived}")


def _kill(life: Lives, point: KillPoint, outcome: Outcome) -> list[str]:
    """One life to its end, and what is wrong with what the next one finds."""
    step = life.round_until_killed(point.fault)
    if step is None:
        outcome.facts["the round ended before"] += 1
    else:
        outcome.cases += 1
        outcome.facts[f"killed in {step}"] += 1
    refused = [f"refused without a reason: {told}" for told in life.told()]
    hidden = life.hidden_by_the_log() if point.nth % HIDDEN_EVERY == 0 else []
    life.begin_again()
    return [*refused, *hidden, *life.problems()]


def _batches(depth: str, seed: int) -> Iterator[Kills]:
    """Every kill point of the workload; those that come first are spread evenly over it."""
    changes = [counted.call for counted in measure(seed) if counted.call.kind is not Kind.OPEN]
    every = [KillPoint(n, torn=False) for n in range(1, len(changes) + 1)]
    every += [KillPoint(n, torn=True) for n, call in enumerate(changes, start=1) if call.kind is Kind.WRITE]
    size = BATCH_POINTS[depth]
    points = _spread(every, GOALS[depth], seed)
    for start in range(0, len(points), size):
        yield Kills(seed, tuple(points[start : start + size]))


def _spread(every: list[KillPoint], goal: int | None, seed: int) -> list[KillPoint]:
    """All of them, in passes of about `goal` that lie evenly, each in an order of its own."""
    rng = np.random.default_rng(seed)
    stride = max(1, len(every) // (goal or len(every)))
    points: list[KillPoint] = []
    for offset in rng.permutation(stride).tolist():
        evenly = every[offset::stride]
        points += [evenly[place] for place in rng.permutation(len(evenly)).tolist()]
    return points


KILL_POINTS = Part(
    name="kill-points",
    unit="kill points",
    goals=GOALS,
    batches=_batches,
    again=Kills.parse,
    case_seconds=0.4,
    missing=missing,
)
