"""Batches of examples."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, Phase, Verbosity, reporting, seed, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from tests.crash.model.engine import EngineMachine
from tests.crash.model.world import FLAT_ROWS_MAX
from tests.crash.prove.part import Finding, Outcome, Part
from vecstow_engine.index.vector_index import VectorIndex

EXAMPLES = 20
STEPS = 25
STEP_SECONDS_MAX = 90
"""An end for what hangs. A whole example takes longer on a machine with other work to do."""


@dataclass(frozen=True)
class Examples:
    """The examples that a seed gives; `shrinks` looks for the shortest that fails."""

    seed: int
    count: int = EXAMPLES
    shrinks: bool = False

    def run(self, folder: Path) -> Outcome:
        """One machine after the other; the first that fails ends it."""
        ran: list[EngineMachine] = []

        @seed(self.seed)
        class Machine(EngineMachine):
            def __init__(self) -> None:
                signal.alarm(STEP_SECONDS_MAX)
                super().__init__(folder)
                ran.append(self)

            @invariant()
            def tells_what_a_dictionary_would(self) -> None:
                signal.alarm(STEP_SECONDS_MAX)
                super().tells_what_a_dictionary_would()

        failed = None
        with (
            mock.patch.dict(VectorIndex.__init__.__kwdefaults__, flat_rows_max=FLAT_ROWS_MAX),
            reporting.with_reporter(lambda told: None),
        ):
            before = signal.signal(signal.SIGALRM, _hangs)
            try:
                run_state_machine_as_test(Machine, settings=self._settings())
            except Exception as error:  # noqa: BLE001 - an engine may raise anything
                failed = error
            finally:
                signal.alarm(0)
                signal.signal(signal.SIGALRM, before)
        outcome = Outcome(len(ran))
        for machine in ran:
            outcome.facts.update(machine.site.did)
        if failed is not None:
            outcome.findings.append(
                Finding(f"{_where(failed)}\nafter{_story(failed)}", f"{self.seed} {self.count} shrink")
            )
        return outcome

    def _settings(self) -> settings:
        return settings(
            max_examples=self.count, stateful_step_count=STEPS, deadline=None, database=None,
            phases=[Phase.generate, Phase.shrink] if self.shrinks else [Phase.generate],
            suppress_health_check=list(HealthCheck), verbosity=Verbosity.normal, print_blob=False,
        )  # fmt: skip


class Hangs(Exception):
    """Raised wherever the step is; no OSError, which an engine would take for the disk's."""


def _hangs(number: int, frame: object) -> None:
    raise Hangs(f"a step is not over after {STEP_SECONDS_MAX} s")


def _where(failed: BaseException) -> str:
    """The last line that was run, and what it said."""
    while isinstance(failed, BaseExceptionGroup):  # it failed in two ways
        failed = failed.exceptions[0]
    last = traceback.extract_tb(failed.__traceback__)[-1]
    return f"{last.name}: {last.line}: {failed!r}"


def _story(failed: BaseException) -> str:
    """The steps as Hypothesis notes them, without the questions between them."""
    lines = [line for note in getattr(failed, "__notes__", ()) for line in note.splitlines()]
    return "".join(
        f"\n      {line}" for line in lines if line.startswith("state.") and "tells_what" not in line
    )


def batches(depth: str, seed: int) -> Iterator[Examples]:
    """Endless."""
    number = 0
    while True:
        yield Examples(seed * 1_000_000 + number, 5 if depth == "smoke" else EXAMPLES)
        number += 1


def again(text: str) -> Examples:
    """SEED COUNT [shrink]"""
    number, count, *shrinks = text.split()
    return Examples(int(number), int(count), bool(shrinks))


PARTS = (
    Part(
        "model",
        "stateful examples",
        {"smoke": 5, "ci": 200, "night": 5_000},
        batches,
        again,
        case_seconds=0.15,
    ),
)
