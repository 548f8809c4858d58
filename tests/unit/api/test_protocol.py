"""Connections over real sockets, against an engine in memory: what one client may hold of the server."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import weakref
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from structlog.testing import capture_logs
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tests.unit.asgi_client import docs_service
from vecstow_engine.api.protocol import bounded_protocol
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.errors import VolumeRefused
from vecstow_engine.model.searches import Hit

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Running:
    """A server and what a test may look at."""

    port: int
    engine: Any
    connections: set[Any]


@asynccontextmanager
async def server(prepare=None, **values):
    settings = HttpSettings(**values)
    client, engine = docs_service(**values)
    if prepare is not None:
        prepare(engine)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        client.app,
        http=bounded_protocol(settings),
        lifespan="on",
        log_config=None,
        access_log=False,
        ws="none",
    )
    inner = uvicorn.Server(config)
    config.load()
    inner.lifespan = config.lifespan_class(config)
    await inner.startup(sockets=[listener])
    try:
        yield Running(listener.getsockname()[1], engine, inner.server_state.connections)
    finally:
        for connection in list(inner.server_state.connections):
            connection.transport.abort()
        await inner.shutdown(sockets=[listener])


@asynccontextmanager
async def connect(running):
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def request(method: str, path: str, body: bytes) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], dict]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, json.loads(body)


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection; waits for it."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_liveness_answers_while_the_engine_still_starts():
    discovered = threading.Event()

    def prepare(engine):
        engine.discovered = False

        def start():
            discovered.wait()
            engine.discovered = True
            engine.starts += 1

        engine.start = start

    ready = LIVE.replace(b"/health/live", b"/ready")
    async with server(prepare) as running, connect(running) as (reader, writer):
        writer.write(LIVE + ready)
        assert (await answer(reader))[0] == 200
        status, headers, document = await answer(reader)
        assert (status, headers["retry-after"], document["details"]["kind"]) == (503, "1", "Recovering")
        discovered.set()
        while running.engine.starts == 0:
            writer.write(LIVE)
            assert (await answer(reader))[0] == 200
        writer.write(ready)
        assert (await answer(reader))[0] == 200


async def test_the_engine_is_stopped_when_the_server_ends():
    async with server() as running:
        assert running.engine.stops == 0
    assert (running.engine.starts, running.engine.stops) == (1, 1)


async def test_an_engine_that_did_not_start_is_not_stopped():
    def prepare(engine):
        engine.discovered = False
        engine.fails = VolumeRefused("another engine has it")

    with capture_logs() as lines:
        async with server(prepare) as running, connect(running) as (reader, writer):
            writer.write(LIVE)
            assert (await answer(reader))[0] == 200
    assert running.engine.stops == 0
    assert "the engine failed" in [line["event"] for line in lines]


async def test_a_connection_is_used_again():
    async with server() as running, connect(running) as (reader, writer):
        for _ in range(3):
            writer.write(LIVE)
            assert (await answer(reader))[0] == 200


async def test_the_raw_path_reaches_the_route_over_http():
    async with server() as running, connect(running) as (reader, writer):
        writer.write(request("PUT", "/collections/docs/vectors/docs%2Fa.md", b'{"data": [1, 2, 3]}'))
        assert (await answer(reader))[0] == 200
        assert list(running.engine.collection("docs").points) == ["docs/a.md"]


async def test_endless_headers_are_refused_in_the_envelope():
    async with server(header_bytes_max=1000) as running, connect(running) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"y" * 2000)
        status, headers, document = await answer(reader)
        assert (status, headers["connection"], document["success"]) == (400, "close", False)
        assert await ends(reader)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /" + b"y" * 2000 + b" HTTP/1.1\r\n", id="request line"),
        pytest.param(b"GET /health/live HTTP/1.1\r\nx: " + b"y" * 2000 + b"\r\n", id="header"),
    ],
)
async def test_headers_that_come_in_one_read_are_bounded_too(head):
    async with server(header_bytes_max=1000) as running, connect(running) as (reader, writer):
        writer.write(head + b"host: x\r\n\r\n")
        assert (await answer(reader))[0] == 400
        assert await ends(reader)


async def test_body_in_the_read_of_the_headers_counts_as_no_header():
    async with server(header_bytes_max=1000) as running, connect(running) as (reader, writer):
        body = b'{"data": [1, 2, 3]}' + b" " * 2000
        writer.write(request("PUT", "/collections/docs/vectors/a", body) + LIVE)
        assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]


async def test_what_is_not_http_is_refused_in_the_envelope():
    async with server() as running, connect(running) as (reader, writer):
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        status, _, document = await answer(reader)
        assert (status, document["details"]["kind"]) == (400, "Malformed")


@pytest.mark.parametrize(
    "sent", [pytest.param(b"", id="silent"), pytest.param(b"GET / HT", id="half a line")]
)
async def test_a_client_that_does_not_finish_its_headers_is_cut_off(sent):
    async with server(header_seconds_max=0.02) as running, connect(running) as (reader, writer):
        writer.write(sent)
        assert await ends(reader)


async def test_a_body_that_does_not_come_is_408():
    async with server(body_seconds_max=0.02) as running, connect(running) as (reader, writer):
        writer.write(b"POST /collections HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (408, "close")


async def test_the_connection_idle_for_longest_makes_room():
    async with server(connections_max=2) as running, connect(running) as first, connect(running) as second:
        second[1].write(LIVE)
        assert (await answer(second[0]))[0] == 200
        async with connect(running) as third:
            third[1].write(LIVE)
            assert (await answer(third[0]))[0] == 200
            assert await ends(first[0])
            second[1].write(LIVE)
            assert (await answer(second[0]))[0] == 200


async def test_with_every_connection_busy_a_new_one_is_told_so():
    async with server(connections_max=1) as running, connect(running) as (busy_reader, busy_writer):
        began, go_on = asyncio.Event(), asyncio.Event()

        async def search(name, query):
            began.set()
            await go_on.wait()
            return []

        running.engine.search = search
        busy_writer.write(request("POST", "/collections/docs/search", b'{"vector": [1, 2, 3]}'))
        await began.wait()
        async with connect(running) as (reader, _):
            status, headers, _ = await answer(reader)
            assert (status, headers["retry-after"]) == (429, "1")
        go_on.set()
        assert (await answer(busy_reader))[0] == 200


async def test_pipelined_requests_are_answered_in_order_up_to_a_bound():
    async with server(pipelined_max=3) as running, connect(running) as (reader, writer):
        writer.write(LIVE * 3)
        assert [(await answer(reader))[0] for _ in range(3)] == [200, 200, 200]
        writer.write(LIVE * 50)
        # One is answered while three wait; the refusal of the fifth comes after their answers.
        assert [(await answer(reader))[0] for _ in range(5)] == [200, 200, 200, 200, 400]
        assert await ends(reader)


async def test_an_answered_request_is_freed_without_the_garbage_collector():
    seen = []
    finish = RequestResponseCycle.run_asgi

    async def run_asgi(cycle, app):
        seen.append(weakref.ref(cycle))
        await finish(cycle, app)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RequestResponseCycle, "run_asgi", run_asgi)
        gc.disable()
        try:
            async with server() as running, connect(running) as (reader, writer):
                for _ in range(3):
                    writer.write(request("POST", "/collections/docs/search", b'{"vector": [1, 2, 3]}'))
                    assert (await answer(reader))[0] == 200
        finally:
            gc.enable()
    assert [cycle() for cycle in seen[:2]] == [None, None]


def ask_for_large_answer(running, writer, hits):
    """Search for so many hits with 60 kB each."""
    payload = b'{"x":"' + b"y" * 60_000 + b'"}'

    async def search(name, query):
        return [Hit("a", 0.0, payload)] * hits

    running.engine.search = search
    writer.write(request("POST", "/collections/docs/search", b'{"vector": [1, 2, 3]}'))


async def test_an_answer_that_nobody_reads_is_dropped():
    async with server(write_stall_seconds_max=0.02) as running, connect(running) as (reader, writer):
        ask_for_large_answer(running, writer, 1000)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        writer.transport.pause_reading()
        [connection] = running.connections
        lost, inner = asyncio.Event(), connection.connection_lost

        def connection_lost(error):
            inner(error)
            lost.set()

        connection.connection_lost = connection_lost
        async with connect(running) as (other_reader, other_writer):
            other_writer.write(LIVE)
            assert (await answer(other_reader))[0] == 200
        await lost.wait()


async def test_client_that_reads_steadily_but_too_slowly_is_cut_off():
    """It never stalls for long enough to be noticed by that alone."""
    settings = {"write_stall_seconds_max": 2.0, "answer_bytes_per_second_min": 500_000_000}
    async with server(**settings) as running, connect(running) as (reader, writer):
        ask_for_large_answer(running, writer, 900)
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().partition(b"content-length: ")[2].split()[0])
        with suppress(ConnectionError):
            while piece := await reader.read(65_536):
                left -= len(piece)
                await asyncio.sleep(0.005)
        assert left > 0
        assert running.engine.requests.held_bytes == [0, 0, 0]
