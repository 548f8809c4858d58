"""The settings of the HTTP server: each limits a resource that clients could otherwise use up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """How the server listens and what it grants a client."""

    backlog: int = 1024
    """Connections that the kernel holds before they are accepted."""
    connections_max: int = 512
    """Open connections; beyond it the one idle for longest is closed. Half of the usual 1,024 descriptors."""
    requests_in_flight_max: int = 400
    """Requests being read or answered; beyond it the answer is 429, except for health, metrics and state. So
    many fewer than connections that these always find one."""
    state_requests_max: int = 16
    """Requests to /state and /state/refresh being read or answered; beyond it these are answered 429."""
    pipelined_max: int = 64
    """Requests of one connection that wait behind the first."""
    header_bytes_max: int = 65_536
    """Request line and headers of one request."""
    header_seconds_max: float = 20.0
    """Time for the headers to arrive; also what a fresh connection may stay silent."""
    keep_alive_seconds: int = 75
    """Idle time after which a connection is closed; longer than clients and proxies keep theirs."""
    body_seconds_max: float = 30.0
    """Time for the next piece of a body, and the grace that a slow one has."""
    body_bytes_per_second_min: int = 65_536
    """Rate that a body must keep up on the whole, its first seconds apart."""
    findings_bytes_max: int = 16 * 1024 * 1024
    """Largest body of POST /state/refresh: what the sidecar finds in 10,000 collections takes 4 MiB."""
    answer_bytes_per_second_min: int = 262_144
    """Rate at which a client must take an answer on the whole, else it is disconnected."""
    write_stall_seconds_max: float = 60.0
    """Grace that an answer has on top of that, and time without progress after which a client is
    disconnected."""
    drain_seconds: float = 0.0
    """Time after SIGTERM in which requests still come in, each the last of its connection, and `/ready` says
    no: longer than the senders of requests take to notice."""
    shutdown_grace_seconds: int = 20
    """Time after that for requests in flight, before they are answered 503."""
    metrics_collections_max: int = 100
    """Collections with a label of their own in /metrics; the others are summed up as `_other`."""
