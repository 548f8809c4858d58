"""One volume and the servers that live and die on it, one after the other, with the same clients."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.faults.control import CHANGES, Call, Control, Fault
from tests.crash.faults.faulty_engine import FaultyEngine
from tests.crash.faults.inspection import Inspection, inspect
from tests.crash.faults.workload import Workload
from tests.crash.faults.writer import Gone, Told
from tests.crash.rest import Refused
from tests.crash.without_log import lost_without_log
from vecstow_engine.doctor.check import Severity, check_volume

STOP = "stop"
"""The last step of a life that nothing ended before: SIGTERM, checkpoints, the graph's snapshot."""


class Lives:
    """Everything in `folder`. The first server runs, on a volume that holds what all rounds share."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.workload = Workload(seed, folder / "outside" / "orphan")
        self.engine = FaultyEngine(folder / "data", *self.workload.flags)
        self.workload.slow_syncs = self.control.slow_syncs
        self.victims: list[Call] = []
        """The calls at which servers died since the last one that began without a fault."""
        self.refused: list[Told] = []
        """The refusals that the clients got from the last server."""
        self.start_changes = 0
        """How many changes that one made to begin."""
        self.begin_again()
        self.workload.found()

    @property
    def control(self) -> Control:
        """The control of the faults."""
        return self.engine.control

    def begin_again(self) -> None:
        """A server without faults."""
        assert self.engine.begin(), f"it does not start again:\n{self.log_tail()}"
        self.start_changes = sum(call.kind in CHANGES for call in self.control.calls())
        self.workload.connect(self.engine.port)

    def end(self) -> None:
        """Kill what runs."""
        self.engine.kill()
        self.workload.disconnect()

    def tidy(self) -> None:
        """Bring the volume to where a round begins; nothing is counted yet."""
        self.workload.tidy(self.engine.data)
        for writer in self.workload.writers:
            writer.told.clear()
        self.control.forget()

    def round_until_killed(self, fault: Fault) -> str | None:
        """One round and an orderly end; the step in which the fault killed the server, or None."""
        self.tidy()
        self.victims.clear()
        self.control.arm(fault)
        for name, act in self.workload.steps():
            try:
                act()
            except Gone:
                self._bury()
                return name
        if self.engine.stop() == 0:
            return None
        self._bury()
        return STOP

    def start_until_killed(self, fault: Fault) -> bool:
        """A start that the fault kills; when it has made too few calls for that, it is killed when it serves,
        and this is False.
        """
        if self.engine.begin(fault):
            self.end()
            return False
        self._bury()
        return True

    def victims_told(self) -> str:
        """Where the servers died, in words."""
        return ", then ".join(f"{call.kind.name.lower()} {call.path}" for call in self.victims) or "its end"

    def inspection(self) -> Inspection:
        """Inspect the running server."""
        return inspect(self.workload, self.engine.port)

    def problems(self) -> list[str]:
        """List what is wrong on a server without faults: every collection must be ready, and right."""
        try:
            found = self.inspection()
        except Refused as refused:
            return [f"what is served cannot be read: {refused}"]
        ill = [f"{n} is {s}: {found.reasons[n]}" for n, s in found.states.items() if s != "ready"]
        return ill + found.problems(self.workload)

    def told(self) -> list[Told]:
        """The refusals of the last round."""
        return [told for writer in self.workload.writers for told in writer.told]

    def hidden_by_the_log(self) -> list[str]:
        """List what is wrong with the volume that a kill left, once its log is gone."""
        with self._copy() as copy:
            lost = lost_without_log(copy, [writer.ledger for writer in self.workload.writers])
        return [] if lost is None else [lost]

    def damage(self) -> list[str]:
        """List the errors that `vecstow check` finds on the volume that a kill left."""
        with self._copy() as copy:
            report = check_volume(copy)
        return [
            f"check finds {finding.file}: {finding.message}"
            for finding in report.findings
            if finding.severity is Severity.ERROR
        ]

    def _bury(self) -> None:
        self.engine.wait_gone()
        victim = self.control.victim
        assert victim is not None, f"it ended of itself:\n{self.log_tail()}"
        self.victims.append(victim)

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        copy = self.folder / "copy"
        shutil.copytree(self.engine.data, copy)
        try:
            yield copy
        finally:
            shutil.rmtree(copy)

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
