"""The engine's figures as metrics, read at each scrape: no figure is kept twice or gets stale."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vecstow_engine.service.attempts import Work

if TYPE_CHECKING:
    from vecstow_engine.service.engine import Engine

STATES: Final = ("recovering", "ready", "degraded", "read_only", "quarantined", "foreign")
OTHER: Final = "_other"
"""The label for the sum of the collections beyond the limit; no legal collection name begins with `_`."""
NAMES: Final = "_names"
"""The label for the names of the volume: while present, no collection can be made, dropped or restored."""

PER_COLLECTION: Final = (
    ("vecstow_collection_vectors", "Live vectors.", "vector_count"),
    ("vecstow_collection_indexed_vectors", "Live vectors that the graph holds.", "indexed"),
    ("vecstow_collection_wal_bytes", "Bytes of the write-ahead log.", "log_bytes"),
    ("vecstow_collection_overlay_bytes", "Memory of changes that no checkpoint has.", "overlay_bytes"),
)
"""For each metric its name, its help text, and the key in a row of `GET /state`."""


class EngineCollector(Collector):
    """The gauges of the volume and its collections. At most `collections_max` collections have a label."""

    def __init__(self, engine: Engine, collections_max: int) -> None:
        self._engine = engine
        self._collections_max = collections_max

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return no metrics to check at registration: the engine may not have started yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, from one pass over the collections' states."""
        yield _gauge("vecstow_ready", "Whether the volume is discovered.", self._engine.ready)
        if not self._engine.ready:
            return
        state: Any = self._engine.state_document()
        rows = state["collections"]
        yield _by_state(rows)
        yield self._read_only(state)
        yield from self._volume()
        yield from self._memory()
        yield from (self._per_collection(rows, *family) for family in PER_COLLECTION)
        yield self._self_recall(rows)
        yield self._failed_attempts()
        yield _gauge(
            "vecstow_checkpoint_lag_seconds",
            "Age of the oldest change that no checkpoint has; 0 when there is none.",
            self._checkpoint_lag_seconds(),
        )

    def _volume(self) -> Iterator[GaugeMetricFamily]:
        volume = self._engine.volume
        if volume is None:
            return
        room = volume.room()
        yield _gauge("vecstow_volume_bytes", "Size of the volume's file system.", room.total_bytes)
        yield _gauge("vecstow_volume_available_bytes", "What of it is free.", room.available_bytes)
        spent = "Whether the reserve is spent: writes are refused until there is room."
        yield _gauge("vecstow_volume_full", spent, volume.full)

    def _memory(self) -> Iterator[GaugeMetricFamily]:
        accounts = self._engine.accounts
        plan = accounts.plan
        yield _gauge("vecstow_memory_limit_bytes", "Memory that the engine may take.", plan.limit_bytes)
        parts = accounts.parts() | {"requests": sum(self._engine.requests.held_bytes)}
        yield _by_part("vecstow_memory_bytes", "Memory that the engine's parts take.", parts)
        shares = {
            "base": plan.base_bytes,
            "requests": plan.request_bytes,
            "changes": plan.change_bytes,
            "work": plan.work_bytes,
            "data": plan.data_bytes,
        }
        yield _by_part("vecstow_memory_plan_bytes", "How the memory limit is divided.", shares)
        waiting = "Collections with a graph or a rebuild that waits for memory."
        yield _gauge("vecstow_memory_postponed_collections", waiting, accounts.postponed())

    def _read_only(self, state: Any) -> GaugeMetricFamily:
        """Return the read-only collections; the label `_names` stands for a failed sync of a name."""
        family = GaugeMetricFamily(
            "vecstow_read_only",
            "Collections that take no writes until the next start, because a sync failed.",
            labels=["collection"],
        )
        names = [row["name"] for row in state["collections"] if row["state"] == "read_only"]
        for name in names[: self._collections_max] + [NAMES] * (state["failure"] is not None):
            family.add_metric([name], 1)
        return family

    def _failed_attempts(self) -> CounterMetricFamily:
        family = CounterMetricFamily(
            "vecstow_work_failures",
            "Failed attempts at the engine's own work for a collection, by kind of work.",
            labels=["work"],
        )
        for work in Work:
            family.add_metric([work.value], self._engine.attempts.failures[work])
        return family

    def _per_collection(self, rows: Any, name: str, text: str, key: str) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=["collection"])
        values = {row["name"]: row.get(key, 0) for row in rows}
        for collection, value in bounded(values, self._collections_max).items():
            family.add_metric([collection], value)
        return family

    def _self_recall(self, rows: Any) -> GaugeMetricFamily:
        """Return the least shares only: a sum over the other collections would have no meaning."""
        family = GaugeMetricFamily(
            "vecstow_collection_self_recall",
            "Share of a sample that found itself when `check` measured it last.", labels=["collection"],
        )  # fmt: skip
        measured = [(row["self_recall"], row["name"]) for row in rows if row.get("self_recall") is not None]
        for share, name in sorted(measured)[: self._collections_max]:
            family.add_metric([name], share)
        return family

    def _checkpoint_lag_seconds(self) -> float:
        now = time.monotonic()
        changed_at = [collection.changed_at for collection in self._engine.registry.collections()]
        return max((now - moment for moment in changed_at if moment is not None), default=0.0)


def bounded(values: dict[str, float], collections_max: int) -> dict[str, float]:
    """Return the `collections_max` largest values by name, and the sum of the others under `_other`."""
    if len(values) <= collections_max:
        return values
    ordered = sorted(values, key=lambda name: (-values[name], name))
    kept = {name: values[name] for name in ordered[:collections_max]}
    return kept | {OTHER: sum(values[name] for name in ordered[collections_max:])}


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], float(value))
    return family


def _by_part(name: str, text: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["part"])
    for part, value in values.items():
        family.add_metric([part], float(value))
    return family


def _by_state(rows: Any) -> GaugeMetricFamily:
    family = GaugeMetricFamily("vecstow_collections", "Collections by state.", labels=["state"])
    found = Counter(row["state"] for row in rows)
    for state in STATES:
        family.add_metric([state], found[state])
    return family
