"""The judge of a volume's aliases: they are right, or unknown with the file's name, and never others."""

from __future__ import annotations

from pathlib import Path

from tests.crash.damage.cases import Case
from tests.crash.damage.volume import Volume
from tests.unit.running_engine import RunningEngine
from vecstow_engine.doctor.check import CheckReport, Severity
from vecstow_engine.model.aliases import AliasTable
from vecstow_engine.model.errors import Quarantined
from vecstow_engine.storage.aliases import parse_aliases
from vecstow_engine.storage.layout import ALIASES


def judge_aliases(
    engine: RunningEngine, volume: Volume, case: Case, report: CheckReport
) -> tuple[str, list[str]]:
    """Return how the aliases ended, and what is wrong with that."""
    errors = [f for f in report.findings if f.file == ALIASES and f.severity is Severity.ERROR]
    try:
        found = AliasTable({alias.name: alias for alias in engine.aliases.listed()})
    except Quarantined as error:
        wrong = [] if case.label == ALIASES else [f"the aliases suffer too: {error.message}"]
        wrong += [] if ALIASES in error.message else [f"no file is named: {error.message}"]
        wrong += [] if errors else ["the check finds no error, and a start knows no alias"]
        return "aliases unknown", wrong
    wrong = [f"the check finds an error, and every alias is served: {errors[0]}"] if errors else []
    if found not in _allowed(volume, case):
        wrong.append(f"the aliases are {found}, as they never were")
    return "right", wrong


def _allowed(volume: Volume, case: Case) -> list[AliasTable]:
    """The aliases as they were last. Nothing distinguishes a file that is gone, or as it was once."""
    allowed = [_table(volume.files[ALIASES])]
    if case.label == ALIASES and case.content is None:
        allowed.append(AliasTable())
    if case.label == ALIASES and case.kind.startswith("older"):
        allowed += map(_table, volume.older[ALIASES])
    return allowed


def _table(raw: bytes) -> AliasTable:
    return parse_aliases(raw, Path(ALIASES))
