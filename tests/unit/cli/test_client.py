"""The client of the commands: the engine's own words, patience where it is asked for, no surprises."""

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import patch

import pytest

from vecstow_engine.cli.client import Client, RequestRefused, Unreachable
from vecstow_engine.model.errors import InvalidInput


@dataclass
class Script:
    """A server that gives the prepared answers in order, and keeps what it was asked."""

    answers: list
    url: str = ""
    asked: list = field(default_factory=list)


@contextmanager
def scripted(*answers):
    """Each answer is (status, headers, body); a body that is no bytes is sent as JSON."""
    script = Script(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length", 0))
            script.asked.append((self.command, self.path, self.rfile.read(length), self.headers))
            status, headers, body = script.answers.pop(0)
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_):
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        script.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


def done(data):
    return 200, {}, {"success": True, "data": data, "error": None}


def refused(status, message, headers=None, **details):
    body = {"success": False, "data": None, "error": message, "message": message, "details": details}
    return status, headers or {}, body


class Clock:
    """Time that passes only during a sleep."""

    def __init__(self):
        self.time = 0.0
        self.slept = []

    def monotonic(self):
        return self.time

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds


@contextmanager
def connected(*answers, patience_seconds=0.0):
    """A client of a scripted server, whose time passes only while it sleeps."""
    clock = Clock()
    with (
        scripted(*answers) as script,
        patch("vecstow_engine.cli.client.time", clock),
        Client(script.url, patience_seconds=patience_seconds) as client,
    ):
        yield client, script, clock


def test_the_data_of_the_envelope_is_the_answer():
    with connected(done(["a", "b"])) as (client, script, _):
        assert client.get("collections") == ["a", "b"]
    assert script.asked[0][:2] == ("GET", "/collections")


def test_a_name_is_one_segment_of_the_path_whatever_it_has():
    with connected(done({})) as (client, script, _):
        client.get("collections", "a/b c?d", "stats")
    assert script.asked[0][1] == "/collections/a%2Fb%20c%3Fd/stats"


def test_a_prefix_in_the_address_stays():
    with scripted(done({})) as script, Client(script.url + "/engines/a/") as client:
        client.get("collections")
    assert script.asked[0][1] == "/engines/a/collections"


def test_documents_go_as_json_and_packed_bodies_as_messagepack():
    with connected(done(None), done(None)) as (client, script, _):
        client.post("hold", document={"seconds": 1})
        client.post_messagepack("collections", "a", "vectors", "batch", body=b"\x80")
    (_, _, first, first_headers), (_, _, second, second_headers) = script.asked
    assert (json.loads(first), first_headers["Content-Type"]) == ({"seconds": 1}, "application/json")
    assert (second, second_headers["Content-Type"]) == (b"\x80", "application/msgpack")


def test_a_refusal_has_the_engines_message_hint_and_status():
    answer = refused(409, "collection 'a' exists", hint="choose another name", kind="Conflict")
    with connected(answer) as (client, _, _), pytest.raises(RequestRefused) as error:
        client.post("collections", document={})
    assert (error.value.status, error.value.message) == (409, "collection 'a' exists")
    assert error.value.hint == "choose another name"


def test_no_engine_at_the_address_says_how_to_start_one():
    with scripted() as gone:
        pass
    with Client(gone.url) as client, pytest.raises(Unreachable, match="no answer from") as error:
        client.get("collections")
    assert "vecstow serve" in error.value.hint


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[]", b'{"detail": "Not Found"}', b"null"])
def test_what_answers_but_is_no_engine_is_named(body):
    message = r"answered 502 Bad Gateway, but not as a Vecstow engine"
    with connected((502, {}, body)) as (client, _, _), pytest.raises(Unreachable, match=message):
        client.get("collections")


@pytest.mark.parametrize("url", ["127.0.0.1:3030", "ftp://host", "http://", "", "http:///x"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(InvalidInput, match="must be like http"):
        Client(url)


def test_a_busy_engine_is_waited_for_as_long_as_it_says():
    answers = (
        refused(429, "busy", {"Retry-After": "3"}),
        refused(503, "replay", {"Retry-After": "2"}),
        done(1),
    )
    with connected(*answers, patience_seconds=60) as (client, _, clock):
        assert client.get("stats") == 1
    assert clock.slept == [3.0, 2.0]


def test_patience_ends():
    answers = [refused(429, "busy", {"Retry-After": "3"})] * 3
    with connected(*answers, patience_seconds=7) as (client, _, clock):
        with pytest.raises(RequestRefused, match="busy"):
            client.get("stats")
        assert clock.slept == [3.0, 3.0]


def test_without_patience_a_busy_engine_is_an_error_at_once():
    answer = refused(429, "busy", {"Retry-After": "3"})
    with connected(answer) as (client, _, _), pytest.raises(RequestRefused) as error:
        client.get("stats")
    assert error.value.retry_after_seconds == 3


def test_an_engine_that_is_away_is_waited_for():
    clock = Clock()
    with scripted() as gone:
        pass
    with (
        patch("vecstow_engine.cli.client.time", clock),
        Client(gone.url, patience_seconds=2.5) as client,
    ):
        with pytest.raises(Unreachable):
            client.get("stats")
        assert clock.slept == [1.0, 1.0]


def test_a_refusal_that_says_nothing_of_coming_back_is_not_repeated():
    with connected(refused(503, "outcome unknown"), done(1), patience_seconds=60) as (client, _, clock):
        with pytest.raises(RequestRefused, match="outcome unknown"):
            client.get("stats")
        assert clock.slept == []


# What else answers, and what lies between ------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"success": true}', id="no data"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_an_answer_that_is_no_envelope_is_named(body):
    with (
        connected((200, {}, body)) as (client, _, _),
        pytest.raises(Unreachable, match="answered 200 OK, but"),
    ):
        client.get("collections")


def test_an_answer_whose_compression_is_damaged_is_named():
    answer = (200, {"Content-Encoding": "gzip"}, b"no gzip")
    with connected(answer) as (client, _, _), pytest.raises(Unreachable, match="no answer from"):
        client.get("collections")


def test_a_redirect_is_not_followed_and_says_where_it_leads():
    answer = (301, {"Location": "https://vectors.example/"}, b"")
    with connected(answer) as (client, _, _), pytest.raises(Unreachable, match="301 Moved") as error:
        client.get("collections")
    assert error.value.hint == "it redirects to https://vectors.example/"


def test_half_a_surrogate_pair_is_sent_for_the_engine_to_refuse():
    with connected(done(None)) as (client, script, _):
        client.post("collections", "a", "search", document={"filter": {"a": "\ud800"}})
    assert script.asked[0][2] == b'{"filter": {"a": "\\ud800"}}'
