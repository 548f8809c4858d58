"""/healthz and /metrics: liveness fails only when the loop of passes stands still."""

import inspect
import socket
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from vecstow_operator import cli
from vecstow_operator import health as health_module
from vecstow_operator.health import EVERY_ADDRESS, STANDSTILL_SECONDS_MAX, Heartbeat, Metrics, serve_health


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def role():
    """One role's health, over HTTP."""
    clock, metrics = Clock(), Metrics()
    metrics.heartbeat = heartbeat = Heartbeat(clock)
    server = serve_health("127.0.0.1", 0, metrics)
    with urllib3.PoolManager(retries=False, timeout=10.0) as pool:

        def get(path):
            answer = pool.request("GET", f"http://127.0.0.1:{server.server_port}{path}")
            return answer.status, answer.data.decode()

        yield SimpleNamespace(
            clock=clock, metrics=metrics, heartbeat=heartbeat, get=get, port=server.server_port
        )
    server.shutdown()
    server.server_close()


# Liveness --------------------------------------------------------------------------------------------------


def test_role_is_healthy_from_its_start(role):
    assert role.get("/healthz") == (200, "ok\n")


def test_loop_that_stands_still_fails_the_probe(role):
    role.clock.seconds += STANDSTILL_SECONDS_MAX
    assert role.get("/healthz")[0] == 200
    role.clock.seconds += 1
    assert role.get("/healthz") == (503, "the loop of passes stands still\n")


def test_one_beat_is_enough(role):
    role.clock.seconds += STANDSTILL_SECONDS_MAX
    role.heartbeat.beat()
    role.clock.seconds += STANDSTILL_SECONDS_MAX
    assert role.get("/healthz")[0] == 200


def test_metrics_are_answered_while_the_loop_stands_still(role):
    role.clock.seconds += 2 * STANDSTILL_SECONDS_MAX
    assert role.get("/metrics")[0] == 200


def test_client_that_says_nothing_keeps_no_probe_waiting(role):
    with socket.create_connection(("127.0.0.1", role.port)):
        assert role.get("/healthz")[0] == 200


@contextmanager
def answering(host):
    """Its port."""
    server = serve_health(host, 0, Metrics())
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        pytest.param("::1", ["[::1]"], id="of IPv6 alone"),
        pytest.param(EVERY_ADDRESS, ["[::1]", "127.0.0.1"], id="of both"),
    ],
)
def test_pod_answers_at_its_addresses(host, asked):
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with answering(host) as port, urllib3.PoolManager(retries=False, timeout=10.0) as pool:
        for address in asked:
            assert pool.request("GET", f"http://{address}:{port}/healthz").status == 200


def test_machine_without_ipv6_answers_at_what_it_has(monkeypatch):
    def server_bind(self):
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(health_module._ServerOfIPv6, "server_bind", server_bind)
    with answering(EVERY_ADDRESS) as port, urllib3.PoolManager(retries=False, timeout=10.0) as pool:
        assert pool.request("GET", f"http://127.0.0.1:{port}/healthz").status == 200
    with pytest.raises(OSError, match="Cannot assign"), answering("::1"):
        raise AssertionError("it listens")


@pytest.mark.parametrize("role", [cli.sidecar, cli.manager])
def test_role_answers_at_every_address_unless_told_otherwise(role):
    assert inspect.signature(role).parameters["health_host"].default == EVERY_ADDRESS


@pytest.mark.parametrize("path", ["/", "/healthz/", "/ready", "/metrics/x"])
def test_other_path_is_not_found(role, path):
    assert role.get(path) == (404, "known are /healthz and /metrics\n")


# Metrics ---------------------------------------------------------------------------------------------------

NAMES = {
    "vecstow_operator_reconciles": "counter",
    "vecstow_operator_errors": "counter",
    "vecstow_operator_pass_seconds": "histogram",
    "vecstow_operator_queue_depth": "gauge",
    "vecstow_operator_resources": "gauge",
    "vecstow_operator_not_ready": "gauge",
    "vecstow_operator_orphans": "gauge",
    "vecstow_operator_last_complete_pass_age_seconds": "gauge",
}


def test_every_metric_is_exposed_with_a_help_text(role):
    families = {family.name: family for family in text_string_to_metric_families(role.get("/metrics")[1])}
    own = {
        name: family
        for name, family in families.items()
        if name.startswith("vecstow_") and not name.endswith("_created")
    }
    assert {name: family.type for name, family in own.items()} == NAMES
    assert all(family.documentation for family in own.values())
    assert "process_resident_memory_bytes" in families


def test_two_roles_in_one_process_count_apart():
    first, second = Metrics(), Metrics()
    first.reconciles.inc()
    assert first.registry.get_sample_value("vecstow_operator_reconciles_total") == 1
    assert second.registry.get_sample_value("vecstow_operator_reconciles_total") == 0


def test_pass_that_raises_is_timed_too():
    metrics = Metrics()
    with pytest.raises(ValueError, match="no"), metrics.pass_seconds.time():
        raise ValueError("no")
    assert metrics.registry.get_sample_value("vecstow_operator_pass_seconds_count") == 1


def test_age_of_the_last_complete_list_grows_until_the_next_one(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(health_module, "time", SimpleNamespace(monotonic=clock))
    metrics = Metrics()
    clock.seconds += 40
    name = "vecstow_operator_last_complete_pass_age_seconds"
    assert metrics.registry.get_sample_value(name) == 40
    metrics.pass_was_complete()
    clock.seconds += 2
    assert metrics.registry.get_sample_value(name) == 2
