"""Inspections of the points that a running server serves, read over REST in more than one way."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field

from tests.crash.faults.workload import Workload
from tests.crash.ledger import Answer, Content, Ledger, Points, alias_content, check
from tests.crash.rest import Rest

SEARCHED_MAX = 6
"""Points of a collection that are looked for by their own vectors."""
SERVING = ("ready", "degraded", "read_only")


@dataclass
class Inspection:
    """The results of one reading."""

    content: Content = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str | None] = field(default_factory=dict)
    trash: set[str] = field(default_factory=set)
    """Names of what was dropped."""
    excused: set[str] = field(default_factory=set)
    """Collections that say that they cannot be read now."""
    wrong: list[str] = field(default_factory=list)

    def excuse(self, names: set[str], workload: Workload) -> None:
        """These collections are there, and cannot be read now: they have what they must, if all others do."""
        self.excused = names
        read = dict(self.content)
        self.content |= {name: {} for name in names}
        for ledger in (writer.ledger for writer in workload.writers):
            mine = ledger.restricted(read)
            hidden = names & (ledger.owned | ledger.shared)
            for world in ledger.worlds():
                if hidden <= world.served.keys() and mine == _without(world.served, hidden):
                    for name in hidden:
                        self.content[name] = self.content[name] | world.served[name]
                    break

    def problems(self, workload: Workload, *, doubtful: bool = False) -> list[str]:
        """List contradictions, in the reading itself or to the answers that the clients got.

        A reading that is not `doubtful` settles the ledgers. `doubtful`: a client got the answer that the
        next start decides the outcome. Until then a collection may be neither served nor dropped: the names
        in memory differ from those on disk.
        """
        ledgers = [writer.ledger for writer in workload.writers]
        if (lost := check(self.content, ledgers)) is not None:
            return [*self.wrong, f"{_broken(self.content, ledgers)}: {lost}"]
        mine = workload.main.ledger.restricted(self.content)
        worlds = [world for world in workload.main.ledger.worlds() if doubtful or world.served == mine]
        if not doubtful and not self.excused:
            for ledger in ledgers:
                ledger.settle(self.content)
        if all(self.trash != world.dropped.keys() for world in worlds):
            return [*self.wrong, f"dropped are {set(worlds[0].dropped)}, but {self.trash} can be restored"]
        return self.wrong


def _without(served: Content, names: set[str]) -> Content:
    return {name: points for name, points in served.items() if name not in names}


def _broken(content: Content, ledgers: list[Ledger]) -> str:
    """Which promise: one refusal of each client may explain what is there, if it is taken for a doubt."""
    mine = [ledger.restricted(content) for ledger in ledgers]
    if all(_is_explained(found, ledger) for found, ledger in zip(mine, ledgers, strict=True)):
        return "a write was refused, but is there"
    return "what is served is not what was acknowledged"


def _is_explained(mine: Content, ledger: Ledger) -> bool:
    refused = [number for number, (_, answer) in enumerate(ledger.entries) if answer is Answer.NO]
    for doubt in (None, *refused):
        doubting = copy(ledger)
        doubting.entries = [
            (operation, Answer.UNKNOWN if number == doubt else answer)
            for number, (operation, answer) in enumerate(ledger.entries)
        ]
        if any(world.served == mine for world in doubting.worlds()):
            return True
    return False


def inspect(workload: Workload, port: int) -> Inspection:
    """Read all that is there."""
    found = Inspection()
    with Rest(port) as rest:
        found.trash = {row["name"] for row in rest.call("GET", "/collections/deleted")}
        for name in rest.call("GET", "/collections"):
            facts = rest.describe(name)
            found.states[name], found.reasons[name] = facts["state"], facts["reason"]
            if facts["state"] in SERVING:
                found.content[name] = points = rest.get_many(name, workload.ids(name))
                if facts["vector_count"] != len(points):
                    found.wrong.append(f"{name} counts {facts['vector_count']} points, has {len(points)}")
                found.wrong += [f"{name}: {what}" for what in _search(rest, name, points)]
        for row in rest.call("GET", "/aliases"):
            found.content |= alias_content(row["alias"], row["collection"])
    return found


def _search(rest: Rest, name: str, points: Points) -> list[str]:
    wrong = []
    for point_id in sorted(points)[:: len(points) // SEARCHED_MAX + 1]:
        hits = [hit["id"] for hit in rest.search(name, points[point_id][0])]
        if len(set(hits)) != len(hits) or not set(hits) <= points.keys():
            wrong.append(f"a search finds {hits}")
        if point_id not in hits:
            wrong.append(f"{point_id} is not found by its own vector")
    return wrong
