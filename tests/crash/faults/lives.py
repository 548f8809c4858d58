"""One volume and the servers that live and die on it, one after the other, with the same clients."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.faults.control import Call, Control, Fault
from tests.crash.faults.faulty_engine import FaultyEngine
from tests.crash.faults.inspection import Inspection, inspect
from tests.crash.faults.workload import Workload
from tests.crash.faults.writer import Gone
from tests.crash.rest import Refused
from vecstow_engine.storage.check import Severity, check_volume

STOP = "stop"
"""The last step of a life that nothing ended before: SIGTERM, checkpoints, the graph's snapshot."""


class Lives:
    """Everything in `folder`. The first server runs, on a volume that holds what all rounds share."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.workload = Workload(seed, folder / "outside" / "orphan")
        self.engine = FaultyEngine(folder / "data", *self.workload.flags)
        assert self.engine.begin()
        self.workload.connect(self.engine.port)
        self.workload.found()
        self.victim: Call | None = None
        """The call that befell the last life."""

    @property
    def control(self) -> Control:
        """Of the faults."""
        return self.engine.control

    def begin_again(self) -> None:
        """A server without faults."""
        self.victim = self.control.victim
        assert self.engine.begin(), f"it does not start again:\n{self.log_tail()}"
        self.workload.connect(self.engine.port)

    def end(self) -> None:
        """Kill what runs."""
        self.engine.kill()

    def tidy(self) -> None:
        """Bring the volume to where a round begins; nothing is counted yet."""
        self.workload.tidy(self.engine.data)
        for writer in self.workload.writers:
            writer.told.clear()
        self.control.forget()

    def round_until_killed(self, fault: Fault) -> str | None:
        """One round and an orderly end; the step in which the fault killed the server, or None."""
        self.tidy()
        self.control.arm(fault)
        for name, act in self.workload.steps():
            try:
                act()
            except Gone:
                self.engine.wait_gone()
                return name
        return STOP if self.engine.stop() < 0 else None

    def inspection(self) -> Inspection:
        """What the running server serves."""
        return inspect(self.workload, self.engine.port)

    def problems(self) -> list[str]:
        """What is wrong with what a server without faults serves: everything must be ready, and right."""
        try:
            found = self.inspection()
        except Refused as refused:
            return [f"what is served cannot be read: {refused}"]
        ill = [f"{n} is {s}: {found.reasons[n]}" for n, s in found.states.items() if s != "ready"]
        return ill + found.problems(self.workload)

    def damage(self) -> list[str]:
        """What `vecstow check` says of a copy of the volume, as the last kill left it."""
        copy = self.folder / "copy"
        shutil.copytree(self.engine.data, copy)
        report = check_volume(copy)
        shutil.rmtree(copy)
        return [f"{f.file}: {f.message}" for f in report.findings if f.severity is Severity.ERROR]

    def log_tail(self) -> str:
        """The server's last words."""
        return "\n".join(self.engine.log.read_text(errors="replace").splitlines()[-20:])


@contextmanager
def lives(folder: Path, seed: int) -> Iterator[Lives]:
    """Begun, and ended."""
    begun = Lives(folder, seed)
    try:
        yield begun
    finally:
        begun.end()
