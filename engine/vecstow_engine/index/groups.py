"""Groups of labels that share a node of the graph, because their rows are equal.

A node has the label of the first row that it was made for, and keeps that label after its removal while
others live. Only nodes that stand for more or less than exactly their own label take memory here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstow_engine.index.hits import NO_LABEL, Hits, Labels, Rows, ordered
from vecstow_engine.model.labels import slots_of

_SLOTS_MIN: Final = 64
_GROUP_BYTES: Final = 250
"""Memory of an array object, its place in the dictionary and its key."""


class Groups:
    """The live labels of each node. Not thread-safe."""

    def __init__(self) -> None:
        self._members: dict[int, Labels] = {}
        """Sorted labels by node. A node without an entry stands for its own label, or for none."""
        self._nodes = np.empty(0, dtype=np.uint64)
        """By slot: the node of the live label there, NO_LABEL for a label without a group."""
        self._listed = 0

    def nodes_of(self, labels: Labels) -> Labels:
        """Return the node of each live label (n,)."""
        nodes = labels.copy()
        slots = slots_of(labels)
        inside = np.flatnonzero(slots < len(self._nodes))
        shared = self._nodes[slots[inside]]
        nodes[inside] = np.where(shared == NO_LABEL, nodes[inside], shared)
        return nodes

    def lists(self, nodes: Labels) -> npt.NDArray[np.bool_]:
        """Whether each node (n,) has live labels listed here."""
        return np.fromiter((node in self._members for node in nodes.tolist()), np.bool_, len(nodes))

    def join(self, labels: Labels, nodes: Labels, alone: Labels) -> None:
        """Add labels (n,) to nodes (n,) of other labels. Nodes in `alone` stood only for their own label."""
        self._set_nodes(labels, nodes)
        self._set_nodes(alone, alone)
        for node in alone.tolist():
            self._members[node] = np.array([node], dtype=np.uint64)
        for node, joining in _by_node(labels, nodes):
            held, joining = self._members.get(node, joining[:0]), np.sort(joining)
            self._members[node] = np.insert(held, np.searchsorted(held, joining), joining)
        self._listed += len(labels) + len(alone)

    def leave(self, labels: Labels) -> Labels:
        """Remove live labels (n,); return the nodes that stand for no label any more."""
        nodes = self.nodes_of(labels)
        grouped = self.lists(nodes)
        self._listed -= int(grouped.sum())
        dead = [nodes[~grouped]]
        self._set_nodes(labels[grouped], np.full(int(grouped.sum()), NO_LABEL))
        for node, leaving in _by_node(labels[grouped], nodes[grouped]):
            left = np.setdiff1d(self._members[node], leaving, assume_unique=True)
            if len(left):
                self._members[node] = left
            else:
                del self._members[node]
                dead.append(np.array([node], dtype=np.uint64))
        return np.concatenate(dead)

    def expand(self, hits: Hits) -> Hits:
        """Replace nodes by labels: return the k nearest, equal distances ordered by label."""
        if not self._members:
            return hits
        expanded = [self._expanded(*line) for line in zip(hits.labels, hits.distances, strict=True)]
        wide = Hits.none(len(expanded), max((len(labels) for labels, _ in expanded), default=0))
        for i, (labels, distances) in enumerate(expanded):
            wide.labels[i, : len(labels)], wide.distances[i, : len(labels)] = labels, distances
        return ordered(wide, hits.k)

    def _expanded(self, nodes: Labels, distances: Rows) -> tuple[Labels, Rows]:
        names = nodes.tolist()
        if self._members.keys().isdisjoint(names):
            return nodes, distances
        labels = [self._members.get(name, nodes[i : i + 1])[: len(nodes)] for i, name in enumerate(names)]
        return np.concatenate(labels), np.repeat(distances, [len(part) for part in labels])

    def _set_nodes(self, labels: Labels, nodes: Labels) -> None:
        slots = slots_of(labels)
        needed = int(slots.max(initial=-1)) + 1
        if needed > len(self._nodes):
            grown = np.full(max(needed, len(self._nodes) * 3 // 2, _SLOTS_MIN), NO_LABEL)
            grown[: len(self._nodes)] = self._nodes
            self._nodes = grown
        self._nodes[slots] = nodes

    @property
    def bytes(self) -> int:
        """About how many bytes of memory the groups take."""
        return self._nodes.nbytes + 8 * self._listed + _GROUP_BYTES * len(self._members)


def _by_node(labels: Labels, nodes: Labels) -> Iterator[tuple[int, Labels]]:
    """Yield each distinct node with its labels."""
    if not len(nodes):
        return
    order = np.argsort(nodes, kind="stable")
    distinct, starts = np.unique(nodes[order], return_index=True)
    yield from zip(distinct.tolist(), np.split(labels[order], starts[1:]), strict=True)
