"""The plan and the report of a repair: steps, what is saved, and what is lost, one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias

RUNS_LISTED_MAX: Final = 5
"""A summary lists so many runs of lost log records."""
LOSSES_LISTED_MAX: Final = 1_000
"""A plan lists so many; the file in the quarantine folder has them all."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Gets `<collection>: <what is done>`, how much of it, and of how much."""


class RepairOutcome(StrEnum):
    """The outcome of a repair."""

    SOUND = "sound"
    """There was nothing to do."""
    PLANNED = "planned"
    """Something is to be done; nothing was."""
    REPAIRED = "repaired"
    IMPOSSIBLE = "impossible"
    """Nothing was changed: what is there is not enough."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One point, a run of rows, or a run of log records, that cannot be saved."""

    reason: str
    file: str
    """Relative to the data directory."""
    offset: int | None = None
    id: str | None = None
    slot: int | None = None
    payload: bytes | None = None
    proven: bool = False
    """Id and payload pass the point's checksum; else they are reported as they stand there."""
    records: tuple[int, int | None] | None = None
    """First and last sequence, of a loss in the log; None for the last: how many there were is unknown."""
    rows: tuple[int, int] | None = None
    """First and last slot, of rows whose points are unknown."""

    def document(self) -> dict[str, object]:
        """As a line of `lost.jsonl`; what is known of the payload stands under `metadata`, as in REST."""
        known: dict[str, object] = {"reason": self.reason, "file": self.file, "offset": self.offset}
        if self.records is not None:
            return known | {"records": list(self.records)}
        if self.rows is not None:
            return known | {"rows": list(self.rows)}
        metadata = _json(self.payload, proven=self.proven)
        return {"id": self.id, "slot": self.slot, "proven": self.proven, "metadata": metadata} | known


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
    """Log records that cannot be saved; a segment without a readable record counts as one."""
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
        """The plan as JSON has it."""
        return {
            "steps": [{"does": step.does, "because": step.because} for step in self.steps],
            "summary": self.summary, "kept": self.kept, "restored": self.restored,
            "lost": self.lost, "lost_without_id": self.lost_without_id,
            "lost_rows": self.lost_rows, "lost_records": self.lost_records,
            "losses": [loss.document() for loss in self.losses],
            "warnings": list(self.warnings), "impossible": self.impossible, "hint": self.hint,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class CollectionRepair:
    """One collection's plan and what came of it."""

    plan: RepairPlan
    outcome: RepairOutcome
    quarantine: str | None = None
    """Where the damage was set aside, relative to the data directory."""

    def document(self) -> dict[str, object]:
        """As JSON has it."""
        return {"outcome": self.outcome.value, "quarantine": self.quarantine, "plan": self.plan.document()}


@dataclass(slots=True)
class RepairReport:
    """The findings and the outcome of a repair of a volume, or of one collection."""

    collections: dict[str, CollectionRepair] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether something is still to be done."""
        left = (RepairOutcome.PLANNED, RepairOutcome.IMPOSSIBLE)
        return any(repair.outcome in left for repair in self.collections.values())

    def document(self) -> dict[str, object]:
        """The report as JSON has it."""
        return {
            "open": self.open,
            "collections": {name: repair.document() for name, repair in self.collections.items()},
        }


def _summary(plan: RepairPlan) -> Iterator[str]:
    yield f"{_counted(plan.kept, 'point')} kept"
    yield f"{plan.restored:,} from the log"
    if plan.lost or not plan.lost_records:
        yield f"{'up to ' if plan.lost_rows else ''}{plan.lost:,} lost"
    if plan.lost_records:
        yield _lost_records(plan)


def _lost_records(plan: RepairPlan) -> str:
    """`1 log record lost (sequence 7)`; how many points a lost record had, nothing tells."""
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


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def no_progress(label: str, done: int, total: int) -> None:
    """Ignore the progress."""


def _json(payload: bytes | None, *, proven: bool) -> Any:
    """A payload as the object that it is; what is none is text if it was written so, and else garbage."""
    if payload is None:
        return None
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        value = payload.decode("utf-8", "replace")
    return value if proven or isinstance(value, dict) else None
