"""The part "recovery-power": the power goes while a loss of power is recovered from, and then once more."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.crash.power import trace
from tests.crash.power.cases import Case, KeptCase
from tests.crash.power.moments import chosen, moments, places_in
from tests.crash.power.recording import recording
from tests.crash.power.recoveries import RecordedRecovery, Recoverer, recoverer
from tests.crash.power.states import Chooser
from tests.crash.power.told import Told
from tests.crash.prove.part import Outcome, Part
from tests.crash.reading import recovered

FIRST_LOSSES = {"smoke": 2, "ci": 2, "night": 8}
"""States of a batch whose recoveries are recorded."""
MOMENTS = 6
"""Number of moments in each recovery."""
NESTED = 2
"""Number of states in a recovery whose recoveries are recorded too."""
BATCHES_OF_A_RECORD = 20
OPERATIONS = {"smoke": 16, "ci": 40, "night": 80}
IN_RECOVERY, IN_ITS_RECOVERY = "in a recovery", "in the recovery of an interrupted recovery"


@dataclass(frozen=True)
class RecoveryLosses:
    """Some losses of power, and what comes of losing it again."""

    seed: int
    number: int
    operations: int
    fails: bool
    losses: int

    def run(self, folder: Path) -> Outcome:
        record = recording(self.seed, self.operations, self.fails)
        chance = random.Random(f"{self.seed} {self.number} recovery")
        outcome = Outcome()
        with recoverer(folder) as process:
            session = _Session(process, folder, chance, outcome)
            places = chosen(record.positions(), record.events, self.losses, chance)
            for moment in moments(record.events, places):
                told = Told(record.ledgers, record.answered(moment.position))
                state = Chooser(moment.disk, chance).state()
                session.interrupt(Case(state, told, f"record {self.seed}, after {moment}"), NESTED)
        return outcome


@dataclass
class _Session:
    process: Recoverer
    folder: Path
    chance: random.Random
    outcome: Outcome

    def interrupt(self, case: Case, nested: int) -> None:
        """Lose the power at moments of the recovery of `case`; `nested` times go on with what that left."""
        data = self.folder / "recovered"
        recovery = self.process.record(case.state, data)
        shutil.rmtree(data)
        shown = self._shown(case)
        for place, after in enumerate(self._cases(case, recovery, shown)):
            self.outcome.facts[IN_RECOVERY if nested else IN_ITS_RECOVERY] += 1
            after.judge(self.folder, self.outcome, thorough=True)
            if place < nested:
                self.interrupt(after, 0)

    def _cases(self, case: Case, recovery: RecordedRecovery, shown: Told) -> Iterator[Case]:
        places = chosen(places_in(recovery.events), recovery.events, MOMENTS, self.chance)
        for moment in moments(recovery.events, places, recovery.disk(), recovery.cache()):
            told = shown if moment.position > recovery.opened else case.told
            state = Chooser(moment.disk, self.chance).state()
            yield Case(state, told, f"in the recovery after {moment}, {case.origin}")

    def _shown(self, case: Case) -> Told:
        """Return the content that an open engine shows. It must stay, as if the clients had read it."""
        data = self.folder / "shown"
        case.state.write(data)
        content = recovered(data).content
        shutil.rmtree(data)
        return replace(case.told, shown=content)


def batches(depth: str, seed: int) -> Iterator[RecoveryLosses]:
    """Every third record has a sync that fails."""
    for number in itertools.count():
        record = number // BATCHES_OF_A_RECORD
        yield RecoveryLosses(
            seed * 1000 + record, number, OPERATIONS[depth], (seed + record) % 3 == 2, FIRST_LOSSES[depth]
        )


PART = Part(
    name="recovery-power",
    unit="crashes during recovery",
    goals={"smoke": 12, "ci": 150, "night": 4_000},
    batches=batches,
    again=KeptCase,
    case_seconds=0.1,
    missing=trace.missing,
)
