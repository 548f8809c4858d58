"""The part "power-loss": states of the disk at moments of a recorded life of the real server."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.power import recovery_part, trace
from tests.crash.power.cases import Case, KeptCase
from tests.crash.power.moments import chosen, moments
from tests.crash.power.recording import recording
from tests.crash.power.states import Chooser
from tests.crash.power.told import Told
from tests.crash.power.witness import witnessed
from tests.crash.prove.part import Finding, Outcome, Part

MOMENTS = 50
STATES_OF_A_MOMENT = 4
BATCHES_OF_A_RECORD = 4
OPERATIONS = {"smoke": 16, "ci": 40, "night": 80}
"""Operations of each of three clients, in each of three processes."""
THOROUGH_EVERY = 8
"""One state in this many is also read without its log, and checked as a whole after its recovery."""


@dataclass(frozen=True)
class PowerLosses:
    """Some states of one record."""

    seed: int
    number: int
    operations: int
    fails: bool
    moments: int = MOMENTS

    def run(self, folder: Path) -> Outcome:
        record = recording(self.seed, self.operations, self.fails)
        chance = random.Random(f"{self.seed} {self.number}")
        outcome = Outcome()
        if hidden := record.mapped():
            outcome.findings.append(Finding(f"written through a mapping: {sorted(hidden)}", str(self)))
        for moment in moments(record.events, chosen(record.positions(), record.events, self.moments, chance)):
            told = Told(record.ledgers, record.answered(moment.position))
            for _ in range(STATES_OF_A_MOMENT):
                state = Chooser(moment.disk, chance).state()
                outcome.facts.update(witnessed(state, moment))
                case = Case(state, told, f"record {self.seed}, after {moment}")
                case.judge(folder, outcome, thorough=len(outcome.digests) % THOROUGH_EVERY == 0)
        return outcome


def batches(depth: str, seed: int) -> Iterator[PowerLosses]:
    """Every third record has a sync that fails; that of seed 2 comes first."""
    moments_of_a_batch = 8 if depth == "smoke" else MOMENTS
    for number in itertools.count():
        record = number // (2 if depth == "smoke" else BATCHES_OF_A_RECORD)
        yield PowerLosses(
            seed * 1000 + record, number, OPERATIONS[depth], (seed + record) % 3 == 2, moments_of_a_batch
        )


PARTS = [
    Part(
        name="power-loss",
        unit="distinct power-loss states",
        goals={"smoke": 60, "ci": 2_000, "night": 100_000},
        batches=batches,
        again=KeptCase,
        case_seconds=0.03,
        missing=trace.missing,
    ),
    recovery_part.PART,
]
