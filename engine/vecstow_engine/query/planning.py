"""The plan of a filtered search, chosen from counts alone. Pure.

The costs are microseconds on the machine of docs/benchmarks.md. Only their ratio decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ROW_MICROSECONDS: Final = 0.06
"""The cost of a row in an exact search, apart from its values."""
VALUE_MICROSECONDS: Final = 0.001
"""The cost of one value of a row."""
CANDIDATE_MICROSECONDS: Final = 2.5
"""The cost of a candidate of the graph, apart from the values of its neighbours."""
CANDIDATE_VALUE_MICROSECONDS: Final = 0.01
SPARE_FACTOR: Final = 1.3
"""The candidates of the graph, relative to those that contain enough matching points on average."""
SPARE_CANDIDATES: Final = 16
CANDIDATES_MAX: Final = 10_000


class Method(StrEnum):
    """The ways to answer a filtered search."""

    NONE = "none"
    """No point matches."""
    EXACT = "exact"
    """Compare all points that match."""
    GRAPH = "graph"
    """Search the graph for more points than are wanted, and keep those that match."""
    SCAN = "scan"
    """Search the graph with payloads read, and then all payloads if too few points match."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A chosen method; for the graph, the number of candidates to search for."""

    method: Method
    reason: str
    candidates: int = 0
    microseconds: float = 0.0
    """The estimated cost."""


def plan_search(*, wanted: int, ef: int, live: int, matching: int, dimension: int) -> Plan:
    """Return the cheaper plan for the `wanted` nearest of `matching` points, among `live` points.

    `ef` is the least size of the graph's candidate list.
    """
    if not matching:
        return Plan(Method.NONE, "no point matches")
    share = matching / live
    candidates = math.ceil(SPARE_FACTOR * wanted / share) + SPARE_CANDIDATES
    exact_cost = matching * (ROW_MICROSECONDS + VALUE_MICROSECONDS * dimension)
    per_candidate = CANDIDATE_MICROSECONDS + CANDIDATE_VALUE_MICROSECONDS * dimension
    graph_cost = max(ef, candidates) * per_candidate
    estimate = (
        f"about {exact_cost:.0f} us for {matching} rows, {graph_cost:.0f} us for {candidates} candidates"
    )
    if matching <= wanted or exact_cost <= graph_cost or candidates > CANDIDATES_MAX:
        reason = f"exact comparison of all matching points is cheaper: {estimate}"
        return Plan(Method.EXACT, reason, microseconds=exact_cost)
    return Plan(Method.GRAPH, f"the graph is cheaper: {estimate}", candidates, graph_cost)
