"""One collection under check: where it lies, and where its findings go."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from vecstow_engine.doctor.check import advice
from vecstow_engine.doctor.check.findings import CheckReport, Finding, NextStep, NextSteps, Severity
from vecstow_engine.model.errors import DamagedFile, NewerFormat, StorageError
from vecstow_engine.storage.layout import Layout

Advice: TypeAlias = NextSteps | Callable[[], NextSteps]
"""A callable is asked when there is a finding: looking for a sound backup reads all of it."""


class StartOutcome(StrEnum):
    """The state that a start of the engine gives a collection."""

    READY = "ready"
    EMPTY = "empty"
    """Ready; it never held data."""
    DEGRADED = "degraded"
    """It serves, without the points that fail their checks."""
    QUARANTINED = "quarantined"
    FOREIGN = "foreign"
    DROPPED = "dropped"
    """It is moved to `.deleted/`."""
    UNDECLARED = "undeclared"
    """It has no readable manifest, so it is no collection."""


@dataclass(slots=True)
class Inquiry:
    """Collects the findings of one collection, and what they mean for it."""

    layout: Layout
    name: str
    report: CheckReport
    is_sound: Callable[[Layout, str], bool]
    """Whether the collection of that name checks out on a volume, or in a backup, which has the same form."""
    served: bool = False
    """An engine has the volume: what is done to its files has no effect before the next start."""
    outcome: StartOutcome = StartOutcome.READY
    _mend: NextSteps | None = field(default=None, init=False)

    @property
    def folder(self) -> Path:
        """The collection's folder."""
        return self.layout.collection(self.name)

    @property
    def facts(self) -> dict[str, object]:
        """Facts of the collection that are reported next to its findings."""
        return self.report.collections.setdefault(self.name, {})

    def add(
        self,
        severity: Severity,
        path: Path,
        message: str,
        *,
        offset: int | None = None,
        next_steps: Advice = (),
    ) -> None:
        """Report one finding about a file of this collection."""
        file = os.path.relpath(path, self.layout.data)
        steps = next_steps() if callable(next_steps) else next_steps
        self.report.add(Finding(severity, self.name, file, offset, message, steps))

    def mend(self) -> NextSteps:
        """Repair, which keeps the newest writes too; what that cannot save may be in a backup or a copy."""
        if self._mend is None:
            restored = advice.restore(self.layout, self.name, self.is_sound, served=self.served)
            self._mend = *self.repair(), *advice.alternative(restored)
        return self._mend

    def repair(self) -> NextSteps:
        """Repair alone, where nothing of the data is lost."""
        return (advice.repair(self.layout, self.name, served=self.served),)

    def insert_again(self, point_id: str) -> NextSteps:
        """Replace one point whose stored vector or payload is damaged."""
        return advice.insert_again(self.name, point_id, self.mend(), served=self.served)

    def at_rest(self, step: NextStep) -> NextSteps:
        """A step that changes the files of the volume."""
        return advice.at_rest(step, served=self.served)

    def withhold(self, path: Path, message: str, *, offset: int | None = None, next_steps: Advice) -> None:
        """Report a point that cannot be served; the others can."""
        if self.outcome is StartOutcome.READY:
            self.outcome = StartOutcome.DEGRADED
        self.add(Severity.ERROR, path, message, offset=offset, next_steps=next_steps)

    def quarantine(
        self, path: Path, message: str, *, offset: int | None = None, next_steps: Advice = ()
    ) -> None:
        """Report what keeps the whole collection from being served."""
        if self.outcome in (StartOutcome.READY, StartOutcome.EMPTY, StartOutcome.DEGRADED):
            self.outcome = StartOutcome.QUARANTINED
        self.add(Severity.ERROR, path, message, offset=offset, next_steps=next_steps)

    def reading(self, path: Path, next_steps: Advice) -> ErrorsAsFindings:
        """Quarantine for what a reader raises inside; nothing more of the block is done then."""
        return ErrorsAsFindings(self, path, next_steps)


class ErrorsAsFindings:
    """Turns the errors of a reader into findings: about the file that a DamagedFile names, or `path`."""

    def __init__(self, inquiry: Inquiry, path: Path, next_steps: Advice) -> None:
        self._inquiry = inquiry
        self._path = path
        self._next_steps = next_steps

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, DamagedFile):
            self._quarantine(self._file_of(error), error.reason, error.offset)
        elif isinstance(error, NewerFormat):
            message = error.message.removeprefix(f"{self._path} ")
            later = (NextStep(advice.LATER_RELEASE),)
            self._inquiry.quarantine(self._path, f"it {message}", next_steps=later)
        elif isinstance(error, StorageError):
            self._quarantine(self._path, error.message.removeprefix(f"{self._path}: "))
        elif isinstance(error, OSError):
            self._quarantine(self._path, f"it cannot be read: {error}")
        else:
            return False
        return True

    def _quarantine(self, path: Path, message: str, offset: int | None = None) -> None:
        self._inquiry.quarantine(path, message, offset=offset, next_steps=self._next_steps)

    def _file_of(self, error: DamagedFile) -> Path:
        """A private copy of a file stands for the file."""
        file = Path(error.file)
        return file if file.is_relative_to(self._inquiry.layout.data) else self._path
