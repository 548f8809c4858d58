"""One case: damage a volume, check it, start on it, read it, perhaps write to it and start again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

from tests.crash.damage.after import Written, judge_after, judge_refusals, write_on
from tests.crash.damage.aliases import judge_aliases
from tests.crash.damage.cases import Case
from tests.crash.damage.reading import Seen, see
from tests.crash.damage.repaired import repair
from tests.crash.damage.verdict import (
    Verdict,
    judge,
    judge_check,
    judge_neighbour,
    judge_rows,
    owner_of,
)
from tests.crash.damage.volume import RESERVE_BYTES, Volume
from tests.crash.reading import killed
from tests.unit.running_engine import RunningEngine
from vecstow_engine.doctor.check import check_volume
from vecstow_engine.model.errors import VecstowError, VolumeRefused
from vecstow_engine.storage.layout import ALIASES

RESTORED = "restored"
COPIES = (".deleted/", ".backups/", "wal/gone/")


def run_case(volume: Volume, case: Case, folder: Path) -> Verdict:
    """How it ended."""
    data = folder / "data"
    volume.lay(data, volume.labels[case.label], case.content)
    chance = Random(case.seed)
    report = check_volume(data)
    try:
        with killed(data, reserve_bytes=RESERVE_BYTES) as engine:
            verdict, seen = asyncio.run(_judge_all(engine, volume, case, chance))
            ending, wrong = judge_aliases(engine, volume, case, report)
            verdict.wrong += wrong
            if case.label == ALIASES:
                verdict.ending = ending
            written = asyncio.run(_write_all(engine, seen, chance)) if case.writes else {}
            verdict.wrong += [
                told for name in written for told in judge_refusals(engine, name, written[name])
            ]
    except VolumeRefused as refused:
        verdict = Verdict("refused")
        if case.label != "VOLUME" or "VOLUME" not in refused.message:
            verdict.wrong.append(f"no engine starts: {refused.message}")
        return verdict
    name = owner_of(case.label)
    if not case.label.startswith((*COPIES, ALIASES)):
        is_empty = name in volume.live and not volume.live[name].last
        verdict.wrong += judge_check(verdict, report, name, is_empty=is_empty)
        if verdict.is_trouble and not is_empty and not written:
            verdict.repair, wrong = repair(volume, case, name or "", folder / "repaired", chance)
            verdict.wrong += wrong
    if written:
        verdict.wrong += _judge_after(data, written, seen, name, chance)
    return verdict


async def _judge_all(
    engine: RunningEngine, volume: Volume, case: Case, chance: Random
) -> tuple[Verdict, dict[str, Seen]]:
    damaged = owner_of(case.label)
    is_copy = case.label.startswith(COPIES)
    names = list(volume.live)
    chance.shuffle(names)
    verdict, seen = Verdict("right"), {}
    neighbours: list[str] = []
    for name in names:
        truth = volume.live[name]
        seen[name] = await see(engine, name, truth.ids, chance)
        if name == damaged and not is_copy:
            verdict = judge(case, truth, seen[name])
            if case.label.endswith("vectors.bin"):
                verdict.wrong += judge_rows(volume, case, truth, seen[name])
        else:
            neighbours += judge_neighbour(name, truth, seen[name])
    if is_copy:
        verdict = await _restore(engine, volume, case, chance)
    verdict.wrong += neighbours
    return verdict, seen


async def _restore(engine: RunningEngine, volume: Volume, case: Case, chance: Random) -> Verdict:
    """Bring back what was damaged where it rested."""
    is_backup = case.label.startswith(".backups")
    truth = volume.backup if is_backup else volume.gone
    source = next(iter((engine.layout.backups if is_backup else engine.layout.deleted).iterdir()))
    try:
        await asyncio.to_thread(engine.catalog.restore, str(source.relative_to(engine.layout.data)), RESTORED)
    except VecstowError as error:
        return Verdict("restore refused", [] if error.message else ["a restore is refused without a reason"])
    return judge(case, truth, await see(engine, RESTORED, truth.ids, chance))


async def _write_all(engine: RunningEngine, seen: dict[str, Seen], chance: Random) -> dict[str, Written]:
    return {name: await write_on(engine, name, seen[name], chance) for name in seen if seen[name].served}


def _judge_after(
    data: Path, written: dict[str, Written], seen: dict[str, Seen], damaged: str | None, chance: Random
) -> list[str]:
    wrong = []
    with killed(data) as engine:
        for name, wanted in written.items():
            ids = wanted.points.keys() | seen[name].points.keys() | seen[name].withheld.keys()
            again = asyncio.run(see(engine, name, ids, chance))
            wrong += judge_after(name, wanted, again, was_damaged=name == damaged)
    return wrong
