"""Counts of the calls in one round and an orderly end without a fault: the places for faults."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.crash.faults.control import Call
from tests.crash.faults.lives import STOP, lives
from tests.crash.prove.runner import MEMORY, silence


@dataclass(frozen=True)
class Counted:
    """One call of the round, and the step that it came in."""

    step: str
    call: Call


@functools.cache
def measure(seed: int) -> tuple[Counted, ...]:
    """The calls of a round in their order. Those of clients that write at once may come in another one."""
    silence()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, lives(Path(folder), seed) as life:
        life.tidy()
        for _, act in life.workload.steps():
            act()
        life.tidy()
        counted: list[Counted] = []
        for name, act in (*life.workload.steps(), (STOP, life.engine.stop)):
            first = life.control.total
            act()
            counted += [Counted(name, call) for call in life.control.calls(first)]
        assert not life.told(), life.told()
    return tuple(counted)
