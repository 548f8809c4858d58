"""From what was observed to what is to be done. Pure but for counting evidence, and a look for a backup."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from vecstow_engine.doctor.check import advice
from vecstow_engine.doctor.check.advice import LATER_RELEASE
from vecstow_engine.doctor.check.collection import is_sound
from vecstow_engine.doctor.repair.chain import Gap
from vecstow_engine.doctor.repair.observation import Observation
from vecstow_engine.doctor.repair.plan import LOSSES_LISTED_MAX, Loss, RepairPlan, RepairStep
from vecstow_engine.doctor.repair.salvage import Salvage
from vecstow_engine.storage.identity import HEADER_BYTES
from vecstow_engine.storage.layout import INDEX, MANIFEST, POINTS, ROWS, Layout

NOTHING_LEFT = "nothing of it can be saved, and an empty collection in its place would hide the loss"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Where what a repair cannot save may still be: the newest sound backup, or a copy of the volume."""

    layout: Layout
    name: str
    served: bool
    """An engine has the volume."""
    seeks: bool
    """Look for a backup of what a repair loses, too: a backup is read whole before it is named."""

    def restore(self) -> str:
        """Return what to type instead of a repair."""
        return advice.sentence(advice.restore(self.layout, self.name, is_sound, served=self.served))

    def backup(self) -> str | None:
        """Return how the newest sound backup is restored; None without one, or when it is not looked for."""
        if not self.seeks:
            return None
        found = advice.restore_backup(self.layout, self.name, is_sound, served=self.served)
        return None if found is None else str(found)


def make_plan(found: Observation, elsewhere: Elsewhere) -> RepairPlan:
    """Decide what a repair does with the collection."""
    identification = found.identification
    if identification.impossible is not None or (found.reasons and found.salvage is None):
        hint = _hint(identification.hint, elsewhere)
        return _impossible(found, identification.impossible or "its files tell nothing", hint)
    if found.salvage is None:
        return RepairPlan(found.name, tuple(_light_steps(found)), warnings=identification.warnings)
    return _rebuilding(found, found.salvage, elsewhere)


def all_losses(salvage: Salvage) -> Iterator[Loss]:
    """Yield what cannot be saved: lost records of the log, rows that no point claims, then points."""
    rows = (_of_rows(salvage, run) for run in salvage.unclaimed)
    return chain(map(_of_gap, salvage.gaps), rows, salvage.evidence.lost())


def _rebuilding(found: Observation, salvage: Salvage, elsewhere: Elsewhere) -> RepairPlan:
    kept, restored, named = salvage.evidence.counts()
    nameless = salvage.lost_without_id + salvage.lost_rows
    lost = named + nameless
    records = sum(1 if gap.upto is None else gap.upto - gap.after for gap in salvage.gaps)
    if not kept and not restored and (lost or not salvage.is_whole):
        return _impossible(found, NOTHING_LEFT, elsewhere.restore())
    return RepairPlan(
        found.name, tuple(_rebuild_steps(found, kept, restored)), kept, restored, lost,
        nameless, salvage.lost_rows, records, tuple(islice(all_losses(salvage), LOSSES_LISTED_MAX)),
        (*found.identification.warnings, *_warnings(found, salvage)),
        hint=elsewhere.backup() if lost or records else None,
    )  # fmt: skip


def _hint(hint: str | None, elsewhere: Elsewhere) -> str:
    """Return what to do instead. A file of a later release needs that release alone."""
    if hint == LATER_RELEASE:
        return hint
    return ", or: ".join(filter(None, [hint, elsewhere.restore()]))


def _rebuild_steps(found: Observation, kept: int, restored: int) -> Iterator[RepairStep]:
    because = "; ".join(found.reasons)
    sources = [f"{kept:,} from {POINTS} and {ROWS}"]
    if restored:
        sources.append(f"{restored:,} from the log")
    yield RepairStep("set the folder and its log aside in .quarantine, whole", because)
    yield RepairStep(
        f"build {ROWS} and {POINTS} again, with {_points(kept + restored)}: {', '.join(sources)}",
        "these prove themselves by their checksums",
    )
    if found.claims is not None and found.claims.manifest is None:
        yield RepairStep(
            f"build {MANIFEST} again from the headers", found.claims.manifest_fault or "it is missing"
        )
    yield RepairStep(f"leave {INDEX} out", "the engine builds it from the rows")


def _light_steps(found: Observation) -> Iterator[RepairStep]:
    claims, manifest = found.claims, found.identification.manifest
    if claims is not None and manifest is not None and claims.manifest != manifest:
        because = claims.manifest_fault or "; ".join(found.identification.warnings)
        if because:
            yield RepairStep(f"set {MANIFEST} aside in .quarantine, and rebuild it from the headers", because)
    if found.index_fault is not None:
        yield RepairStep(
            f"set {INDEX} aside in .quarantine; the engine builds it from the rows", found.index_fault
        )


def _warnings(found: Observation, salvage: Salvage) -> Iterator[str]:
    if salvage.table_is_lost:
        yield (
            f"nothing of {POINTS} can be read, or it is missing: {ROWS} has {salvage.lost_rows:,} rows, and "
            "nothing says whose they are; only what the log still has is saved"
        )
    elif salvage.meta_is_lost and not salvage.is_whole:
        yield (
            f"the meta row of {POINTS} is lost: how many points there were is not known, and each is kept "
            "for what it proves by itself"
        )
    if found.claims is not None and not found.claims.segments:
        yield "there is no log: what was written after the last checkpoint is lost"
    elif salvage.gaps:
        yield "ids that a lost record wrote or deleted are as they were before it"


def _impossible(found: Observation, why: str, hint: str) -> RepairPlan:
    return RepairPlan(found.name, warnings=found.reasons, impossible=why, hint=hint)


def _of_gap(gap: Gap) -> Loss:
    return Loss(gap.reason, gap.file, gap.offset, records=(gap.after + 1, gap.upto))


def _of_rows(salvage: Salvage, run: tuple[int, int]) -> Loss:
    reason = f"nothing tells whose they are: {POINTS} had the ids; some of them may have been free"
    place = f"{salvage.name}/{ROWS}", HEADER_BYTES + run[0] * salvage.identity.stride
    return Loss(reason, *place, rows=run)


def _points(count: int) -> str:
    return "1 point" if count == 1 else f"{count:,} points"
