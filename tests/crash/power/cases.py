"""One volume that lost power, with what was known of it: judged, and kept when something is wrong."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.crash.power.proof import judge
from tests.crash.power.states import State
from tests.crash.power.told import Told
from tests.crash.prove.part import Finding, Outcome

KEPT = Path(tempfile.gettempdir()) / "vecstow-prove"
"""Where the cases of findings are put."""
TOLD_CHARACTERS = 400
KEPT_MAX = 10
"""Limit on the cases that one batch keeps."""


@dataclass(frozen=True)
class Case:
    """A state, and the answers that its clients had."""

    state: State
    told: Told
    origin: str
    """Where in which record."""

    @property
    def digest(self) -> bytes:
        """Equal for equal cases."""
        return self.state.digest(sorted(self.told.answered.items()))

    def keep(self) -> str:
        """Write it where it can be found again; returns the path."""
        KEPT.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("wb", prefix="case-", dir=KEPT, delete=False) as stream:
            pickle.dump(self, stream)
        return stream.name

    def judge(self, folder: Path, outcome: Outcome, *, thorough: bool) -> None:
        """Recover it in `folder`, and add to the outcome; a case that was tried before is counted only."""
        outcome.cases += 1
        digest = self.digest
        if digest in outcome.digests:
            return
        outcome.digests.add(digest)
        data = folder / "data"
        self.state.write(data)
        verdict = judge(data, self.told, thorough=thorough)
        shutil.rmtree(data)
        outcome.facts.update(Counter({f"by {self.state.strategy}": 1}) + verdict.facts)
        for wrong in verdict.wrong:
            repeat = self.keep() if len(outcome.findings) < KEPT_MAX else "not kept: there are many"
            what = f"{wrong[:TOLD_CHARACTERS]} (state {self.state.strategy!r}, {self.origin})"
            outcome.findings.append(Finding(what, repeat))


@dataclass(frozen=True)
class KeptCase:
    """The case of a finding, again."""

    path: str

    def run(self, folder: Path) -> Outcome:
        outcome = Outcome()
        with Path(self.path).open("rb") as stream:
            case: Case = pickle.load(stream)
        case.judge(folder, outcome, thorough=True)
        return outcome
