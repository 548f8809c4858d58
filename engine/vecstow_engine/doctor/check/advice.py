"""The next steps after a finding, in words and commands. Pure but for the search for a backup."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import chain, count
from typing import Final, TypeAlias
from urllib.parse import quote

from vecstow_engine.model.names import COLLECTION_NAME_CHARACTERS_MAX
from vecstow_engine.storage.layout import Layout

LATER_RELEASE: Final = "run the release that wrote it, or a later one"

BACKUPS_TRIED_MAX: Final = 3
"""The older ones of more backups are not read."""

_BACKUP_TIME = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z")


class Link(StrEnum):
    """The relation of a step to the step before it."""

    NEXT = "next"
    """The first step."""
    THEN = "then"
    OR = "or"
    """The step begins another way to the same end."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """One thing to do: in words, as one command to type, or both."""

    does: str | None = None
    command: str | None = None
    link: Link = Link.NEXT

    def __str__(self) -> str:
        return "  # ".join(filter(None, [self.command, self.does]))


NextSteps: TypeAlias = tuple[NextStep, ...]


@dataclass(frozen=True)
class Remedies:
    """The remedies for damage of one collection."""

    layout: Layout
    name: str
    is_sound: Callable[[Layout, str], bool] = lambda layout, name: False
    """Whether a collection passes its check; the layout is of a backup, which has the form of a volume."""
    served: bool = False
    """Whether an engine has the volume: a change of its files has no effect before the next start."""

    @cached_property
    def mend(self) -> NextSteps:
        """Repair, which keeps the newest writes too, or restore what a repair cannot save."""
        return *self.repair, *alternative(self.restore)

    @property
    def repair(self) -> NextSteps:
        """Print the plan of a repair; enough where no data is lost."""
        return (NextStep("print what a repair saves", f"{self._check} --repair --dry-run"),)

    @property
    def restore(self) -> NextSteps:
        """Restore the newest sound backup; without one, a copy of the volume."""
        if (backup := self.backup) is not None:
            return (backup,)
        copy = f"copy {self.name}/ and its log back from a copy of the volume"
        if self.served:
            copy = f"stop the engine, {copy}, and start the engine"
        if self._backups:
            copy = f"{copy}: the newest backups fail their checks, too"
        return NextStep(copy), NextStep(command=self._check, link=Link.THEN)

    @property
    def backup(self) -> NextStep | None:
        """Restore the newest sound backup under a free name; None when there is no sound backup."""
        for backup in self._backups[:BACKUPS_TRIED_MAX]:
            if self.is_sound(Layout(self.layout.backups / backup), self.name):
                time = _BACKUP_TIME.sub(r"\1-\2-\3T\4:\5:\6Z", backup.removeprefix(f"{self.name}-"))
                return NextStep(
                    f"restore the backup of {time}, which lacks later writes",
                    f"vecstow restore .backups/{backup}{self._where} --new-name {self._new_name}",
                )
        return None

    def insert_again(self, point_id: str) -> NextSteps:
        """Insert a point with a damaged vector or payload again. No engine takes it before a stopped volume
        is mended.
        """
        insert = f"insert the point again: PUT /collections/{self.name}/vectors/{quote(point_id, safe='')}"
        if self.served:
            return NextStep(insert), *alternative(self.mend)
        return *self.mend, NextStep(f"start the engine, and {insert}", link=Link.OR)

    def at_rest(self, step: NextStep) -> NextSteps:
        """Change files while no engine runs."""
        if not self.served:
            return (step,)
        changed = dataclasses.replace(step, link=Link.THEN)
        return NextStep("stop the engine"), changed, NextStep("start the engine", link=Link.THEN)

    @property
    def _check(self) -> str:
        return f"vecstow check {self.name}{self._where}"

    @property
    def _where(self) -> str:
        return "" if self.served else f" --data {shlex.quote(str(self.layout.data))}"

    @property
    def _backups(self) -> list[str]:
        """The names of the backups, newest first."""
        pattern = re.compile(re.escape(f"{self.name}-") + _BACKUP_TIME.pattern)
        if not self.layout.backups.is_dir():
            return []
        names = (path.name for path in self.layout.backups.iterdir())
        return sorted((name for name in names if pattern.fullmatch(name)), reverse=True)

    @property
    def _new_name(self) -> str:
        """A name that no folder of the volume has."""
        suffixes = chain(["-restored"], (f"-restored-{number}" for number in count(2)))
        names = (self.name[: COLLECTION_NAME_CHARACTERS_MAX - len(suffix)] + suffix for suffix in suffixes)
        return next(each for each in names if not self.layout.collection(each).exists())


def sentence(steps: NextSteps) -> str:
    """Return the steps in one line."""
    return "".join(str(step) if step.link is Link.NEXT else f", {step.link.value}: {step}" for step in steps)


def alternative(steps: NextSteps) -> NextSteps:
    """Return the steps as another way to the end of the steps before them."""
    return dataclasses.replace(steps[0], link=Link.OR), *steps[1:]


def set_aside(layout: Layout, path: str) -> NextStep:
    """Move a file or folder that nothing needs to `.quarantine/`."""
    quarantine = shlex.quote(str(layout.quarantine))
    command = f"mkdir -p {quarantine} && mv {shlex.quote(str(layout.data / path))} {quarantine}/"
    return NextStep(command=command)
