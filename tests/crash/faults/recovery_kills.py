"""SIGKILL in the midst of a start, and again in the midst of the next one, then a start for real.

The volume is one that a server left which was killed in the midst of a round. All starts are real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.crash.faults.control import CHANGES, Action, Fault
from tests.crash.faults.kill_points import KillPoint
from tests.crash.faults.library import missing
from tests.crash.faults.lives import Lives, lives
from tests.crash.faults.measure import measure
from tests.crash.prove.part import Finding, Outcome, Part

GOALS = {"smoke": 4, "ci": 60, "night": 1000}
BATCH_VOLUMES = {"smoke": 1, "ci": 4, "night": 8}
"""Crashed rounds of one batch."""
NESTED = 2
"""Starts that are killed, one after the other."""


@dataclass(frozen=True)
class Crash:
    """Where the round is killed, and at which share of its calls each start."""

    point: KillPoint
    starts: tuple[int, ...]
    """Thousandths of the calls that the last start made which nothing befell."""

    def __str__(self) -> str:
        return f"{self.point}/" + "/".join(str(start) for start in self.starts)

    @classmethod
    def parse(cls, text: str) -> Crash:
        """The inverse of str."""
        point, *starts = text.split("/")
        return cls(KillPoint.parse(point), tuple(int(start) for start in starts))


@dataclass(frozen=True)
class RecoveryKills:
    """Crashed rounds on one volume, each with its killed starts."""

    seed: int
    crashes: tuple[Crash, ...]

    @classmethod
    def parse(cls, text: str) -> RecoveryKills:
        """Read the `repeat` text of a finding."""
        seed, *crashes = text.split()
        return cls(int(seed), tuple(Crash.parse(crash) for crash in crashes))

    def run(self, folder: Path) -> Outcome:
        """Stops at the first start that finds something wrong."""
        outcome = Outcome()
        with lives(folder, self.seed) as life:
            for number, crash in enumerate(self.crashes, start=1):
                if problems := _crash(life, crash, outcome):
                    lived = " ".join(str(crash) for crash in self.crashes[:number])
                    what = f"starts killed at {life.victims_told()}: {'; '.join(problems[:3])}"
                    outcome.findings.append(Finding(what, f"{self.seed} {lived}"))
                    break
        return outcome


def _crash(life: Lives, crash: Crash, outcome: Outcome) -> list[str]:
    """A round, the starts after it, and what is wrong with what the last one serves."""
    changes = life.start_changes
    life.round_until_killed(crash.point.fault)
    for depth, thousandths in enumerate(crash.starts, start=1):
        action = Action.KILL_TORN if thousandths % 2 else Action.KILL_BEFORE
        if life.start_until_killed(Fault(action, 1 + changes * thousandths // 1000)):
            outcome.cases += 1
            outcome.facts[f"killed in start {depth}"] += 1
        else:
            outcome.facts["the start was done before"] += 1
    life.begin_again()
    return life.problems()


def _batches(depth: str, seed: int) -> Iterator[RecoveryKills]:
    """Endless: kill points by chance, and starts killed by chance."""
    rng = np.random.default_rng([seed, 1])
    changes = sum(counted.call.kind in CHANGES for counted in measure(seed))
    while True:
        crashes = []
        for _ in range(BATCH_VOLUMES[depth]):
            point = KillPoint(int(rng.integers(1, changes + 1)), torn=False)
            crashes.append(Crash(point, tuple(rng.integers(1000, size=NESTED).tolist())))
        yield RecoveryKills(seed, tuple(crashes))


RECOVERY_KILLS = Part(
    name="recovery-kills",
    unit="crashes during recovery",
    goals=GOALS,
    batches=_batches,
    again=RecoveryKills.parse,
    case_seconds=0.4,
    missing=missing,
)
