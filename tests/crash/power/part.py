"""The part "power-loss": states of the disk at moments of a recorded life of the real server."""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.power import trace
from tests.crash.power.moments import Moment, moments
from tests.crash.power.proof import Told, judge
from tests.crash.power.recording import Recording, load, recording
from tests.crash.power.states import Chooser, State
from tests.crash.power.witness import witnessed
from tests.crash.prove.part import Finding, Outcome, Part

MOMENTS = 50
STATES_OF_A_MOMENT = 4
BATCHES_OF_A_RECORD = 10
OPERATIONS = {"smoke": 16, "ci": 80, "night": 100}
"""Of each of three clients, in each of three processes."""
WITHOUT_LOG_EVERY = 5
"""Of so many states one is also looked at without its log."""


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
        positions = record.positions()
        chosen = sorted(set(chance.choices(positions, record.weights(positions), k=self.moments)))
        outcome = Outcome()
        if hidden := record.mapped():
            outcome.findings.append(
                Finding(f"written through a mapping: {sorted(hidden)}", f"{record.keep()}")
            )
        for moment in moments(record.events, chosen):
            for seed in range(STATES_OF_A_MOMENT):
                _try(record, moment, self.number * 100 + seed, folder, outcome)
        return outcome


@dataclass(frozen=True)
class OneState:
    """A state of a kept record, again."""

    text: str

    def run(self, folder: Path) -> Outcome:
        path, position, seed = self.text.split()
        record = load(Path(path))
        [moment] = moments(record.events, [int(position)])
        outcome = Outcome()
        _try(record, moment, int(seed), folder, outcome)
        return outcome


def _try(record: Recording, moment: Moment, seed: int, folder: Path, outcome: Outcome) -> None:
    chance = random.Random(f"{record.seed} {moment.position} {seed}")
    state = Chooser(moment.disk, chance).state()
    told = Told(record.ledgers, record.answered(moment.position))
    digest = state.digest(sorted(told.answered.items()))
    outcome.cases += 1
    if digest in outcome.digests:
        return
    outcome.digests.add(digest)
    data = folder / "data"
    state.write(data)
    outcome.facts.update(witnessed(data, moment))
    verdict = judge(data, told, without_log=len(outcome.digests) % WITHOUT_LOG_EVERY == 0)
    shutil.rmtree(data)
    outcome.facts.update(Counter({f"by {state.strategy}": 1}) + verdict.facts)
    for wrong in verdict.wrong:
        repeat = f"{record.keep()} {moment.position} {seed}"
        outcome.findings.append(Finding(f"{wrong} ({_describe(state, moment)})", repeat))


def _describe(state: State, moment: Moment) -> str:
    return f"state {state.strategy!r} after {str(moment.last)[:150]}"


def batches(depth: str, seed: int) -> Iterator[PowerLosses]:
    """Every third record has a sync that fails."""
    moments_of_a_batch = 8 if depth == "smoke" else MOMENTS
    for number in itertools.count():
        record = number // (2 if depth == "smoke" else BATCHES_OF_A_RECORD)
        yield PowerLosses(
            seed * 1000 + record, number, OPERATIONS[depth], record % 3 == 2, moments_of_a_batch
        )


PARTS = [
    Part(
        name="power-loss",
        unit="distinct power-loss states",
        goals={"smoke": 60, "ci": 5_000, "night": 100_000},
        batches=batches,
        again=OneState,
        case_seconds=0.03,
        missing=trace.missing,
    )
]
