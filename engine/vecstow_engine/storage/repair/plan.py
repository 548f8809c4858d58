"""From what was observed to what is to be done. Pure but for counting the evidence."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from vecstow_engine.storage.layout import INDEX, MANIFEST, POINTS, ROWS
from vecstow_engine.storage.repair.chain import Gap, Unread
from vecstow_engine.storage.repair.observation import Observation
from vecstow_engine.storage.repair.report import LOSSES_LISTED_MAX, Loss, RepairPlan, Step
from vecstow_engine.storage.repair.salvage import Salvage

NOTHING_LEFT = "nothing of it can be saved, and an empty collection in its place would hide the loss"
RESTORE_HINT = "restore a backup: vecstow check NAME names the newest sound one"


def make_plan(found: Observation) -> RepairPlan:
    """What is to be done with the collection."""
    verdict = found.verdict
    if verdict.impossible is not None or (found.reasons and found.salvage is None):
        return _impossible(found, verdict.impossible or "its files tell nothing", verdict.hint)
    if found.salvage is None:
        return RepairPlan(found.name, tuple(_light_steps(found)), warnings=verdict.warnings)
    return _rebuilding(found, found.salvage)


def all_losses(salvage: Salvage) -> Iterator[Loss]:
    """What cannot be saved: the lost records of the log, then point by point."""
    unread = [] if salvage.unread is None else [_of_unread(salvage.unread)]
    return chain(map(_of_gap, salvage.gaps), unread, salvage.saved.lost())


def _rebuilding(found: Observation, salvage: Salvage) -> RepairPlan:
    saved = salvage.saved
    kept, restored = saved.kept_count(), saved.restored_count()
    lost = saved.lost_count() + salvage.lost_without_id
    if not kept and not restored and (lost or not salvage.is_whole):
        return _impossible(found, NOTHING_LEFT, RESTORE_HINT)
    return RepairPlan(
        found.name, tuple(_rebuild_steps(found, kept, restored)), kept, restored, lost,
        salvage.lost_without_id, tuple(islice(all_losses(salvage), LOSSES_LISTED_MAX)),
        (*found.verdict.warnings, *_warnings(found, salvage)),
    )  # fmt: skip


def _rebuild_steps(found: Observation, kept: int, restored: int) -> Iterator[Step]:
    because = "; ".join(found.reasons)
    sources = [f"{kept:,} from {POINTS} and {ROWS}"]
    if restored:
        sources.append(f"{restored:,} from the log")
    yield Step("set the folder and its log aside in .quarantine, whole", because)
    yield Step(
        f"make {ROWS} and {POINTS} anew, with {_points(kept + restored)}: {', '.join(sources)}",
        "these prove themselves by their checksums",
    )
    if found.claims is not None and found.claims.manifest is None:
        yield Step(f"make {MANIFEST} anew from the headers", found.claims.manifest_fault or "it is missing")
    yield Step(f"leave {INDEX} out", "the engine builds it from the rows")


def _light_steps(found: Observation) -> Iterator[Step]:
    claims, manifest = found.claims, found.verdict.manifest
    if claims is not None and manifest is not None and claims.manifest != manifest:
        because = claims.manifest_fault or "; ".join(found.verdict.warnings)
        if because:
            yield Step(f"set {MANIFEST} aside in .quarantine, and make it anew from the headers", because)
    if found.index_fault is not None:
        yield Step(f"set {INDEX} aside in .quarantine; the engine builds it from the rows", found.index_fault)


def _warnings(found: Observation, salvage: Salvage) -> Iterator[str]:
    if found.rows_without_table:
        yield (
            f"{POINTS} is missing: {ROWS} has {found.rows_without_table:,} rows, and nothing says whose they "
            "are; only what the log still has is saved"
        )
    elif salvage.meta_is_lost and not salvage.is_whole:
        yield (
            f"the meta row of {POINTS} is lost: how many points there were is not known, and each is kept "
            "for what it proves by itself"
        )
    if not found.log_is_there:
        yield "there is no log: what was written after the last checkpoint is lost"
    if salvage.gaps or salvage.unread:
        yield "ids that a lost record wrote or deleted are as they were before it"


def _impossible(found: Observation, why: str, hint: str | None) -> RepairPlan:
    reasons = found.reasons
    return RepairPlan(
        found.name, warnings=reasons, impossible=why, hint=(hint or RESTORE_HINT).replace("NAME", found.name)
    )


def _of_gap(gap: Gap) -> Loss:
    what = "record" if gap.upto == gap.after + 1 else "records"
    reason = f"{what} lost, though durable once: missing, or not passing the checksum"
    return Loss(reason, gap.file, gap.offset, records=(gap.after + 1, gap.upto))


def _of_unread(unread: Unread) -> Loss:
    reason = "the segment's header is lost, and with it whatever records it held"
    return Loss(reason, unread.file, 0, records=(unread.after + 1, None))


def _points(count: int) -> str:
    return "1 point" if count == 1 else f"{count:,} points"
