"""Clients that mean harm, or do it: the engine's memory stays bounded and the others are served."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.engine_process import EngineProcess
from tests.waiting import SECONDS_MAX

MIB = 1 << 20
PIECE = b" " * MIB
SEARCH = "/collections/docs/search"
QUERY = {"vector": [1, 2, 3]}


@pytest.fixture
def engine(tmp_path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "data", "--body-seconds-max", "5") as engine:
        httpx.post(
            f"{engine.url}/collections",
            json={"name": "docs", "dimension": 3, "distance_metric": "Cosine"},
            timeout=SECONDS_MAX,
        )
        httpx.post(
            f"{engine.url}/collections/docs/vectors", json={"id": "a", "data": [1, 2, 3]}, timeout=SECONDS_MAX
        )
        yield engine


def connect(engine: EngineProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", engine.port), SECONDS_MAX)


def peak_bytes(engine: EngineProcess) -> int:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{engine.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def answer(connection: socket.socket) -> tuple[int, dict]:
    """The status and the envelope of the answer, read until the server closes."""
    raw = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(MIB):
            raw += piece
    first, _, body = raw.partition(b"\r\n\r\n")
    return int(first.split()[1]), json.loads(body)


def assert_others_are_served(engine: EngineProcess) -> None:
    hits = httpx.post(engine.url + SEARCH, json=QUERY, timeout=SECONDS_MAX).json()["data"]
    assert [hit["id"] for hit in hits] == ["a"]


class Watch:
    """Search in a thread, from before the block begins until it ends; a search without an answer fails."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine = engine
        self._answered = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: set[int | str] = set()

    def __enter__(self) -> Watch:
        self._thread.start()
        assert self._answered.wait(SECONDS_MAX)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._engine.url, timeout=SECONDS_MAX) as client:
            while not self._done.is_set():
                try:
                    self.answers.add(client.post(SEARCH, json=QUERY).status_code)
                except httpx.HTTPError as error:
                    self.answers.add(repr(error))
                self._answered.set()


def test_two_hundred_idle_connections_disturb_nobody(engine):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(engine))
        assert_others_are_served(engine)


def test_more_connections_than_the_limit_make_room_for_each_other(engine):
    with contextlib.ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(connect(engine))
        assert_others_are_served(engine)


def test_more_unfinished_requests_than_connections_do_not_block_the_probes(tmp_path):
    """Health, metrics and state are answered, and a search gets a 429."""
    with EngineProcess(tmp_path / "data") as engine, contextlib.ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(connect(engine)).sendall(head(SEARCH, "Content-Length: 10"))
        for path in ("/state", "/health/live", "/ready", "/metrics"):
            assert httpx.get(engine.url + path, timeout=SECONDS_MAX).status_code == 200
        assert httpx.post(f"{engine.url}/state/refresh", timeout=SECONDS_MAX).status_code == 200
        assert httpx.post(engine.url + SEARCH, json=QUERY, timeout=SECONDS_MAX).status_code == 429


def test_a_slow_body_is_given_up_and_disturbs_nobody(engine):
    with connect(engine) as connection:
        connection.sendall(head(SEARCH, "Content-Length: 1000") + b'{"vector"')
        assert_others_are_served(engine)
        assert answer(connection)[0] == 408


def test_a_body_of_a_gigabyte_that_says_so_is_refused_unread(engine):
    before = peak_bytes(engine)
    with connect(engine) as connection:
        connection.sendall(head(SEARCH, f"Content-Length: {1024 * MIB}"))
        status, document = answer(connection)
    assert (status, document["details"]["limit"]) == (413, 4 * MIB)
    assert peak_bytes(engine) - before < 20 * MIB


def test_a_body_of_a_gigabyte_in_chunks_is_refused_at_the_limit(engine):
    before = peak_bytes(engine)
    with connect(engine) as connection, Watch(engine) as watch:
        connection.sendall(head(SEARCH, "Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            for _ in range(1024):
                connection.sendall(b"100000\r\n" + PIECE + b"\r\n")
        status, document = answer(connection)
    assert (status, document["details"]["limit"]) == (413, 4 * MIB)
    assert peak_bytes(engine) - before < 20 * MIB
    assert watch.answers == {200}


def test_an_honest_client_of_a_body_too_large_reads_the_answer(engine):
    """Most clients send all before they read: reset meanwhile, they would never see why."""
    with connect(engine) as connection:
        connection.sendall(head(SEARCH, f"Content-Length: {80 * MIB}"))
        for _ in range(80):
            connection.sendall(PIECE)
        assert answer(connection)[0] == 413


@pytest.mark.parametrize(
    ("target", "body"),
    [
        pytest.param("/collections/docs/vectors", b'{"data": [%s]}', id="insert"),
        pytest.param("/collections/docs/vectors/batch", b'{"vectors": [{"data": [%s]}]}', id="batch"),
        pytest.param(SEARCH, b'{"vector": [%s]}', id="search"),
    ],
)
def test_a_vector_of_a_million_floats_is_refused(engine, target, body):
    content = body % (b"0.1," * 1_000_000 + b"1")
    before = peak_bytes(engine)
    with Watch(engine) as watch:
        response = httpx.post(
            engine.url + target,
            content=content,
            headers={"Content-Type": "application/json"},
            timeout=SECONDS_MAX,
        )
    assert (response.status_code, response.json()["details"]["value"]) == (400, 1_000_001)
    assert peak_bytes(engine) - before < 30 * MIB
    assert watch.answers == {200}


def test_many_large_bodies_at_once_share_a_budget(engine):
    before = peak_bytes(engine)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(engine)) for _ in range(16)]
        threads = [threading.Thread(target=send_most, args=(connection,)) for connection in connections]
        with Watch(engine) as watch:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            statuses = [answer(connection)[0] for connection in connections]
    assert set(statuses) <= {408, 429}
    assert 429 in statuses
    assert peak_bytes(engine) - before < 500 * MIB
    assert watch.answers == {200}


def send_most(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionError):
        connection.sendall(head("/collections/docs/vectors/batch", f"Content-Length: {60 * MIB}"))
        for _ in range(50):
            connection.sendall(PIECE)


def test_endless_headers_are_refused(engine):
    before = peak_bytes(engine)
    with connect(engine) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                connection.sendall(b"y" * MIB)
    assert peak_bytes(engine) - before < 20 * MIB
    assert_others_are_served(engine)


def test_a_flood_of_requests_whose_answers_nobody_reads_stays_small(engine):
    before = peak_bytes(engine)
    flood = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
    with connect(engine) as connection:
        connection.settimeout(2)
        with contextlib.suppress(OSError):
            for _ in range(1000):
                connection.sendall(flood)
        assert_others_are_served(engine)
    assert peak_bytes(engine) - before < 50 * MIB


def test_deeply_nested_json_is_refused(engine):
    for body in (b"[" * 10 * MIB, b'{"vector": [1, 2, 3], "filter": ' + b'{"$not": ' * MIB):
        response = httpx.post(
            engine.url + SEARCH,
            content=body,
            headers={"Content-Type": "application/json"},
            timeout=SECONDS_MAX,
        )
        assert 400 <= response.status_code < 500
    assert_others_are_served(engine)
