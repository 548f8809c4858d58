"""HTTP/1.1 as clients speak it, byte for byte, against a real engine (RFC 9110, RFC 9112)."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.engine_process import EngineProcess
from tests.waiting import SECONDS_MAX, wait_for

QUERY = b'{"vector": [1, 2, 3]}'
HOST = b"Host: x\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(QUERY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(QUERY), QUERY)
LIST = b"GET /collections HTTP/1.1\r\n" + HOST + b"\r\n"
DROP = b"DELETE /collections/docs HTTP/1.1\r\n" + HOST + b"\r\n"
DECLARED = {"name": "docs", "dimension": 3, "distance_metric": "Cosine"}
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "two": b"Upgrade: h2c, TLS/1.0\r\nUpgrade: IRC/6.9\r\nConnection: upgrade\r\n",
}


@dataclass
class Answer:
    """One answer on a connection, an interim one included."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Connection:
    """A socket to the engine; answers are read one by one."""

    def __init__(self, engine: EngineProcess) -> None:
        self._socket = socket.create_connection(("127.0.0.1", engine.port), SECONDS_MAX)
        self._read = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, *segments: bytes) -> Connection:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for segment in segments:
            self._socket.sendall(segment)
        return self

    def send_no_more(self) -> Connection:
        self._socket.shutdown(socket.SHUT_WR)
        return self

    def leave(self) -> None:
        """Reset the connection."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def answer(self, *, to_head: bool = False) -> Answer | None:
        """The next answer; None when the connection is closed."""
        while b"\r\n\r\n" not in self._read:
            if not self._receive():
                assert self._read == b""
                return None
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = 0 if to_head else int(headers.get("content-length", 0))
        while len(self._read) < length:
            assert self._receive(), "the body is cut"
        body, self._read = self._read[:length], self._read[length:]
        return Answer(int(first.split()[1]), headers, body)

    def _receive(self) -> bool:
        with contextlib.suppress(ConnectionResetError):
            piece = self._socket.recv(1 << 16)
            self._read += piece
            return bool(piece)
        return False


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path_factory.mktemp("http") / "data", "--log-level", "debug") as engine:
        yield engine


@pytest.fixture
def engine(running) -> Iterator[EngineProcess]:
    """An engine with the collection `docs`, which every test leaves as it is."""
    httpx.post(f"{running.url}/collections", json=DECLARED, params={"if_exists": "ok"}, timeout=SECONDS_MAX)
    yield running
    assert httpx.get(f"{running.url}/collections", timeout=SECONDS_MAX).json()["data"] == ["docs"]
    assert "Traceback" not in running.log.read_text()


@pytest.fixture
def connection(engine) -> Iterator[Connection]:
    with Connection(engine) as connection:
        yield connection


def search(*headers: bytes, version: bytes = b"1.1") -> bytes:
    return b"POST /collections/docs/search HTTP/%s\r\n" % version + b"".join(headers) + b"\r\n"


def requests_counted(engine: EngineProcess) -> dict[str, float]:
    """Requests to search, by status."""
    lines = httpx.get(f"{engine.url}/metrics", timeout=SECONDS_MAX).text.splitlines()
    name = "vecstow_http_requests_total{"
    found = [line for line in lines if line.startswith(name) and "/search" in line]
    return {line.split('status="')[1][:3]: float(line.split()[-1]) for line in found}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=list(OFFERS))
@pytest.mark.parametrize(
    ("frame", "body"), [pytest.param(LENGTH, QUERY, id="length"), pytest.param(CHUNKED, CHUNKS, id="chunks")]
)
def test_an_offered_upgrade_is_ignored_and_the_body_read(engine, offer, frame, body):
    head = search(HOST, offer, frame)
    for sent in ([head + body], [head, body], [head + body[:9], body[9:]], [bytes([c]) for c in head + body]):
        with Connection(engine) as connection:
            connection.send(*sent, LIST)
            assert connection.answer().json["data"] == []
            assert connection.answer().json["data"] == ["docs"]


def test_offers_of_pipelined_requests_are_ignored_one_after_the_other(connection):
    one = search(HOST, OFFERS["h2c"], LENGTH) + QUERY
    connection.send(one * 5 + LIST)
    assert [connection.answer().status for _ in range(6)] == [200] * 6


@pytest.mark.parametrize("offer", [b"", *OFFERS.values()], ids=["none", *OFFERS])
def test_a_request_inside_a_body_is_not_run(connection, offer):
    connection.send(search(HOST, offer, b"Content-Length: %d\r\n" % len(DROP)), DROP, LIST)
    assert connection.answer().status == 400
    assert connection.answer().json["data"] == ["docs"]


@pytest.mark.parametrize("offer", [b"", *OFFERS.values()], ids=["none", *OFFERS])
def test_the_body_of_a_dry_run_is_not_dropped(connection, offer):
    head = b"POST /collections/docs/repair HTTP/1.1\r\n" + HOST + offer
    connection.send(head + b"Content-Length: 18\r\n\r\n", b'{"dry_run": "yes"}')
    assert connection.answer().status == 422


@pytest.mark.parametrize("target", [b"/collections/docs/repair", b"/collections/docs/search", b"/hold"])
@pytest.mark.parametrize("frame", [b"Content-Length: 40\r\n\r\n", CHUNKED + b"\r\n30\r\n"])
def test_a_client_that_hangs_up_during_its_upload_is_a_499_and_changes_nothing(engine, target, frame):
    def gone() -> int:
        return engine.log.read_text().count("status=499")

    before = gone()
    for sent in (b"", b"{", b'{"dry_run": true}'):
        with Connection(engine) as connection:
            connection.send(b"POST " + target + b" HTTP/1.1\r\n" + HOST + frame + sent)
    wait_for(lambda: gone() == before + 3, "a 499 for each client that hung up")
    assert httpx.get(f"{engine.url}/state", timeout=SECONDS_MAX).json()["data"]["held"] is False
    assert not [status for status in requests_counted(engine) if status.startswith("5")]


def test_a_client_that_leaves_its_pipelined_answers_is_no_error(engine):
    for _ in range(20):
        with Connection(engine) as connection:
            connection.send((search(HOST, LENGTH) + QUERY) * 8).leave()
    with Connection(engine) as connection:
        connection.send(LIST)
        assert connection.answer().status == 200
    assert "500" not in requests_counted(engine)


def test_a_connection_cut_at_any_byte_changes_nothing(engine):
    whole = search(HOST, LENGTH) + QUERY
    for length in range(len(whole)):
        with Connection(engine) as connection:
            connection.send(whole[:length])
    assert not [status for status in requests_counted(engine) if status.startswith("5")]


def test_a_client_that_sends_no_more_still_gets_its_answers(connection):
    connection.send(LIST * 2).send_no_more()
    assert [connection.answer().status, connection.answer().status] == [200, 200]
    assert connection.answer() is None


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"x-gzip", b"gzip, identity"])
@pytest.mark.parametrize("target", [b"/collections/docs/search", b"/collections/docs/repair", b"/hold"])
def test_a_coded_body_is_a_415(connection, coding, target):
    headers = b"Content-Encoding: " + coding + b"\r\nContent-Length: 2\r\n\r\n"
    connection.send(b"POST " + target + b" HTTP/1.1\r\n" + HOST + headers + b"{}")
    answer = connection.answer()
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "identity")
    assert "Content-Encoding" in answer.json["details"]["hint"]


def test_a_body_that_comes_as_it_is_may_say_so(connection):
    connection.send(search(HOST, LENGTH, b"Content-Encoding: Identity\r\n") + QUERY)
    assert connection.answer().status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [("/collections", 200), ("/health/live", 200), ("/state", 200), ("/collections/docs", 200),
     ("/collections/docs/vectors/none", 404), ("/nope", 404), ("/hold", 405)],
)  # fmt: skip
def test_head_is_get_without_the_body(connection, path, status):
    connection.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\nGET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, got = connection.answer(to_head=True), connection.answer()
    assert (head.status, got.status) == (status, status)
    assert head.headers.keys() == got.headers.keys()
    if status != 405:
        assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(LIST.replace(HOST, HOST + b"X: a\r\n b\r\n"), id="obs-fold"),
        pytest.param(LIST.replace(HOST, b""), id="no host"),
        pytest.param(LIST.replace(HOST, HOST + HOST), id="two hosts"),
        pytest.param(LIST.replace(HOST, b"Host: a b\r\n"), id="no such host"),
        pytest.param(LIST.replace(HOST, b"Host: a/b\r\n"), id="a path for a host"),
        pytest.param(LIST.replace(HOST, HOST + b"X: a\0b\r\n"), id="NUL"),
        pytest.param(LIST.replace(HOST, HOST + b"X: a\x01b\r\n"), id="control character"),
        pytest.param(LIST.replace(HOST, HOST + b"X\xc3: a\r\n"), id="a name that is no token"),
        pytest.param(LIST.replace(HOST, HOST + b"X : a\r\n"), id="space before the colon"),
        pytest.param(LIST.replace(b"\r\n", b"\n"), id="bare LF"),
        pytest.param(LIST.replace(b"\r\n", b"\r"), id="bare CR"),
        pytest.param(LIST.replace(b"1.1", b"2.0"), id="HTTP/2.0"),
        pytest.param(LIST.replace(b"1.1", b"1.2"), id="HTTP/1.2"),
        pytest.param(b"GET /collections\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", id="HTTP/2 preface"),
        pytest.param(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", id="TLS"),
        pytest.param(LIST.replace(b"GET", b"get"), id="lower case"),
        pytest.param(LIST.replace(b"GET", b"FOO"), id="unknown method"),
        pytest.param(b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", id="CONNECT"),
        pytest.param(LIST.replace(b"ons HTTP", b"ons /x HTTP"), id="space in the target"),
        pytest.param(LIST.replace(b"ons", b"\xc3\xb6ns"), id="target not ASCII"),
        pytest.param(search(HOST, LENGTH, CHUNKED) + CHUNKS, id="length and chunks"),
        pytest.param(search(HOST, CHUNKED, LENGTH) + CHUNKS, id="chunks and length"),
        pytest.param(search(HOST, LENGTH, b"Content-Length: 3\r\n") + QUERY, id="two lengths"),
        pytest.param(search(HOST, LENGTH, LENGTH) + QUERY, id="one length twice"),
        *(
            pytest.param(search(HOST, b"Content-Length: %s\r\n" % length) + QUERY, id=f"length {length!r}")
            for length in (b"+21", b"-21", b"0x15", b"2 1", b"2_1", b"21, 21", b"9" * 30, b"")
        ),
        *(
            pytest.param(search(HOST, b"Transfer-Encoding: %s\r\n" % coding) + CHUNKS, id=f"{coding!r}")
            for coding in (b"gzip, chunked", b"xchunked", b"gzip", b"identity", b"chunked, chunked", b"")
        ),
        pytest.param(search(HOST, CHUNKED, CHUNKED) + CHUNKS, id="chunked twice"),
        *(
            pytest.param(search(HOST, CHUNKED) + size + b"\r\n" + QUERY + b"\r\n0\r\n\r\n", id=size.decode())
            for size in (b"f" * 17, b"-15", b"+15", b"0x15", b"15 ", b"x")
        ),
        pytest.param(search(HOST, CHUNKED) + CHUNKS.replace(b"\r\n", b"\n"), id="chunks that end in LF"),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(connection, sent):
    """So that no proxy in front sees another request than the engine does."""
    connection.send(sent + DROP)
    answer = connection.answer()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert (answer.json["success"], answer.json["details"]["kind"]) == (False, "Malformed")
    assert connection.answer() is None


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        pytest.param(search(HOST, b"Content-Length: 00021\r\n"), QUERY, id="zeros before the length"),
        pytest.param(search(HOST, b"Transfer-Encoding:\tCHUNKED \r\n"), CHUNKS, id="upper case"),
        pytest.param(search(HOST, CHUNKED), b'15;a;b="c"\r\n' + QUERY + b"\r\n0;x\r\n\r\n", id="extensions"),
        pytest.param(search(HOST, CHUNKED), CHUNKS[:-2] + b"X: 1\r\n\r\n", id="trailers"),
        pytest.param(b"\r\n" + search(HOST, LENGTH), QUERY, id="an empty line before"),
        pytest.param(search(b"Host:\r\n", LENGTH), QUERY, id="empty host"),
        pytest.param(search(b"Host: [::1]:99999\r\n", LENGTH), QUERY, id="an address and another port"),
        pytest.param(search(HOST, LENGTH).replace(b" /", b" http://other:99/"), QUERY, id="absolute form"),
        pytest.param(search(HOST, LENGTH, b"X: \xff\xfe\r\n"), QUERY, id="a value not ASCII"),
    ],
)
def test_what_can_be_read_in_one_way_only_is_answered_and_the_connection_kept(connection, sent, body):
    connection.send(sent + body + LIST)
    assert connection.answer().json["data"] == []
    assert connection.answer().json["data"] == ["docs"]


@pytest.mark.parametrize(
    "trailer",
    [HOST, b"Content-Type: text/plain\r\n", b"Content-Encoding: gzip\r\n", b"Expect: x\r\n"],
)
def test_what_trails_a_body_is_no_header(connection, trailer):
    connection.send(search(HOST, CHUNKED) + CHUNKS[:-2] + trailer + b"\r\n" + LIST)
    assert [connection.answer().status, connection.answer().json["data"]] == [200, ["docs"]]


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(CHUNKS[:-2] + b"X: y\r\n" * 400_000, id="trailers"),
        pytest.param(CHUNKS[:-2] + b"X: " + b"y" * 2_400_000, id="one trailer"),
        pytest.param(b"1;" + b"y" * 2_400_000, id="an extension"),
    ],
)
def test_what_stands_between_pieces_of_a_body_is_limited_like_headers(connection, flood):
    with contextlib.suppress(ConnectionError):
        connection.send(search(HOST, CHUNKED), flood)
    answer = connection.answer()
    assert answer is None or answer.status == 400, "a reset may overtake the refusal"
    assert connection.answer() is None


def test_two_formats_of_one_body_are_refused(connection):
    kinds = b"Content-Type: application/json\r\nContent-Type: application/msgpack\r\n"
    connection.send(search(HOST, LENGTH, kinds) + QUERY)
    assert connection.answer().status == 400


@pytest.mark.parametrize("codings", [(b"gzip", b"identity"), (b"identity", b"gzip")])
def test_a_coding_in_any_line_is_a_415(connection, codings):
    lines = [b"Content-Encoding: %s\r\n" % coding for coding in codings]
    connection.send(search(HOST, LENGTH, *lines) + QUERY)
    assert connection.answer().status == 415


@pytest.mark.parametrize(
    ("target", "status"),
    [("//collections", 404), ("//x/collections", 404), ("/collections;a=b", 404), ("/%63ollections", 404),
     ("/collections/../collections", 404), ("/collections%2fdocs", 404), ("/collections/", 404), ("*", 404),
     ("/collections/%2e%2e", 400), ("/collections/%zz", 400), ("/collections/%00", 400),
     ("/collections#x", 200), ("/collections?" + "a" * 60_000, 400),
     ("/collections/docs/vectors/%2e%2e", 400)],
)  # fmt: skip
def test_a_path_is_taken_as_it_was_sent(connection, target, status):
    connection.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert connection.answer().status == status


def test_an_expectation_is_met_before_the_body_is_sent(connection):
    connection.send(search(HOST, LENGTH, b"Expect: 100-Continue\r\n"))
    assert connection.answer().status == 100
    assert connection.send(QUERY).answer().status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param(b"Content-Length: 999999999\r\n", 413, id="too large"),
        pytest.param(LENGTH + b"Content-Encoding: gzip\r\n", 415, id="compressed"),
    ],
)
def test_who_waits_for_the_interim_answer_gets_the_refusal_instead(connection, headers, status):
    connection.send(search(HOST, headers, b"Expect: 100-continue\r\n"))
    assert connection.answer().status == status


def test_another_expectation_is_a_417(connection):
    connection.send(search(HOST, LENGTH, b"Expect: 200-maybe\r\n") + QUERY)
    answer = connection.answer()
    assert (answer.status, answer.json["details"]["kind"]) == (417, "UnknownExpectation")


@pytest.mark.parametrize("headers", [b"", HOST, b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n"])
def test_http_1_0_is_answered_once_and_closed(connection, headers):
    connection.send(search(headers, LENGTH, version=b"1.0") + QUERY)
    answer = connection.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert connection.answer() is None


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
def test_a_body_where_none_is_taken_is_refused_and_not_run(connection, method):
    head = b"%s /collections/docs HTTP/1.1\r\nContent-Length: %d\r\n" % (method.encode(), len(DROP))
    connection.send(head + HOST + b"\r\n", DROP, LIST)
    assert connection.answer(to_head=method == "HEAD").status == 400
    assert connection.answer().json["data"] == ["docs"]


def test_requests_behind_a_refused_one_are_answered(connection):
    connection.send(search(HOST, b"Content-Length: 2\r\n") + b"[]" + LIST)
    assert [connection.answer().status, connection.answer().status] == [422, 200]


def test_requests_behind_the_last_of_a_connection_are_not_run(connection):
    connection.send(LIST.replace(HOST, HOST + b"Connection: close\r\n") + DROP)
    assert connection.answer().status == 200
    assert connection.answer() is None


def test_requests_behind_a_body_that_is_not_read_are_not_run(connection):
    head = b"POST /collections/docs/repair HTTP/1.1\r\nContent-Type: text/x\r\nContent-Length: 2\r\n"
    connection.send(head + HOST + b"\r\n{}" + DROP)
    assert (connection.answer().status, connection.answer()) == (415, None)


@pytest.mark.parametrize("junk", [b"junk junk\r\n\r\n", search(HOST, CHUNKED) + b"zz\r\n"])
def test_answers_come_before_the_refusal_of_what_follows(connection, junk):
    connection.send((search(HOST, LENGTH) + QUERY) * 3 + junk)
    assert [connection.answer().status for _ in range(4)] == [200, 200, 200, 400]
    assert connection.answer() is None
