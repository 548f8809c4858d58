"""Every route under adversarial bodies: the engine stays up, below its memory, and serves the others."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from tests.hostile.bodies import (
    Body,
    anywhere,
    of_batch,
    of_count,
    of_deletion,
    of_examples,
    of_facet,
    of_groups,
    of_ids,
    of_payload_change,
    of_point,
    of_scroll,
    of_search,
    of_searches,
    packed,
)
from tests.hostile.conftest import LIMIT_BYTES
from tests.hostile.site import MIB, LimitedEngine, Neighbours
from vecstow_engine.api.access import ACCESS

SENDERS = 6
SMALL = 60_000
SLOW_CLIENTS = 60
_ROOT = "/collections/{collection}"


def hot(size: int, of_route: Callable[[int], Iterable[Body]]) -> Iterable[Body]:
    """Bodies for a route of points: those of its own in full size, the others smaller."""
    return chain(of_route(size), anywhere(size), packed(min(size, MIB)))


BODIES: dict[tuple[str, str], Callable[[], Iterable[Body]]] = {
    ("POST", f"{_ROOT}/search"): lambda: hot(4 * MIB - 100, of_search),
    ("POST", f"{_ROOT}/search/batch"): lambda: hot(12 * MIB, of_searches),
    ("POST", f"{_ROOT}/search/groups"): lambda: hot(4 * MIB - 100, of_groups),
    ("POST", f"{_ROOT}/recommend"): lambda: hot(12 * MIB, of_examples),
    ("POST", f"{_ROOT}/points/scroll"): lambda: hot(4 * MIB - 100, of_scroll),
    ("POST", f"{_ROOT}/points/count"): lambda: hot(4 * MIB - 100, of_count),
    ("POST", f"{_ROOT}/points/facet"): lambda: hot(4 * MIB - 100, of_facet),
    ("POST", f"{_ROOT}/points/delete"): lambda: hot(8 * MIB - 100, of_deletion),
    ("POST", f"{_ROOT}/points/payload"): lambda: hot(8 * MIB - 100, of_payload_change),
    ("POST", f"{_ROOT}/vectors"): lambda: hot(4 * MIB - 100, of_point),
    ("PUT", f"{_ROOT}/vectors/{{id}}"): lambda: hot(4 * MIB - 100, of_point),
    ("POST", f"{_ROOT}/vectors/batch"): lambda: hot(12 * MIB, of_batch),
    ("POST", f"{_ROOT}/vectors/get"): lambda: hot(8 * MIB - 100, of_ids),
    ("POST", f"{_ROOT}/vectors/delete"): lambda: hot(8 * MIB - 100, lambda size: list(of_ids(size))[:5]),
    ("POST", "/collections"): lambda: anywhere(512 * 1024 - 100),
    ("POST", "/state/refresh"): lambda: anywhere(8 * MIB),
}
"""By route; the others get small ones."""
WITHOUT_COLLECTION = {
    ("DELETE", _ROOT),
    ("DELETE", f"{_ROOT}/hard-delete"),
    *(("POST", f"{_ROOT}/{word}") for word in ("backup", "check", "compact", "repair")),
}
"""Routes that would destroy the collection, or work for long, whatever the body is: these name none."""


@contextlib.contextmanager
def under_watch(engine: LimitedEngine) -> Iterator[None]:
    """Whatever happens inside, the others are answered, and memory stays below the limit."""
    with Neighbours(engine) as neighbours:
        yield
    assert engine.is_alive, engine.log.read_text()[-4000:]
    for name, counted in neighbours.answers.items():
        assert set(counted) == {200}, (name, counted)
    assert engine.peak_bytes < LIMIT_BYTES


@pytest.mark.parametrize(
    ("method", "template"), [pytest.param(*route, id=" ".join(route)) for route in ACCESS]
)
def test_no_body_takes_the_engine_down(engine, method, template):
    name = "none" if (method, template) in WITHOUT_COLLECTION else "theirs"
    target = template.format(collection=name, alias=name, id="new")
    bodies = BODIES.get((method, template), lambda: anywhere(SMALL))()
    with under_watch(engine), ThreadPoolExecutor(SENDERS) as senders:
        statuses = dict(senders.map(lambda body: (body.name, engine.send(method, target, body)), bodies))
    assert {name: status for name, status in statuses.items() if status >= 500} == {}
    assert len(statuses) >= 10


@pytest.mark.parametrize(
    ("target", "body"),
    [
        pytest.param("search", b'{"vector":[1,2,3,4],"limit":200}', id="search"),
        pytest.param("points/scroll", b'{"limit":200,"with_vectors":true}', id="scroll"),
        pytest.param("vectors/get", b'{"ids":[%s]}' % b",".join(b'"p%d"' % n for n in range(200)), id="get"),
    ],
)
def test_answers_that_nobody_reads_are_bounded_and_dropped(engine, target, body):
    head = f"POST /collections/theirs/{target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with under_watch(engine), contextlib.ExitStack() as stack:
        clients = [connect(engine, stack) for _ in range(SLOW_CLIENTS)]
        for client in clients:
            client.sendall(request)
        # What a client that reads nothing was sent ends when the engine drops the connection.
        for client in clients:
            drain(client)


def test_bodies_that_never_end_hold_only_their_share(engine):
    with under_watch(engine), contextlib.ExitStack() as stack:
        clients = [connect(engine, stack) for _ in range(SLOW_CLIENTS)]
        for client in clients:
            client.sendall(
                b"POST /collections/theirs/vectors/batch HTTP/1.1\r\nHost: x\r\n"
                b"Content-Length: 30000000\r\n\r\n"
            )
            with contextlib.suppress(ConnectionError):
                client.sendall(b" " * 2 * MIB)
        for client in clients:
            drain(client)


def connect(engine: LimitedEngine, stack: contextlib.ExitStack) -> socket.socket:
    """A connection with a small window: what its client does not read stays with the engine."""
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.settimeout(120)
    client.connect(("127.0.0.1", engine.port))
    return client


def drain(client: socket.socket) -> None:
    """Read until the connection ends."""
    with contextlib.suppress(ConnectionError):
        while client.recv(MIB):
            pass
