"""The check that collections dropped or backed up before a loss of power can be restored as they were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.crash.faults.writer import PurgeOne
from tests.crash.ledger import Ledger, Points, World
from tests.crash.power.told import Told
from tests.crash.reading import Recovery, killed, read
from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.model.errors import VecstowError

BACKUP = "backup of "
"""How a ledger names the backup of a collection."""


def not_brought_back(data: Path, found: Recovery, told: Told) -> Iterator[str]:
    """Yield what cannot be restored. The check restores everything in `data`, which changes `data`."""
    pasts = [_pasts(ledger, found, told) for ledger in told.ledgers]
    if not any(world.dropped or world.backups for worlds in pasts for world in worlds):
        return
    with killed(data) as engine:
        there = _restored(engine)
    for ledger, worlds in zip(told.ledgers, pasts, strict=True):
        if worlds and not _has_all(there, worlds):
            yield f"client {ledger.client}: what was dropped or backed up is gone, or not as it was"


def _pasts(ledger: Ledger, found: Recovery, told: Told) -> list[World]:
    """The worlds that what is served fits to. A hard delete that was under way may have purged already."""
    answered = told.answered[ledger.client]
    worlds = ledger.worlds(answered)
    for operation, _ in ledger.entries[answered + 1 : answered + 2]:
        if isinstance(operation, PurgeOne):
            worlds = worlds + [operation.after(world) for world in worlds]
    mine = ledger.restricted(found.content)
    return [world for world in worlds if world.served == mine]


def _restored(engine: RunningEngine) -> dict[str, list[Points]]:
    """The contents of all that can be restored, by the name of the collection that it was."""
    sources = [(str(row["name"]), str(row["path"])) for row in engine.catalog.deleted()]
    for path in sorted(engine.layout.backups.glob("*")):
        if path.suffix != ".tmp":
            name = path.name.rpartition("-")[0]
            sources.append((BACKUP + name, str(path.relative_to(engine.layout.data))))
    names = {}
    for number, (kept, source) in enumerate(sources):
        with suppress(VecstowError):  # half purged, or of no use: then it must not be one that is wanted
            names[engine.catalog.restore(source, f"restored-{number}")] = kept
    wait_until(engine.registry.all_opened)
    content = read(engine, searches=0).content
    there: dict[str, list[Points]] = defaultdict(list)
    for name, kept in names.items():
        if name in content:  # else it cannot be served
            there[kept].append(content[name])
    return there


def _has_all(there: dict[str, list[Points]], worlds: list[World]) -> bool:
    """A write whose outcome is unknown may be in a backup that was made after it, though the disk lost it in
    the collection itself: so each thing is held against the worlds by itself.
    """
    wanted = [world.dropped | world.backups for world in worlds]
    kept = {name for world in wanted for name in world}
    return all(any(name not in world or world[name] in there[name] for world in wanted) for name in kept)
