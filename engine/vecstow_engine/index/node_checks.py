"""Which nodes of a graph are to be searched for, in which order, and how urgently.

A search for each node costs about a tenth of its insertion. So a sample of what was inserted is searched for
first. When the sample shows a graph that isolates nodes, the rest follows while the cost stays within a share
of the insertions. What is left is searched for while there is nothing else to do.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from vecstow_engine.index.backlog import Backlog
from vecstow_engine.index.hits import Labels

SAMPLE_NODES: Final = 4096
DOUBT_SHARE: Final = 0.001
"""Nodes lost among those checked, above which the graph is doubted."""
INSERTION_COST: Final = 20.0
"""In greedy searches (ef 1), measured on 128 and 384 dimensions with the default settings."""
COST_SHARE_MAX: Final = 0.08
"""Share of the insertions' cost that urgent checks may take."""


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
        """Nodes have been inserted."""
        self._new.add(nodes)
        self._budget += COST_SHARE_MAX * INSERTION_COST * len(nodes)

    def start_over(self, nodes: Labels) -> None:
        """Check all nodes of the graph again."""
        self._new, self._sample, self._rest = Backlog(), Backlog(), Backlog()
        self._new.add(nodes)
        self._checked = self._lost = 0

    def look_through(self, nodes: Labels) -> None:
        """Check nodes of a loaded graph, none of them urgently."""
        self._rest.add(np.random.default_rng().permutation(nodes))

    def take(self, count: int) -> Labels:
        """The next nodes, at most `count`; they may be gone by now."""
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
        """Nodes were checked at a cost in greedy searches, and some of them were lost."""
        self._checked += checked
        self._lost += lost
        self._cost += cost

    @property
    def is_doubtful(self) -> bool:
        """Whether so many nodes were lost that more must be expected."""
        return self._lost > DOUBT_SHARE * self._checked

    @property
    def urgent(self) -> int:
        """Nodes to check before the graph counts as complete."""
        urgent = self._new.count + self._sample.count
        return urgent + self._rest.count if self.is_doubtful and self._cost < self._budget else urgent

    @property
    def count(self) -> int:
        """Nodes to check in all."""
        return self._new.count + self._sample.count + self._rest.count
