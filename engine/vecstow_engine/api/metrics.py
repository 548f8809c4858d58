"""The metrics, named by Prometheus' conventions: base units, `_total` for counters.

Source: https://prometheus.io/docs/practices/naming/. Requests are counted. The engine's figures are read at
each scrape: no figure is kept twice or gets stale.
"""

from __future__ import annotations

import time
from collections import Counter as Multiset
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vecstow_engine.service.attempts import Work
from vecstow_engine.service.request_memory import Part, RequestMemory

if TYPE_CHECKING:
    from vecstow_engine.api.key_file import KeyFile
    from vecstow_engine.service.engine import Engine

DURATION_BUCKETS_SECONDS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

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
    ("vecstow_payload_index_bytes", "Memory of the payload indexes.", "payload_index_bytes"),
)
"""For each metric its name, its help text, and the key in a row of `GET /state`."""


class HttpMetrics:
    """The counts and times of requests by route; label objects are looked up once per combination."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = Counter(
            "vecstow_http_requests_total",
            "HTTP requests answered.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._durations = Histogram(
            "vecstow_http_request_duration_seconds",
            "Time from the first byte of a request's headers handled to its answer sent.",
            ("route", "method"),
            buckets=DURATION_BUCKETS_SECONDS,
            registry=registry,
        )
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def watch(self, in_flight: Callable[[], float], memory: RequestMemory) -> None:
        """Register the metrics of requests in flight, whose number the dispatcher keeps, and their memory."""
        gauge = Gauge("vecstow_http_requests_in_flight", "Requests being answered.", registry=self.registry)
        gauge.set_function(in_flight)
        self.registry.register(_MemoryCollector(memory))

    def watch_keys(self, keys: KeyFile) -> None:
        """Register the metrics of the file of API keys, named like Prometheus' own reload metrics."""
        for name, text, value in (
            ("vecstow_keys", "API keys in force.", lambda: len(keys.ring.keys)),
            (
                "vecstow_keys_last_reload_successful",
                "Whether the file of API keys, as it is now, is in force.",
                lambda: keys.is_sound,
            ),
            (
                "vecstow_keys_last_reload_success_timestamp_seconds",
                "When keys were read from the file last, in seconds since 1970.",
                lambda: keys.loaded_at,
            ),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a template, never a path that a client sent."""
        if method not in _METHODS:
            method = "other"
        counter = self._counters.get((route, method, status))
        if counter is None:
            counter = self._requests.labels(route, method, str(status))
            self._counters[route, method, status] = counter
        counter.inc()
        histogram = self._histograms.get((route, method))
        if histogram is None:
            histogram = self._histograms[route, method] = self._durations.labels(route, method)
        histogram.observe(seconds)


class _MemoryCollector(Collector):
    """The memory of requests by parts, read at each scrape."""

    def __init__(self, memory: RequestMemory) -> None:
        self._memory = memory

    def collect(self) -> Iterator[Metric]:
        """Yield gauges of the held memory and of the limit, and a counter of refused requests."""
        memory = self._memory
        yield _family(
            GaugeMetricFamily,
            "vecstow_request_memory_bytes",
            "Memory of requests: bodies, what they are decoded to, answers that are not sent yet.",
            "part",
            {part.name.lower(): memory.held_bytes[part] for part in Part},
        )
        yield _family(
            CounterMetricFamily,
            "vecstow_request_memory_refused",
            "Requests refused because a part of them did not fit.",
            "part",
            {part.name.lower(): memory.refused[part] for part in Part},
        )
        text = "What all requests together may take."
        yield GaugeMetricFamily("vecstow_request_memory_limit_bytes", text, memory.bytes_max)


class EngineCollector(Collector):
    """The gauges of the volume and its collections. At most `collections_max` collections have a label."""

    def __init__(self, engine: Engine, collections_max: int) -> None:
        self._engine = engine
        self._collections_max = collections_max

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics, from one pass over the collections' states."""
        engine = self._engine
        yield GaugeMetricFamily("vecstow_ready", "Whether the volume is discovered.", engine.discovered)
        if not engine.discovered:
            return
        state: Any = engine.state_document()
        rows = state["collections"]
        found = Multiset(row["state"] for row in rows)
        by_state = {state: found[state] for state in STATES}
        yield _family(GaugeMetricFamily, "vecstow_collections", "Collections by state.", "state", by_state)
        yield self._read_only(state)
        yield from _aliases(state["aliases"])
        yield from self._volume()
        yield from self._memory()
        for name, text, key in PER_COLLECTION:
            values = {row["name"]: row.get(key, 0) for row in rows}
            bound = bounded(values, self._collections_max)
            yield _family(GaugeMetricFamily, name, text, "collection", bound)
        yield self._self_recall(rows)
        yield _family(
            CounterMetricFamily,
            "vecstow_work_failures",
            "Failed attempts at the engine's own work for a collection, by kind of work.",
            "work",
            {work.value: engine.attempts.failures[work] for work in Work},
        )
        yield GaugeMetricFamily(
            "vecstow_checkpoint_lag_seconds",
            "Age of the oldest change that no checkpoint has; 0 when there is none.",
            self._checkpoint_lag_seconds(),
        )

    def _volume(self) -> Iterator[Metric]:
        volume = self._engine.volume
        if volume is None:
            return
        room = volume.room()
        yield GaugeMetricFamily("vecstow_volume_bytes", "Size of the volume's file system.", room.total_bytes)
        yield GaugeMetricFamily("vecstow_volume_available_bytes", "What of it is free.", room.available_bytes)
        spent = "Whether the reserve is spent: writes are refused until there is room."
        yield GaugeMetricFamily("vecstow_volume_full", spent, volume.full)

    def _memory(self) -> Iterator[Metric]:
        accounts = self._engine.accounts
        plan = accounts.plan
        limit = "Memory that the engine may take."
        yield GaugeMetricFamily("vecstow_memory_limit_bytes", limit, plan.limit_bytes)
        parts = accounts.parts() | {"requests": sum(self._engine.requests.held_bytes)}
        taken = "Memory that the engine's parts take."
        yield _family(GaugeMetricFamily, "vecstow_memory_bytes", taken, "part", parts)
        shares = {
            "base": plan.base_bytes,
            "requests": plan.request_bytes,
            "changes": plan.change_bytes,
            "work": plan.work_bytes,
            "data": plan.data_bytes,
        }
        divided = "How the memory limit is divided."
        yield _family(GaugeMetricFamily, "vecstow_memory_plan_bytes", divided, "part", shares)
        waiting = "Collections with a graph or a rebuild that waits for memory."
        yield GaugeMetricFamily("vecstow_memory_postponed_collections", waiting, accounts.postponed())

    def _read_only(self, state: Any) -> Metric:
        """Return the read-only collections; the label `_names` stands for a failed sync of a name."""
        names = [row["name"] for row in state["collections"] if row["state"] == "read_only"]
        names = names[: self._collections_max] + [NAMES] * (state["failure"] is not None)
        text = "Collections that take no writes until the next start or a repair, mostly after a failed sync."
        return _family(GaugeMetricFamily, "vecstow_read_only", text, "collection", dict.fromkeys(names, 1))

    def _self_recall(self, rows: Any) -> Metric:
        """Return the least shares only: a sum over the other collections would have no meaning."""
        measured = [(row["self_recall"], row["name"]) for row in rows if row.get("self_recall") is not None]
        least = {name: share for share, name in sorted(measured)[: self._collections_max]}
        text = "Share of a sample that found itself when `check` measured it last."
        return _family(GaugeMetricFamily, "vecstow_collection_self_recall", text, "collection", least)

    def _checkpoint_lag_seconds(self) -> float:
        now = time.monotonic()
        changed_at = [collection.changed_at for collection in self._engine.registry.collections()]
        return max((now - moment for moment in changed_at if moment is not None), default=0.0)


def _aliases(state: Any) -> Iterator[Metric]:
    lost = len(state["problems"])
    by_state = {"served": state["count"] - lost, "not_served": lost}
    text = "Aliases by state: those not served lead nowhere, or have the name of a collection."
    yield _family(GaugeMetricFamily, "vecstow_aliases", text, "state", by_state)
    text = "Whether the file of aliases cannot be read."
    yield GaugeMetricFamily("vecstow_aliases_unreadable", text, state["fault"] is not None)


def bounded(values: dict[str, float], collections_max: int) -> dict[str, float]:
    """Return the `collections_max` largest values by name, and the sum of the others under `_other`."""
    if len(values) <= collections_max:
        return values
    ordered = sorted(values, key=lambda name: (-values[name], name))
    kept = {name: values[name] for name in ordered[:collections_max]}
    return kept | {OTHER: sum(values[name] for name in ordered[collections_max:])}


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    """Return the metric with one value for each value of its one label."""
    family = kind(name, text, labels=[label])
    for labelled, value in values.items():
        family.add_metric([labelled], value)
    return family
