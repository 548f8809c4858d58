"""What the engine knows, as metrics, asked at scrape time: nothing is counted twice, nothing goes stale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from vecstow_engine.service.engine import Engine

STATES: Final = ("recovering", "ready", "degraded", "read_only", "quarantined", "foreign")
OTHER: Final = "_other"
"""The label that sums up collections beyond the bound; no legal collection name begins with `_`."""


class EngineCollector(Collector):
    """Gauges of the volume and its collections; the largest collections have a label of their own."""

    def __init__(self, engine: Engine, collections_max: int) -> None:
        self._engine = engine
        self._collections_max = collections_max

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing to check at registration: the engine may not have started yet."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One pass over the collections' states."""
        ready = GaugeMetricFamily("vecstow_ready", "Whether the volume is discovered.")
        ready.add_metric([], float(self._engine.ready))
        yield ready
        if not self._engine.ready:
            return
        rows = self._engine.state_document()["collections"]
        yield _by_state(rows)
        yield from self._per_collection(rows)

    def _per_collection(self, rows: Any) -> Iterator[GaugeMetricFamily]:
        vectors = GaugeMetricFamily("vecstow_collection_vectors", "Live vectors.", labels=["collection"])
        counts = {row["name"]: row["vector_count"] for row in rows}
        for name, count in bounded(counts, self._collections_max).items():
            vectors.add_metric([name], count)
        yield vectors


def bounded(values: dict[str, float], collections_max: int) -> dict[str, float]:
    """The `collections_max` largest values by name, the sum of the others under `_other`."""
    if len(values) <= collections_max:
        return values
    ordered = sorted(values, key=lambda name: (-values[name], name))
    kept = {name: values[name] for name in ordered[:collections_max]}
    return kept | {OTHER: sum(values[name] for name in ordered[collections_max:])}


def _by_state(rows: Any) -> GaugeMetricFamily:
    family = GaugeMetricFamily("vecstow_collections", "Collections by state.", labels=["state"])
    found = Counter(row["state"] for row in rows)
    for state in STATES:
        family.add_metric([state], found[state])
    return family
