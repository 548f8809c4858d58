"""The nodes of a graph that are still to be searched for, their order, and their urgency.

A search for a node costs about a tenth of its insertion. A sample of the inserted nodes is therefore searched
for first. If the sample shows that the graph isolates nodes, the rest follows while the cost stays within a
share of the insertions' cost. The remaining nodes are searched for while there is nothing else to do.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from vecstow_engine.index.backlog import Backlog
from vecstow_engine.index.hits import Labels

SAMPLE_NODES: Final = 4096
DOUBT_SHARE: Final = 0.001
"""The share of lost nodes among the checked ones above which the graph is in doubt."""
INSERTION_COST: Final = 20.0
"""The cost of an insertion in greedy searches (ef 1), measured at 128 and 384 dimensions by default."""
COST_SHARE_MAX: Final = 0.08
"""The share of the insertions' cost that urgent checks may take."""


class NodeChecks:
    """A queue of nodes in random order. Not thread-safe."""

    def __init__(self) -> None:
        self._new = Backlog()
        self._sample = Backlog()
        self._rest = Backlog()
        self._checked = 0
        self._lost = 0
        self._cost = 0.0
        self._budget = 0.0

    def note(self, nodes: Labels) -> None:
        """Queue inserted nodes for a check."""
        self._new.add(nodes)
        self._budget += COST_SHARE_MAX * INSERTION_COST * len(nodes)

    def start_over(self, nodes: Labels) -> None:
        """Queue all nodes of the graph for another check."""
        self._new, self._sample, self._rest = Backlog(), Backlog(), Backlog()
        self._new.add(nodes)
        self._checked = self._lost = 0

    def look_through(self, nodes: Labels) -> None:
        """Queue the nodes of a loaded graph, none of them as urgent."""
        self._rest.add(np.random.default_rng().permutation(nodes))

    def take(self, count: int) -> Labels:
        """Return the next nodes, at most `count`. Some may be removed by now."""
        if self._new:
            nodes = np.random.default_rng().permutation(np.concatenate(self._new.snapshot()))
            self._new = Backlog()
            self._sample.add(nodes[:SAMPLE_NODES])
            self._rest.add(nodes[SAMPLE_NODES:])
        queue = self._sample or self._rest
        nodes = queue.peek(count)
        queue.skip(len(nodes))
        return nodes

    def report(self, checked: int, lost: int, cost: float) -> None:
        """Record a check: its nodes, how many of them were lost, and its cost in greedy searches."""
        self._checked += checked
        self._lost += lost
        self._cost += cost

    @property
    def is_doubtful(self) -> bool:
        """Whether so many nodes were lost that more losses are likely."""
        return self._lost > DOUBT_SHARE * self._checked

    @property
    def urgent(self) -> int:
        """The number of nodes to check before the graph counts as complete."""
        urgent = self._new.count + self._sample.count
        return urgent + self._rest.count if self.is_doubtful and self._cost < self._budget else urgent

    @property
    def count(self) -> int:
        """The number of all nodes to check."""
        return self._new.count + self._sample.count + self._rest.count
