"""A journal of the writes of the demo's clients, and its comparison with the engine's points."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Point = tuple[np.ndarray, dict[str, Any]]
"""Vector (float32) and payload."""
Changes = Mapping[str, Point | None]
"""The effect of one request; None is a delete."""


@dataclass
class Comparison:
    """How the engine's points agree with the journal."""

    right: int = 0
    gone: int = 0
    undecided: int = 0
    """Requests without an answer."""
    wrong: list[str] = field(default_factory=list)


class Journal:
    """The acknowledged state of every id, and what each client had asked for when the engine was gone."""

    def __init__(self, points: Mapping[str, Point]) -> None:
        self.state: dict[str, Point | None] = dict(points)
        self.in_flight: dict[int, Changes] = {}
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def begin(self, client: int, changes: Changes) -> None:
        """A request is about to be sent: from now on its changes may be there."""
        with self._lock:
            self.in_flight[client] = changes

    def acknowledged(self, client: int, kind: str, changes: Changes) -> None:
        """The engine answered: from now on the changes must be there."""
        with self._lock:
            self.state.update(changes)
            self.counts[kind] += len(changes)
            del self.in_flight[client]

    def count(self) -> int:
        """How many changes were acknowledged."""
        with self._lock:
            return self.counts.total()

    def ids(self) -> list[str]:
        """Every id that was ever used."""
        return sorted(self.state.keys() | {i for changes in self.in_flight.values() for i in changes})

    def compare(self, found: Changes) -> Comparison:
        """Every id of the journal against `found`; a request without an answer is whole or absent."""
        result = Comparison(undecided=len(self.in_flight))
        pending = set()
        for changes in self.in_flight.values():
            pending |= changes.keys()
            before = {point_id: self.state.get(point_id) for point_id in changes}
            if not any(
                all(same_point(found[point_id], point) for point_id, point in outcome.items())
                for outcome in (before, changes)
            ):
                result.wrong.append(f"half of a batch: {', '.join(changes)}")
        for point_id, point in self.state.items():
            if point_id in pending:
                continue
            if not same_point(found[point_id], point):
                result.wrong.append(point_id)
            elif point is None:
                result.gone += 1
            else:
                result.right += 1
        return result


def same_point(one: Point | None, other: Point | None) -> bool:
    """Whether both are absent, or have the same vector, bit for bit, and the same payload."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one[0], other[0]) and one[1] == other[1]
