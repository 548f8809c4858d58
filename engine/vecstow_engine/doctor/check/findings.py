"""The findings of a check, bounded, and the inquiry that collects those of one collection."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

from vecstow_engine.doctor.check.advice import LATER_RELEASE, NextStep, NextSteps, Remedies
from vecstow_engine.model.errors import DamagedFile, NewerFormat, StorageError
from vecstow_engine.storage.layout import Layout

FINDINGS_PER_FILE_MAX: Final = 1_000
"""More findings of one file are counted, not kept."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Gets a collection's name (of a repair `<name>: <task>`), how much is done, and of how much."""


def no_progress(label: str, done: int, total: int) -> None:
    """Report nothing."""


class Severity(StrEnum):
    """The severity of a finding."""

    ERROR = "error"
    """Stored data is not served, or not as it was."""
    WARNING = "warning"
    """All served data is right, but a person should look."""
    INFO = "info"
    """Normal."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it could be."""

    severity: Severity
    collection: str | None
    """None: the finding belongs to no collection."""
    file: str
    """Relative to the data directory."""
    offset: int | None
    """The byte in the file, where it is known."""
    message: str
    next_steps: NextSteps = ()
    """The next steps, in order."""

    @property
    def next_command(self) -> str | None:
        """The first step that can be typed."""
        return next((step.command for step in self.next_steps if step.command is not None), None)

    def document(self) -> dict[str, object]:
        """The finding as a JSON-ready mapping, with `next_command`."""
        return dataclasses.asdict(self) | {"next_command": self.next_command}


@dataclass(slots=True)
class CheckReport:
    """Findings in the order of reading, and what is known of each collection."""

    findings: list[Finding] = field(default_factory=list)
    collections: dict[str, dict[str, object]] = field(default_factory=dict)
    """By name: `state` (what a start makes of it), shape, points, log, index."""
    _counts: Counter[Severity] = field(default_factory=Counter)
    _files: Counter[str] = field(default_factory=Counter)
    _kept: set[Finding] = field(default_factory=set)

    def add(self, finding: Finding) -> None:
        """Keep a new finding, or count it when its file has too many already."""
        if finding in self._kept:
            return
        self._counts[finding.severity] += 1
        self._files[finding.file] += 1
        if self._files[finding.file] <= FINDINGS_PER_FILE_MAX:
            self.findings.append(finding)
            self._kept.add(finding)

    @property
    def errors(self) -> int:
        """The number of errors."""
        return self._counts[Severity.ERROR]

    @property
    def clean(self) -> bool:
        """Whether no error was found."""
        return self.errors == 0

    def document(self) -> dict[str, object]:
        """The report as a JSON-ready mapping; the counts include the omitted findings."""
        over = {file: count - FINDINGS_PER_FILE_MAX for file, count in self._files.items()}
        return {
            "clean": self.clean,
            "errors": self.errors,
            "warnings": self._counts[Severity.WARNING],
            "infos": self._counts[Severity.INFO],
            "findings": [finding.document() for finding in self.findings],
            "omitted": {file: count for file, count in over.items() if count > 0},
            "collections": self.collections,
        }


Steps: TypeAlias = NextSteps | None
"""The next steps of a finding; None: those that mend an error."""


class StartOutcome(StrEnum):
    """The state that a start of the engine gives to a collection."""

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
    """Collects the findings of one collection, and the outcome of a start with them."""

    remedies: Remedies
    report: CheckReport
    progress: Callable[[int, int], None] = lambda done, total: None
    """Gets how many points are read, and of how many."""
    is_rival: bool = False
    """Whether another folder claims the same uid."""
    serving: bool = False
    """Whether writes go on: the newest log segment may end in a record that is not complete yet."""
    outcome: StartOutcome = StartOutcome.READY

    @property
    def layout(self) -> Layout:
        """The volume."""
        return self.remedies.layout

    @property
    def name(self) -> str:
        """The name of the collection's folder."""
        return self.remedies.name

    @property
    def folder(self) -> Path:
        """The collection's folder."""
        return self.layout.collection(self.name)

    @property
    def facts(self) -> dict[str, object]:
        """The report's facts of the collection."""
        return self.report.collections.setdefault(self.name, {})

    def add(
        self, severity: Severity, path: Path, message: str, *, offset: int | None = None, steps: Steps = None
    ) -> None:
        """Report one finding about a file. Without `steps` an error is mended by a repair or restore."""
        if steps is None:
            steps = self.remedies.mend if severity is Severity.ERROR else ()
        file = os.path.relpath(path, self.layout.data)
        self.report.add(Finding(severity, self.name, file, offset, message, steps))

    def withhold(self, path: Path, message: str, *, offset: int | None = None, steps: Steps = None) -> None:
        """Report a point that cannot be served; the others can."""
        if self.outcome is StartOutcome.READY:
            self.outcome = StartOutcome.DEGRADED
        self.add(Severity.ERROR, path, message, offset=offset, steps=steps)

    def quarantine(self, path: Path, message: str, *, offset: int | None = None, steps: Steps = None) -> None:
        """Report damage that keeps the whole collection from being served."""
        if self.outcome in (StartOutcome.READY, StartOutcome.EMPTY, StartOutcome.DEGRADED):
            self.outcome = StartOutcome.QUARANTINED
        self.add(Severity.ERROR, path, message, offset=offset, steps=steps)

    @contextmanager
    def reading(self, path: Path, advise: Callable[[], Steps] = lambda: None) -> Iterator[None]:
        """Report an error of a reader, which ends the block, as a finding about the damaged file or `path`.

        `advise` returns the next steps when there is a finding.
        """
        try:
            yield
        except DamagedFile as error:
            # A private copy of a file stands for the file.
            is_on_volume = Path(error.file).is_relative_to(self.layout.data)
            file = Path(error.file) if is_on_volume else path
            self.quarantine(file, error.reason, offset=error.offset, steps=advise())
        except NewerFormat as error:
            message = f"it {error.message.removeprefix(f'{path} ')}"
            self.quarantine(path, message, steps=(NextStep(LATER_RELEASE),))
        except StorageError as error:
            self.quarantine(path, error.message.removeprefix(f"{path}: "), steps=advise())
        except OSError as error:
            self.quarantine(path, f"it cannot be read: {error}", steps=advise())
