"""The plan of a repair: steps, what is saved, and what is lost; made from what was observed.

`make_plan` is pure but for counting evidence, and the search for a backup.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from vecstow_engine.doctor.check.advice import LATER_RELEASE, Remedies, sentence
from vecstow_engine.doctor.repair.evidence import Loss
from vecstow_engine.doctor.repair.observation import Observation
from vecstow_engine.doctor.repair.salvage import Salvage
from vecstow_engine.storage.layout import INDEX, MANIFEST, POINTS, ROWS

RUNS_LISTED_MAX: Final = 5
"""A summary lists so many runs of lost log records."""
LOSSES_LISTED_MAX: Final = 1_000
"""A plan lists so many; the file in the quarantine folder has them all."""


@dataclass(frozen=True, slots=True)
class RepairStep:
    """One thing that repair does."""

    does: str
    because: str


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """The work on one collection. Nothing to do: no steps."""

    collection: str
    steps: tuple[RepairStep, ...] = ()
    kept: int = 0
    """Points that table and rows prove."""
    restored: int = 0
    """Points that only the log still has."""
    lost: int = 0
    """Points that cannot be saved, those without a known id among them."""
    lost_without_id: int = 0
    lost_rows: int = 0
    """Lost points without an id: rows that no point claims. Some may have been free; `lost` is a limit."""
    lost_records: int = 0
    """Log records that cannot be saved; a segment without any readable record counts as one."""
    losses: tuple[Loss, ...] = ()
    """The first of them: the lost records of the log, the rows that no point claims, the points."""
    warnings: tuple[str, ...] = ()
    impossible: str | None = None
    hint: str | None = None
    """Commands to type when nothing can be saved, or for what is lost."""

    @property
    def summary(self) -> str | None:
        """Return a phrase with what is kept and what is lost; None where no point is touched."""
        return ", ".join(_summary(self)) if self.kept or self.restored else None

    @property
    def needed(self) -> bool:
        """Whether there is something to do, be it impossible."""
        return bool(self.steps) or self.impossible is not None

    def document(self) -> dict[str, object]:
        """The plan as a JSON-ready mapping, without the collection's name."""
        document = dataclasses.asdict(self) | {"losses": [loss.document() for loss in self.losses]}
        del document["collection"]
        return {"steps": document.pop("steps"), "summary": self.summary} | document


def make_plan(found: Observation, remedies: Remedies, *, seeks: bool) -> RepairPlan:
    """Decide what a repair does with the collection.

    `seeks`: look for a backup of what a repair loses, too. A backup is read whole before it is named.
    """
    name = found.claims.name
    if found.impossible is not None:
        hint = found.hint  # A file of a later release needs that release alone.
        if hint != LATER_RELEASE:
            hint = ", or: ".join(filter(None, [hint, sentence(remedies.restore)]))
        return RepairPlan(name, warnings=found.reasons, impossible=found.impossible, hint=hint)
    if found.salvage is None:
        return RepairPlan(name, tuple(_manifest_step(found)), warnings=found.warnings)
    return _rebuilding(found, found.salvage, remedies, seeks=seeks)


def _rebuilding(found: Observation, salvage: Salvage, remedies: Remedies, *, seeks: bool) -> RepairPlan:
    name = found.claims.name
    kept, restored, named = salvage.evidence.counts()
    rows = sum(last - first + 1 for first, last in (loss.rows for loss in salvage.lost_rows if loss.rows))
    nameless = salvage.lost_without_id + rows
    records = sum(_count(*loss.records) for loss in salvage.lost_records if loss.records)
    lost = named + nameless
    if not kept and not restored and (lost or not salvage.is_whole):
        impossible = "nothing of it can be saved, and an empty collection in its place would hide the loss"
        hint = sentence(remedies.restore)
        return RepairPlan(name, warnings=found.reasons, impossible=impossible, hint=hint)
    backup = remedies.backup if seeks and (lost or records) else None
    return RepairPlan(
        name,
        tuple(_rebuild_steps(found, kept, restored)),
        kept,
        restored,
        lost,
        nameless,
        rows,
        records,
        losses=tuple(islice(salvage.losses(), LOSSES_LISTED_MAX)),
        warnings=(*found.warnings, *_warnings(found, salvage, rows)),
        hint=None if backup is None else str(backup),
    )


def _manifest_step(found: Observation) -> Iterator[RepairStep]:
    because = found.claims.manifest_fault or "; ".join(found.warnings)
    if found.manifest is not None and found.manifest != found.claims.manifest and because:
        yield RepairStep(f"set {MANIFEST} aside in .quarantine, and rebuild it from the headers", because)


def _rebuild_steps(found: Observation, kept: int, restored: int) -> Iterator[RepairStep]:
    sources = [f"{kept:,} from {POINTS} and {ROWS}"]
    if restored:
        sources.append(f"{restored:,} from the log")
    yield RepairStep("set the folder and its log aside in .quarantine, whole", "; ".join(found.reasons))
    yield RepairStep(
        f"build {ROWS} and {POINTS} again, with {_counted(kept + restored, 'point')}: {', '.join(sources)}",
        "these prove themselves by their checksums",
    )
    if found.claims.manifest_fault is not None:
        yield RepairStep(f"build {MANIFEST} again from the headers", found.claims.manifest_fault)
    yield RepairStep(f"leave {INDEX} out", "the engine builds it from the rows")


def _warnings(found: Observation, salvage: Salvage, rows: int) -> Iterator[str]:
    if salvage.table_is_lost:
        yield (
            f"nothing of {POINTS} can be read, or it is missing: {ROWS} has {rows:,} rows, and "
            "nothing says whose they are; only what the log still has is saved"
        )
    elif salvage.meta_is_lost and not salvage.is_whole:
        yield (
            f"the meta row of {POINTS} is lost: how many points there were is not known, and each is kept "
            "for what it proves by itself"
        )
    if not found.claims.segments:
        yield "there is no log: what was written after the last checkpoint is lost"
    elif salvage.lost_records:
        yield "ids that a lost record wrote or deleted are as they were before it"


def _summary(plan: RepairPlan) -> Iterator[str]:
    yield f"{_counted(plan.kept, 'point')} kept"
    yield f"{plan.restored:,} from the log"
    if plan.lost or not plan.lost_records:
        yield f"{'up to ' if plan.lost_rows else ''}{plan.lost:,} lost"
    if plan.lost_records:
        yield _lost_records(plan)


def _lost_records(plan: RepairPlan) -> str:
    """Return `1 log record lost (sequence 7)`; nothing tells how many points a lost record had."""
    runs = [loss.records for loss in plan.losses if loss.records is not None]
    told = [_sequences(first, last) for first, last in runs[:RUNS_LISTED_MAX]]
    more = ["more"] if len(runs) > RUNS_LISTED_MAX else []
    if all(last is None for _, last in runs):
        return f"whatever log records there were lost ({', '.join(told)})"
    return f"{_counted(plan.lost_records, 'log record')} lost ({', '.join(told + more)})"


def _sequences(first: int, last: int | None) -> str:
    if last is None:
        return f"any from sequence {first} on"
    return f"sequence {first}" if first == last else f"sequences {first} to {last}"


def _count(first: int, last: int | None) -> int:
    return 1 if last is None else last - first + 1


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
