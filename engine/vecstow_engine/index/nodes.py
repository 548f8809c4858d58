"""The nodes of a graph: the node of each row, the labels that share a node, and the nodes still to check.

A node has the label of the first row that it was made for, and keeps that label after its removal while other
labels with an equal row live.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vecstow_engine.index.exact import NO_LABEL, Hits, Labels, Rows, ordered
from vecstow_engine.index.places import Backlog
from vecstow_engine.model.points import slots_of

Hashes: TypeAlias = npt.NDArray[np.uint64]

_PLACES_MIN: Final = 256
_LOAD_MAX: Final = 0.75
_BUCKET_PLACES: Final = 8
"""The places of one bucket, which one numpy call compares."""
ROW_TABLE_BYTES: Final = 32
"""The mean bytes of a row in the table: 16 per place, and half of the places are free."""
_PLACED_AT_ONCE: Final = 16 * 1024
"""The number of rows whose buckets are copied at a time: 128 bytes each."""
_BLOCK_BYTES: Final = 256 * 1024
_SLOTS_MIN: Final = 64
_GROUP_BYTES: Final = 250
"""Memory of an array object, its place in the dictionary and its key."""
SAMPLE_NODES: Final = 4096
DOUBT_SHARE: Final = 0.001
"""The share of lost nodes among the checked ones above which the graph is in doubt."""
INSERTION_COST: Final = 20.0
"""The cost of an insertion in greedy searches (ef 1), measured at 128 and 384 dimensions by default."""
COST_SHARE_MAX: Final = 0.08
"""The share of the insertions' cost that urgent checks may take."""


class RowTable:
    """A hash table of nodes by row, in buckets that fill from the left: 16 bytes a place. Not thread-safe.

    When a bucket is full, the next one takes the row.

    The hash is multilinear (Lemire and Kaser, arXiv:1202.4961). Its factors are random in each process, so
    that no client can choose rows that collide. Rows with one hash may still differ: the caller compares
    them.
    """

    def __init__(self, dimension: int) -> None:
        self._factors = np.frombuffer(os.urandom(8 * dimension), dtype=np.uint64) | np.uint64(1)
        self._count = 0
        self._allocate(_PLACES_MIN)

    def hashes(self, rows: Rows) -> Hashes:
        """Return hashes (n,) of rows (n, dimension); a negative zero counts as zero."""
        result = np.empty(len(rows), dtype=np.uint64)
        block = max(1, _BLOCK_BYTES // (8 * len(self._factors)))
        for start in range(0, len(rows), block):
            words = (rows[start : start + block] + np.float32(0)).view(np.uint32)
            result[start : start + block] = words.astype(np.uint64) @ self._factors
        return result ^ (result >> np.uint64(32))

    def find(self, hashes: Hashes) -> Labels:
        """Return the node of each hash (n,), NO_LABEL where there is none."""
        found = np.full(len(hashes), NO_LABEL)
        buckets = self._first_buckets(hashes)
        todo = np.arange(len(hashes))
        while len(todo):
            nodes = self._nodes[buckets]
            same = (self._hashes[buckets] == hashes[todo, None]) & (nodes != NO_LABEL)
            is_found = same.any(axis=1)
            found[todo[is_found]] = nodes[same]
            goes_on = ~is_found & (nodes[:, -1] != NO_LABEL)
            todo, buckets = todo[goes_on], (buckets[goes_on] + 1) % len(self._nodes)
        return found

    def put(self, hashes: Hashes, nodes: Labels) -> None:
        """Add distinct hashes that are not in the table, each with a node."""
        self._count += len(nodes)
        if self._count > _LOAD_MAX * self._nodes.size:
            taken = self._nodes != NO_LABEL
            held = self._hashes[taken], self._nodes[taken]
            self._allocate(2 ** int(np.ceil(np.log2(self._count / _LOAD_MAX)) + 1))
            self._place(*held)
        self._place(hashes, nodes)

    def _place(self, hashes: Hashes, nodes: Labels) -> None:
        for start in range(0, len(nodes), _PLACED_AT_ONCE):
            part = slice(start, start + _PLACED_AT_ONCE)
            self._place_part(hashes[part], nodes[part])

    def _place_part(self, hashes: Hashes, nodes: Labels) -> None:
        buckets = self._first_buckets(hashes)
        todo = np.arange(len(nodes))
        while len(todo):
            free = self._nodes[buckets] == NO_LABEL
            has_room = free[:, -1]
            chosen, at = todo[has_room], (buckets[has_room], free[has_room].argmax(axis=1))
            # When several rows want one place, the last one stays, in both arrays.
            self._nodes[at], self._hashes[at] = nodes[chosen], hashes[chosen]
            placed = np.zeros(len(todo), dtype=np.bool_)
            placed[has_room] = self._nodes[at] == nodes[chosen]
            todo, buckets = todo[~placed], (buckets + ~has_room)[~placed] % len(self._nodes)

    def _first_buckets(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        return (hashes >> self._shift).astype(np.int64)

    def _allocate(self, places: int) -> None:
        """Allocate an empty table of `places`, a power of two."""
        buckets = places // _BUCKET_PLACES
        self._shift = np.uint64(64 - int(np.log2(buckets)))
        self._hashes = np.zeros((buckets, _BUCKET_PLACES), dtype=np.uint64)
        self._nodes = np.full((buckets, _BUCKET_PLACES), NO_LABEL)


class Groups:
    """The live labels of each node. Not thread-safe.

    Only nodes that stand for more or less than exactly their own label take memory here.
    """

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


def random_generator() -> np.random.Generator:
    """Return the generator that orders the checks of one graph."""
    return np.random.default_rng()


class NodeChecks:
    """The nodes that are still to be searched for, in random order. Not thread-safe.

    A search for a node costs about a tenth of its insertion. A sample of the inserted nodes is therefore
    searched for first. If the sample shows that the graph isolates nodes, the rest follows while the cost
    stays within a share of the insertions' cost. The remaining nodes are searched for while there is nothing
    else to do.
    """

    def __init__(self) -> None:
        self._random = random_generator()
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
        self._rest.add(self._random.permutation(nodes))

    def take(self, count: int) -> Labels:
        """Return the next nodes, at most `count`. Some may be removed by now."""
        if self._new:
            nodes = self._random.permutation(np.concatenate(self._new.snapshot()))
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
