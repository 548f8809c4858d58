"""The HTTP metrics, named by Prometheus' conventions: base units, `_total` for counters.

Source: https://prometheus.io/docs/practices/naming/. `collector` has the engine's figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

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

from vecstow_engine.service.request_memory import Part, RequestMemory

if TYPE_CHECKING:
    from vecstow_engine.api.key_file import KeyFile

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

    def watch(self, in_flight: Callable[[], float]) -> None:
        """Register the gauge of requests in flight, whose number the dispatcher keeps."""
        gauge = Gauge("vecstow_http_requests_in_flight", "Requests being answered.", registry=self.registry)
        gauge.set_function(in_flight)

    def watch_memory(self, memory: RequestMemory) -> None:
        """Register the metrics of the memory of requests."""
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
        held = GaugeMetricFamily(
            "vecstow_request_memory_bytes",
            "Memory of requests: bodies, what they are decoded to, answers that are not sent yet.",
            labels=["part"],
        )
        refused = CounterMetricFamily(
            "vecstow_request_memory_refused",
            "Requests refused because a part of them did not fit.",
            labels=["part"],
        )
        for part in Part:
            held.add_metric([part.name.lower()], self._memory.held_bytes[part])
            refused.add_metric([part.name.lower()], self._memory.refused[part])
        yield held
        yield refused
        yield GaugeMetricFamily(
            "vecstow_request_memory_limit_bytes",
            "What all requests together may take.",
            value=self._memory.bytes_max,
        )
