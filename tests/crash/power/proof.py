"""The proof on a volume that lost power: it is recovered, checked, recovered again, and compared."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash import reading
from tests.crash.ledger import check
from tests.crash.power.brought_back import not_brought_back
from tests.crash.power.states import tree_of
from tests.crash.power.told import Told
from tests.crash.reading import Recovery
from tests.crash.without_log import lost_without_log
from vecstow_engine.doctor.check import CheckReport, Severity, check_volume
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.storage.log.replay import read_log

BESIDE_POINTS = ("-shm", "-wal")
"""SQLite makes and removes these with each use."""
SEARCHES = 3
"""Number of searches in each collection."""


@dataclass
class Verdict:
    """The problems of a state, and how its recovery went."""

    wrong: list[str] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)


def judge(data: Path, told: Told, *, thorough: bool) -> Verdict:
    """Recover `data`, twice. `thorough`: what is there without the log is looked at too, and the result is
    checked as a whole.
    """
    verdict = Verdict()
    try:
        if thorough:
            copy = data.with_name(f"{data.name}-without-log")
            shutil.copytree(data, copy)
            if (lost := lost_without_log(copy, told.ledgers)) is not None:
                verdict.wrong.append(lost)
            shutil.rmtree(copy)
        verdict.wrong += _told_before(check_volume(data))
        first = reading.recovered(data, SEARCHES)
        verdict.wrong += wrong_with(first, told)
        verdict.facts.update(_facts(data, first))
        if not verdict.wrong:
            verdict.wrong += _changed_again(data, first, checked=thorough)
        if not verdict.wrong and thorough:
            verdict.wrong += not_brought_back(data, first, told)
    except VecstowError as error:
        verdict.wrong.append(f"the volume cannot be used: {error.message}")
    return verdict


def wrong_with(found: Recovery, told: Told) -> list[str]:
    """List what is wrong with one recovery."""
    wrong = list(found.wrong)
    for name, state in found.states.items():
        if state != "ready" or found.withheld.get(name):
            wrong.append(f"after a power loss {name} is {state}: {found.reasons[name]}")
    if found.broken:
        wrong.append(f"after a power loss the manifests of {found.broken} cannot be read")
    if (lost := check(found.content, told.ledgers, told.answered)) is not None:
        wrong.append(f"acknowledged, but not recovered, or the reverse: {lost}")
    elif told.shown not in (None, found.content):
        wrong.append("served before the loss of power, and not after it")
    return wrong


def _told_before(report: CheckReport) -> list[str]:
    """A torn tail is no error; whatever `vecstow check` calls one is a thing that no loss of power may do."""
    errors = [f for f in report.findings if f.severity is Severity.ERROR]
    return [f"after a power loss check says: {f.file} at {f.offset}: {f.message}" for f in errors]


def _changed_again(data: Path, first: Recovery, *, checked: bool) -> list[str]:
    """List what a second recovery of the result shows or writes in addition."""
    before = _what_matters(data)
    wrong = [f"after recovery {line}" for line in _told_before(check_volume(data))] if checked else []
    second = reading.recovered(data, searches=0)
    if (first.content, first.states) != (second.content, second.states):
        wrong.append(f"a second recovery shows {second.states}, or other points")
    after = _what_matters(data)
    changed = sorted(p for p in before.keys() | after.keys() if before.get(p, 0) != after.get(p, 0))
    if changed:
        wrong.append(f"a second recovery changes {changed}")
    return wrong


def _what_matters(data: Path) -> dict[str, object]:
    """Contents by path. Of a segment its records: each start writes again what no checkpoint has."""
    found: dict[str, object] = dict(tree_of(data, BESIDE_POINTS))
    for folder in (data / "wal").glob("*"):
        for segment in read_log(folder):
            records = [(r.sequence, r.previous, r.type, r.payload) for r in segment.records()]
            tail = segment.path.read_bytes()[segment.valid_bytes :]
            found[str(segment.path.relative_to(data))] = records, tail
    return found


def _facts(data: Path, found: Recovery) -> Counter[str]:
    """How a recovery went."""
    facts = Counter({"recovered": 1})
    if (data / ".quarantine").is_dir():
        facts["torn tail set aside"] += 1
    if found.deleted:
        facts["with dropped collections"] += 1
    return facts
