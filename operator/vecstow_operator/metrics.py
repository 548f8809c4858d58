"""The metrics of both roles. docs/operator.md lists each metric, and a test compares the two."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.process_collector import ProcessCollector


class Metrics:
    """The metrics of one role, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconciles = Counter(
            "vecstow_operator_reconciles", "Resources or manifests that were changed", registry=self.registry
        )
        self.errors = Counter(
            "vecstow_operator_errors",
            "What could not be done, by whom it failed: api_server, engine, volume, operator",
            ["source"],
            registry=self.registry,
        )
        self.pass_seconds = Histogram(
            "vecstow_operator_pass_seconds",
            "Duration of a pass",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "vecstow_operator_queue_depth", "Changes that this pass has still to make", registry=self.registry
        )
        self.resources = Gauge(
            "vecstow_operator_resources", "Resources in the last complete list", registry=self.registry
        )
        self.orphans = Gauge(
            "vecstow_operator_orphans", "Collections without a resource", registry=self.registry
        )
        self.not_ready = Gauge(
            "vecstow_operator_not_ready",
            "Resources that are not Ready, by the reason",
            ["reason"],
            registry=self.registry,
        )
        self._complete_at = time.monotonic()
        age = Gauge(
            "vecstow_operator_last_complete_pass_age_seconds",
            "Since a pass had a complete list of resources",
            registry=self.registry,
        )
        age.set_function(lambda: self.complete_pass_age_seconds)

    @property
    def complete_pass_age_seconds(self) -> float:
        """The time since a pass knew all resources, or since the start when none did."""
        return time.monotonic() - self._complete_at

    def pass_was_complete(self) -> None:
        """Record that this pass knew all resources."""
        self._complete_at = time.monotonic()

    @contextmanager
    def timed_pass(self) -> Iterator[None]:
        """Measure the pass that runs inside the with block."""
        with self.pass_seconds.time():
            yield
