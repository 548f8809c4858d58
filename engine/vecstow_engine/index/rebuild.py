"""A second graph that is built from the first one's rows while the first one serves."""

from __future__ import annotations

from vecstow_engine.index.backlog import Backlog
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hits import Labels


class Rebuild:
    """The new graph, and the labels that it still lacks.

    `note_added` and `note_removed` do not touch `graph`, so they may be called while a slice is inserted into
    it.
    """

    def __init__(self, graph: HnswGraph, labels: Labels) -> None:
        self.graph = graph
        self.todo = Backlog()
        self.todo.add(labels)
        self._removed: list[Labels] = []

    def note_added(self, labels: Labels) -> None:
        """Record labels that entered the serving graph."""
        self.todo.add(labels)

    def note_removed(self, labels: Labels) -> None:
        """Record labels that were removed; the new graph marks them after the slice."""
        self._removed.append(labels)

    def mark_removed(self) -> None:
        """Mark the removed labels, between two slices. Labels still to do are checked at their turn."""
        removed, self._removed = self._removed, []
        for labels in removed:
            self.graph.mark_deleted(labels)
