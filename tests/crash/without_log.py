"""The content of a volume without its log: each collection as its last checkpoint left it, whole.

The log repeats every change that a crash left half done. So it also hides a checkpoint that wrote over rows
which the point table still needs. Without the log, such a checkpoint shows.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.crash.ledger import Ledger, Points
from tests.crash.reading import Recovery, recovered


def lost_without_log(data: Path, ledgers: Iterable[Ledger]) -> str | None:
    """Return what is wrong with `data` without its `wal/`, or None. This removes `wal/`: pass a copy."""
    shutil.rmtree(data / "wal", ignore_errors=True)
    found = recovered(data)
    for name, state in found.states.items():
        if state != "ready":
            return f"without the log, {name} is {state}: {found.reasons[name]}"
    if found.wrong:
        return f"without the log, {found.wrong[0]}"
    for ledger in ledgers:
        if (stranger := _never_there(found, ledger)) is not None:
            return f"without the log, client {ledger.client}: {stranger}"
    return None


def _never_there(found: Recovery, ledger: Ledger) -> str | None:
    """A checkpoint of a collection has what the client's operations on it had made of it at some time."""
    mine = ledger.restricted(found.content)
    known: dict[str, dict[int, Points]] = {name: {} for name in mine}
    for world in ledger.past():
        for name in known.keys() & world.served.keys():
            points = world.served[name]
            known[name][id(points)] = points
    for name, points in mine.items():
        if points and not any(points == once for once in reversed(known[name].values())):
            return f"{name} has {len(points)} points, as it never was"
    return None
