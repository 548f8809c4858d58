"""`vecstow serve` as a process: its start, its end, and what it says when it cannot serve."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess

import httpx
import pytest

from tests.engine_process import VECSTOW, EngineProcess
from tests.ports import free_port
from tests.waiting import SECONDS_MAX, wait_for


def refused(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [VECSTOW, "serve", "--log-format", "json", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_and_with_zero(tmp_path, number):
    with EngineProcess(tmp_path / "data") as engine:
        engine.process.send_signal(number)
        assert engine.process.wait(SECONDS_MAX) == 0
        engine.process = None
    assert "stopped" in engine.log.read_text()


def test_a_second_engine_on_the_volume_is_refused(tmp_path):
    with EngineProcess(tmp_path / "data"):
        second = refused("--data", tmp_path / "data", "--port", free_port())
    assert second.returncode == 1
    errors = [json.loads(line) for line in second.stderr.splitlines() if '"error"' in line]
    assert errors[0]["event"] == "the data directory cannot be served"


@pytest.fixture
def waiting(tmp_path):
    """An engine that waits for the volume of another engine; the fixture yields the other one first."""
    data = tmp_path / "data"
    second = EngineProcess(data, "--lock-wait-seconds", 60)
    with EngineProcess(data) as first, contextlib.ExitStack() as ending:
        ending.callback(second.kill)
        second.start("/health/live")
        wait_for(lambda: "waiting for the volume" in second.log.read_text(), second.log.read_text)
        assert httpx.get(f"{second.url}/ready", timeout=SECONDS_MAX, trust_env=False).status_code == 503
        yield first, second


def test_an_engine_that_waits_for_the_volume_takes_it_when_it_is_free(waiting):
    first, second = waiting
    assert first.stop() == 0
    wait_for(
        lambda: httpx.get(f"{second.url}/ready", timeout=SECONDS_MAX, trust_env=False).is_success,
        second.log.read_text,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_the_volume(waiting, number):
    _, second = waiting
    second.process.send_signal(number)
    assert second.process.wait(SECONDS_MAX) == 0
    second.process = None


def test_a_taken_port_is_refused_before_the_volume_is_touched(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        answer = refused("--data", tmp_path / "data", "--port", taken.getsockname()[1])
    assert answer.returncode == 1
    assert "cannot listen" in answer.stderr
    assert not (tmp_path / "data" / "LOCK").exists()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")
def test_on_all_addresses_of_ipv6_it_answers_ipv4_too(tmp_path):
    """Its sidecar asks 127.0.0.1, wherever the pod's own address is."""
    with EngineProcess(tmp_path / "data", "--host", "::", "--without-keys") as engine:
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{engine.port}/ready", timeout=SECONDS_MAX).status_code == 200
        answer = refused("--data", tmp_path / "other", "--port", engine.port)
    assert "cannot listen" in answer.stderr


def test_a_write_in_flight_at_sigterm_is_answered_and_kept(tmp_path):
    with EngineProcess(tmp_path / "data") as engine:
        httpx.post(
            f"{engine.url}/collections",
            timeout=SECONDS_MAX,
            json={"name": "docs", "dimension": 3, "distance_metric": "Cosine"},
        )
        body = b'{"vectors": [' + b",".join([b'{"data": [1, 2, 3]}'] * 2000) + b"]}"
        head = (
            f"POST /collections/docs/vectors/batch HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", engine.port), SECONDS_MAX) as connection:
            connection.sendall(head.encode() + body[:-10])
            # Answered after the server read what was sent before.
            httpx.get(f"{engine.url}/health/live", timeout=SECONDS_MAX)
            engine.process.send_signal(signal.SIGTERM)
            while accepts(engine.port):
                pass
            connection.sendall(body[-10:])
            answer = connection.makefile("rb").read()
        assert engine.process.wait(60) == 0
        engine.process = None
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        engine.start()
        stats = httpx.get(f"{engine.url}/collections/docs/stats", timeout=SECONDS_MAX).json()["data"]
        assert stats["vector_count"] == 2000


def test_a_request_that_outlives_the_grace_is_told_so(tmp_path):
    with EngineProcess(tmp_path / "data", "--shutdown-grace-seconds", 1) as engine:
        with socket.create_connection(("127.0.0.1", engine.port), SECONDS_MAX) as connection:
            connection.sendall(b"POST /collections HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
            httpx.get(f"{engine.url}/health/live", timeout=SECONDS_MAX)
            engine.process.send_signal(signal.SIGTERM)
            answer = connection.makefile("rb").read()
        assert engine.process.wait(60) == 0
        engine.process = None
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"shutting down" in answer


def test_findings_in_ten_thousand_collections_are_taken_and_told(tmp_path):
    findings = [
        {
            "collection": f"{number:064}",
            "resource_uid": f"{number:036}",
            "reason": "DataMissing",
            "message": "the data is not on this volume: " + "it was on another " * 10,
            "hint": f"kubectl annotate --overwrite vcol {number:064} vecstow.dev/accept-empty={number:032}",
        }
        for number in range(10_000)
    ]
    with EngineProcess(tmp_path / "data") as engine:
        told = httpx.post(f"{engine.url}/state/refresh", json={"resources": findings}, timeout=SECONDS_MAX)
        assert (told.status_code, len(told.request.content) > 4_000_000) == (200, True)
        state = httpx.get(f"{engine.url}/state", timeout=SECONDS_MAX).json()["data"]
        assert state["findings"]["resources"] == findings
        more = httpx.post(
            f"{engine.url}/state/refresh", json={"resources": 4 * findings}, timeout=SECONDS_MAX
        )
        assert (more.status_code, more.json()["details"]["limit"]) == (413, 16 * 1024 * 1024)


def accepts(port: int) -> bool:
    """Whether the engine still takes connections: from its shutdown on it does not."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionError:
        return False
    return True


def test_a_drain_answers_each_connection_once_more_until_a_second_signal(tmp_path):
    with EngineProcess(tmp_path / "data", "--drain-seconds", 60) as engine:
        with (
            httpx.Client(base_url=engine.url, timeout=SECONDS_MAX, trust_env=False) as kept,
            socket.socket() as silent,
        ):
            assert "connection" not in kept.get("/health/live").headers
            silent.connect(("127.0.0.1", engine.port))
            engine.process.send_signal(signal.SIGTERM)
            while "connection" not in (answer := kept.get("/collections")).headers:
                pass
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            assert kept.get("/ready").status_code == 503
            assert kept.get("/health/live").status_code == 200
            silent.sendall(b"GET /collections HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"connection: close" in silent.makefile("rb").read().lower()
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(SECONDS_MAX) == 0
        engine.process = None
