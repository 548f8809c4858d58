"""A second graph that is built from the first one's rows while the first one serves."""

from __future__ import annotations

from vecstow_engine.index.backlog import Backlog
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hits import Labels


class Rebuild:
    """The graph to come and what it still lacks.

    While a slice is inserted into `graph`, others may call `note_added` and `note_removed`: they leave it be.
    """

    def __init__(self, graph: HnswGraph, labels: Labels) -> None:
        self.graph = graph
        self.todo = Backlog()
        self.todo.add(labels)
        self._removed: list[Labels] = []

    def note_added(self, labels: Labels) -> None:
        """Labels that have entered the serving graph."""
        self.todo.add(labels)

    def note_removed(self, labels: Labels) -> None:
        """Labels that have been removed; they are marked after the slice."""
        self._removed.append(labels)

    def mark_removed(self) -> None:
        """Between two slices: mark what was removed. What is still to do is checked when its turn comes."""
        removed, self._removed = self._removed, []
        for labels in removed:
            self.graph.mark_deleted(labels)
