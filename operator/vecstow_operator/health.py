"""The health of a role: its metrics and its heartbeat, and the thread that serves `/metrics` and `/healthz`.

docs/operator.md lists each metric, and a test compares the two. Liveness fails only when a restart would
help: the loop of passes stands still. An API server or an engine that is away does not fail it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.process_collector import ProcessCollector

STANDSTILL_SECONDS_MAX: Final = 300.0
"""Longer than any step of a pass without a beat: a step is a few requests, each with a time limit."""
EVERY_ADDRESS: Final = "::"
"""All addresses of IPv6 and IPv4, or of IPv4 alone on a machine without IPv6."""
REQUEST_SECONDS_MAX: Final = 10
"""The longest time for a client to send its request."""


class Metrics:
    """The metrics of one role, in a separate registry, and its heartbeat."""

    def __init__(self) -> None:
        self.heartbeat = Heartbeat()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        self.reconciles = counter("vecstow_operator_reconciles", "Resources or manifests that were changed")
        self.errors = counter(
            "vecstow_operator_errors",
            "What could not be done, by whom it failed: api_server, engine, volume, operator",
            ["source"],
        )
        self.pass_seconds = Histogram(
            "vecstow_operator_pass_seconds",
            "Duration of a pass",
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
            registry=self.registry,
        )
        self.queue_depth = gauge("vecstow_operator_queue_depth", "Changes that this pass has still to make")
        self.resources = gauge("vecstow_operator_resources", "Resources in the last complete list")
        self.orphans = gauge("vecstow_operator_orphans", "Collections without a resource")
        self.not_ready = gauge(
            "vecstow_operator_not_ready", "Resources that are not Ready, by the reason", ["reason"]
        )
        self.pass_was_complete()
        age = gauge(
            "vecstow_operator_last_complete_pass_age_seconds", "Since a pass had a complete list of resources"
        )
        age.set_function(lambda: time.monotonic() - self._complete_at)

    def pass_was_complete(self) -> None:
        """Record that this pass knew all resources."""
        self._complete_at = time.monotonic()


@dataclass(slots=True)
class Heartbeat:
    """The time of the last sign of life: the loop of passes beats after each step that may take long."""

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    _beaten_at: float = 0.0

    def __post_init__(self) -> None:
        self.beat()

    def beat(self) -> None:
        """Record that the loop is alive."""
        self._beaten_at = self.clock()

    @property
    def stands_still(self) -> bool:
        """Whether the loop has not beaten for so long that it never will."""
        return self.clock() - self._beaten_at > STANDSTILL_SECONDS_MAX


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a thread for each client: a silent client must not delay the probes."""

    daemon_threads = True


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Bind to IPv6 and IPv4, regardless of the machine's default."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Quiet(WSGIRequestHandler):
    timeout = REQUEST_SECONDS_MAX

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes are not worth a line."""


def serve_health(host: str, port: int, metrics: Metrics) -> WSGIServer:
    """Serve until `shutdown()`. Port 0 takes a free one (`server_port`)."""
    measured = make_wsgi_app(metrics.registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            exposition: Iterable[bytes] = measured(environ, start)
            return exposition
        if environ["PATH_INFO"] != "/healthz":
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"known are /healthz and /metrics\n"]
        ill = metrics.heartbeat.stands_still
        start("503 Service Unavailable" if ill else "200 OK", [("Content-Type", "text/plain")])
        return [b"the loop of passes stands still\n" if ill else b"ok\n"]

    server = _listening(host, port, answer)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def _listening(host: str, port: int, answer: Callable[..., Iterable[bytes]]) -> WSGIServer:
    kind = _ServerOfIPv6 if ":" in host else _Server
    try:
        return make_server(host, port, answer, server_class=kind, handler_class=_Quiet)
    except OSError:
        if host != EVERY_ADDRESS:
            raise
        return _listening("0.0.0.0", port, answer)
