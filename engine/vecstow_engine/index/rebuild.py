"""A second graph that is built from the first one's rows while the first one serves."""

from __future__ import annotations

from vecstow_engine.index.backlog import Backlog
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hits import Labels, Rows


class Rebuild:
    """The graph to come, what it still lacks, and what was removed since its last slice.

    While `insert` runs, others may call `note_added` and `note_removed`: they touch different things.
    """

    def __init__(self, graph: HnswGraph, labels: Labels) -> None:
        self.graph = graph
        self.todo = Backlog()
        self.todo.add(labels)
        self._removed: list[Labels] = []

    def note_added(self, labels: Labels) -> None:
        """Labels that have entered the serving graph meanwhile."""
        self.todo.add(labels)

    def note_removed(self, labels: Labels) -> None:
        """Labels that have been removed meanwhile; hnswlib must not mark while it inserts."""
        self._removed.append(labels)

    def insert(self, rows: Rows, labels: Labels, threads: int) -> None:
        """Insert one slice; nobody searches this graph yet, so no lock is needed."""
        self.graph.add(rows, labels, threads)

    def settle(self) -> None:
        """Mark what was removed, between two slices. What is still to do is checked when its turn comes."""
        removed, self._removed = self._removed, []
        for labels in removed:
            self.graph.mark_deleted(labels)
