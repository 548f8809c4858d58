"""Every request passes the limits, the last resort and the clock."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from tests.unit.asgi_client import docs_service
from vecstow_engine.api import fastapi_app
from vecstow_engine.service.request_memory import Part

MIB = 1 << 20
SEARCH = "/collections/docs/search"
QUERY = {"vector": [1, 2, 3]}


async def test_an_unexpected_error_is_a_500_without_its_text():
    client, engine = docs_service()
    engine.fails = RuntimeError("secret detail")
    with capture_logs() as lines:
        reply = await client.call("POST", SEARCH, QUERY)
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert reply.json["details"]["hint"] == "the server's log has the reason"
    assert [line["event"] for line in lines] == ["request failed", "request"]
    assert lines[0]["log_level"] == "error"


async def test_an_unexpected_error_behind_fastapi_is_a_500_too():
    client, engine = docs_service()
    engine.collections = None
    with capture_logs():
        reply = await client.call("GET", "/collections/docs")
    assert (reply.status, reply.json["success"]) == (500, False)


async def test_a_body_over_the_limit_is_413_and_ends_the_connection():
    client, _ = docs_service()
    body = b"x" * 2_000_001
    reply = await client.call("POST", SEARCH, body=body)
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert reply.json["details"]["limit"] == 2_000_000
    reply = await client.call("POST", SEARCH, chunks=[b"x" * 1_000_000] * 3)
    assert (reply.status, reply.headers["connection"]) == (413, "close")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("POST", SEARCH, id="hot"),
        pytest.param("POST", "/collections", id="cold"),
        pytest.param("DELETE", "/collections/docs", id="not wanted"),
    ],
)
async def test_what_a_large_body_took_is_given_back(method, path):
    client, _ = docs_service()
    assert (await client.call(method, path, body=b" " * 60_000)).status == 400
    metrics = (await client.call("GET", "/metrics")).body
    for part in (b"bodies", b"decoded", b"answers"):
        assert b'vecstow_request_memory_bytes{part="%s"} 0.0' % part in metrics


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        pytest.param("POST", SEARCH, 4 * MIB, id="search"),
        pytest.param("POST", "/collections/docs/vectors", 4 * MIB, id="insert"),
        pytest.param("PUT", "/collections/docs/vectors/a", 4 * MIB, id="replace"),
        pytest.param("POST", "/collections/docs/vectors/get", 12 * MIB, id="get"),
        pytest.param("POST", "/collections/docs/vectors/delete", 12 * MIB, id="delete"),
        pytest.param("POST", "/collections/docs/vectors/batch", 20 * MIB, id="batch"),
        pytest.param("POST", f"{SEARCH}/groups", 4 * MIB, id="groups"),
        pytest.param("POST", f"{SEARCH}/batch", 16 * MIB, id="searches"),
        pytest.param("POST", "/collections/docs/recommend", 16 * MIB, id="recommend"),
        pytest.param("POST", "/collections", 512 * 1024, id="create"),
        pytest.param("POST", "/collections/restore", 64 * 1024, id="small"),
        pytest.param("DELETE", "/collections/docs", 64 * 1024, id="without body"),
        pytest.param("POST", "/state/refresh", 16 * MIB, id="findings"),
    ],
)
async def test_each_route_has_a_body_limit_of_its_own(method, path, limit):
    client, _ = docs_service(body_bytes_max=20 * MIB)
    headers = {"content-length": str(limit + 1)}
    reply = await client.call(method, path, chunks=[b""], headers=headers)
    assert (reply.status, reply.json["details"]["limit"]) == (413, limit)


async def test_while_large_requests_fill_the_account_small_ones_and_findings_are_answered():
    client, engine = docs_service()
    large = engine.requests.lease()
    large.hold(Part.BODIES, engine.requests.large_bytes_max)
    assert (await client.call("POST", SEARCH, {"vector": [1, 2, 3]})).status == 200
    refused = await client.call("POST", SEARCH, body=b'{"vector": [1, 2, 3]' + b" " * 200_000 + b"}")
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    findings = b'{"a": 1' + b" " * 200_000 + b"}"
    assert (await client.call("POST", "/state/refresh", body=findings)).status == 200
    large.release()
    assert engine.requests.held_bytes == [0, 0, 0]


async def test_a_wrong_content_type_is_refused_before_its_body_is_read():
    client, _ = docs_service()
    headers = {"content-type": "text/csv", "content-length": "99999999"}
    reply = await client.call("POST", SEARCH, chunks=[b"x"], headers=headers)
    assert reply.status == 415


@asynccontextmanager
async def under_way(client, engine):
    """A search that is not answered before the block ends."""
    running, go_on = asyncio.Event(), asyncio.Event()

    async def search(name, query):
        running.set()
        await go_on.wait()
        return []

    engine.search = search
    first = asyncio.create_task(client.call("POST", SEARCH, QUERY))
    await running.wait()
    yield
    go_on.set()
    assert (await first).status == 200


async def test_over_the_limit_of_requests_in_flight_the_answer_is_429():
    client, engine = docs_service(requests_in_flight_max=1)
    async with under_way(client, engine):
        reply = await client.call("POST", SEARCH, QUERY)
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert (await client.call("GET", "/health/live")).status == 200
    assert (await client.call("POST", SEARCH, QUERY)).status == 200


async def test_a_busy_engine_tells_its_state_and_takes_pokes():
    """Or the operator would say of every collection that it is not ready."""
    client, engine = docs_service(requests_in_flight_max=1)
    async with under_way(client, engine):
        assert (await client.call("POST", SEARCH, QUERY)).status == 429
        assert (await client.call("GET", "/state")).status == 200
        assert (await client.call("POST", "/state/refresh", {"docs": 1})).status == 200
    assert ("refresh", {"docs": 1}) in engine.calls


async def test_requests_for_the_state_have_a_limit_of_their_own():
    client, engine = docs_service(state_requests_max=1)
    asked, go_on = threading.Event(), threading.Event()
    document = engine.state_document

    def wait():
        asked.set()
        assert go_on.wait(20)
        return document()

    engine.state_document = wait
    first = asyncio.create_task(client.call("GET", "/state"))
    await asyncio.to_thread(asked.wait, 20)
    for method, path in (("GET", "/state"), ("POST", "/state/refresh")):
        reply = await client.call(method, path)
        assert (reply.status, reply.headers["retry-after"], reply.json["details"]["limit"]) == (429, "1", 1)
    assert (await client.call("POST", SEARCH, QUERY)).status == 200
    go_on.set()
    assert (await first).status == 200
    assert (await client.call("GET", "/state")).status == 200


async def test_state_is_not_told_before_the_volume_is_discovered():
    """No collection would look like none."""
    client, engine = docs_service()
    engine.discovered = False
    assert (await client.call("GET", "/state")).status == 503
    assert (await client.call("POST", "/state/refresh")).status == 503


async def test_a_cancelled_request_is_told_that_the_server_stops():
    client, engine = docs_service()
    running = asyncio.Event()

    async def search(name, query):
        running.set()
        await asyncio.Event().wait()

    engine.search = search
    request = asyncio.create_task(client.call("POST", SEARCH, QUERY))
    await running.wait()
    request.cancel()
    reply = await request
    assert (reply.status, reply.json["message"]) == (503, "the server is shutting down")


async def test_large_json_batches_let_others_in_between():
    client, _ = docs_service(dimension=512, body_bytes_max=100_000_000)
    points = [{"data": [0.123456789] * 512} for _ in range(200)]
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(count_turns())
    assert (await client.call("POST", "/collections/docs/vectors/batch", {"vectors": points})).status == 200
    other.cancel()
    assert turns >= 4


async def test_a_vector_far_too_long_is_refused_unparsed():
    client, _ = docs_service(body_bytes_max=100_000_000)
    body = b'{"data": [' + b"0," * 1_000_000 + b"0]}"
    reply = await client.call("POST", "/collections/docs/vectors", body=body)
    assert (reply.status, reply.json["details"]["value"]) == (400, 1_000_001)


@pytest.mark.parametrize(
    ("method", "path", "status", "level"),
    [
        pytest.param("POST", SEARCH, 200, "debug", id="hot"),
        pytest.param("GET", "/collections", 200, "debug", id="reading"),
        pytest.param("HEAD", "/collections", 200, "debug", id="asking for no body"),
        pytest.param("DELETE", "/collections/docs", 200, "info", id="changing"),
        pytest.param("POST", "/state/refresh", 200, "debug", id="by the clock"),
        pytest.param("POST", SEARCH, 500, "warning", id="failing"),
    ],
)
async def test_requests_are_logged_by_weight(method, path, status, level, caplog):
    caplog.set_level(logging.DEBUG, "vecstow_engine.api.dispatch")
    client, engine = docs_service()
    if status == 500:
        engine.fails = RuntimeError()
    with capture_logs() as lines:
        await client.call(method, path, QUERY if path == SEARCH else None)
    assert (lines[-1]["log_level"], lines[-1]["status"], lines[-1]["path"]) == (level, status, path)


async def test_at_info_nothing_is_written_for_a_search(caplog):
    caplog.set_level(logging.INFO, "vecstow_engine.api.dispatch")
    client, _ = docs_service()
    with capture_logs() as lines:
        await client.call("POST", SEARCH, QUERY)
    assert lines == []


async def test_fastapi_that_could_not_be_loaded_is_loaded_again_and_does_not_disturb_the_end(monkeypatch):
    client, _ = docs_service()
    create, errors = fastapi_app.create_fastapi, [OSError(24, "Too many open files") for _ in range(2)]

    def fail_first(*arguments):
        if errors:
            raise errors.pop()
        return create(*arguments)

    monkeypatch.setattr(fastapi_app, "create_fastapi", fail_first)
    assert (await client.call("GET", "/collections")).status == 500
    events, sent = asyncio.Queue(), []
    events.put_nowait({"type": "lifespan.startup"})
    events.put_nowait({"type": "lifespan.shutdown"})

    async def send(message):
        sent.append(message["type"])

    await client.app({"type": "lifespan"}, events.get, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (await client.call("GET", "/collections")).status == 500
    assert (await client.call("GET", "/collections")).status == 200
