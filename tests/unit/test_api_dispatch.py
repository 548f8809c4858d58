"""What every request passes: limits, the last resort, the clock."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from tests.unit.asgi_client import docs_service
from vecstow_engine.api.bodies import FREE_BYTES

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
    assert (await client.call(method, path, body=b" " * 100_000)).status == 400
    metrics = (await client.call("GET", "/metrics")).body
    assert b"vecstow_http_body_memory_bytes 0.0" in metrics


async def test_a_route_without_vectors_takes_small_bodies_only():
    client, _ = docs_service(small_body_bytes_max=100)
    reply = await client.call("POST", "/collections", body=b" " * 101)
    assert (reply.status, reply.json["details"]["limit"]) == (413, 100)


async def test_findings_have_a_limit_and_memory_of_their_own():
    """Uploads that take all the memory there is for bodies keep no finding from being told."""
    client, engine = docs_service(
        small_body_bytes_max=10, body_memory_bytes_max=0, findings_bytes_max=2 * FREE_BYTES
    )
    asked, go_on = threading.Event(), threading.Event()

    def wait(findings):
        asked.set()
        assert go_on.wait(20)

    engine.refresh = wait
    body = b'{"a": 1' + b" " * FREE_BYTES + b"}"
    first = asyncio.create_task(client.call("POST", "/state/refresh", body=body))
    await asyncio.to_thread(asked.wait, 20)
    assert (await client.call("POST", "/state/refresh", body=2 * body)).status == 413
    assert (await client.call("POST", "/state/refresh", body=body)).status == 429
    assert (await client.call("POST", SEARCH, body=body)).status == 429
    go_on.set()
    assert (await first).status == 200
    assert (await client.call("POST", "/state/refresh", body=body)).status == 200
    assert b"vecstow_http_body_memory_bytes 0.0" in (await client.call("GET", "/metrics")).body


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
    engine.ready = False
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
    client, engine = docs_service(dimension=512)
    engine.settings.limits.body_bytes_max = 100_000_000
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
    client, engine = docs_service()
    engine.settings.limits.body_bytes_max = 100_000_000
    body = b'{"data": [' + b"0," * 1_000_000 + b"0]}"
    reply = await client.call("POST", "/collections/docs/vectors", body=body)
    assert (reply.status, reply.json["details"]["value"]) == (400, 1_000_001)


@pytest.mark.parametrize(
    ("method", "path", "status", "level"),
    [
        pytest.param("POST", SEARCH, 200, "debug", id="hot"),
        pytest.param("GET", "/collections", 200, "debug", id="reading"),
        pytest.param("HEAD", "/collections", 405, "debug", id="asking for no body"),
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
