"""The way to an engine: odd addresses, proxies and certificates are named."""

import socket
import ssl
import threading
from contextlib import contextmanager, nullcontext, suppress

import pytest

from tests.cluster.certificates import Authority
from tests.unit.cli.test_client import done, scripted
from vecstow_engine.cli.client import Client, Unreachable
from vecstow_engine.model.errors import InvalidInput

FAR = "http://vectors.invalid:8080"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """No proxy and no certificates but those of the test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        pytest.param("127.0.0.1:3030", "it has no http:// or https://, or no host", id="no scheme"),
        pytest.param("localhost:3030", "it has no http:// or https://", id="host taken for a scheme"),
        pytest.param("unix:///run/vecstow.sock", "it has no http:// or https://", id="socket"),
        pytest.param("http://", "or no host", id="no host"),
        pytest.param(
            "http://127.0.0.1:tcp", "Port could not be cast to integer", id="port that is no number"
        ),
        pytest.param("http://127.0.0.1:70000", "Port out of range", id="port out of range"),
        pytest.param("http://127.0.0.1:-1", "", id="negative port"),
        pytest.param("http://[::1", "Invalid IPv6 URL", id="half a bracket"),
        pytest.param("http://::1:3030", "", id="IPv6 without brackets"),
        pytest.param("http://[x]:3030", "", id="no IPv6"),
        pytest.param("http://a b:3030", "", id="space"),
        pytest.param("http://ho\udcffst", "", id="argument that is not UTF-8"),
        pytest.param("http://host/?a=1", "it has a space, a ? or a #", id="query"),
        pytest.param("http://host/#a", "it has a space, a ? or a #", id="fragment"),
    ],
)
def test_an_odd_address_is_refused_with_what_is_odd(url, problem):
    with pytest.raises(
        InvalidInput, match=r"is no address: .*; it must be like http://127\.0\.0\.1"
    ) as refused:
        Client(url)
    assert problem in refused.value.message


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(InvalidInput, match="has a user name or a password") as refused:
        Client("http://me:hunter2@host")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(InvalidInput) as refused:
        Client("http://me:hunter2@host:tcp")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", [FAR, f"http://{'x' * 64}.invalid", "http://192.0.2.1.nip.invalid:1/prefix/"])
def test_a_host_without_an_address_is_no_answer(url):
    with Client(url) as client, pytest.raises(Unreachable, match=f"no answer from {url.rstrip('/')}: "):
        client.get("collections")


# Proxies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "no_proxy", ["", "10.0.0.0/8,fd00::/8", "other.invalid, .vectors", "[::1]", "1.2.3.4:x,//,fe80::/300"]
)
def test_a_far_host_is_asked_through_the_proxy(environment, variable, no_proxy):
    with scripted(done([])) as proxy:
        environment.setenv(variable, proxy.url)
        environment.setenv("NO_PROXY", no_proxy)
        with Client(FAR) as client:
            assert client.get("collections") == []
    assert proxy.asked[0][1] == f"{FAR}/collections"


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        (FAR, "*"), (FAR, "vectors.invalid"), (FAR, "a.b,.invalid"), (FAR, "*.invalid"),
        (FAR, "INVALID:8080"),
        ("http://192.0.2.7:1", "10.0.0.0/8 192.0.2.0/24"), ("http://[fd00::7]:1", "fd00::/8"),
        ("http://127.0.0.9:1", ""), ("http://localhost:1", ""), ("http://[::1]:1", ""),
    ],
)  # fmt: skip
def test_a_host_that_no_proxy_names_is_asked_directly(environment, url, no_proxy):
    with scripted(done([])) as proxy:
        environment.setenv("HTTP_PROXY", proxy.url)
        environment.setenv("NO_PROXY", no_proxy)
        with Client(url, answer_seconds=1.0) as client:
            client._http.timeout = 0.2  # some of these addresses swallow packets
            with pytest.raises(Unreachable):
                client.get("collections")
    assert proxy.asked == []


@pytest.mark.parametrize(
    "value", ["socks5://me:hunter2@127.0.0.1:9", "ftp://127.0.0.1", "http://[::", "http://a:b"]
)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(environment, variable, value):
    environment.setenv(variable, value)
    with pytest.raises(InvalidInput, match=f"{variable} names a proxy that cannot be used") as refused:
        Client(FAR)
    assert "hunter2" not in str(refused.value)


def test_a_proxy_that_is_away_is_no_answer(environment):
    with scripted() as gone:
        pass
    environment.setenv("HTTP_PROXY", gone.url.removeprefix("http://"))
    with Client(FAR) as client, pytest.raises(Unreachable, match=r"no answer .* through HTTP_PROXY"):
        client.get("collections")


# TLS -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@contextmanager
def answering(answer, context=None):
    """A port that takes one connection, reads from it, and gives an answer."""

    def serve():
        with listening, listening.accept()[0] as plain, suppress(OSError), secured(plain) as connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    def secured(plain):
        return nullcontext(plain) if context is None else context.wrap_socket(plain, server_side=True)

    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()[1]
    thread.join()


@pytest.fixture
def certified(authority):
    """The server's side of TLS, for 127.0.0.1."""
    files = authority.issue("server", "server", alternative_names=["IP:127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


BODY = b'{"success": true, "data": 1, "error": null}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


def test_an_authority_of_ones_own_is_named_by_a_variable(environment, authority, certified):
    with answering(OK, certified) as port, Client(f"https://127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED") as error:
            client.get("stats")
        assert "SSL_CERT_FILE" in error.value.hint
    environment.setenv("SSL_CERT_FILE", str(authority.own.certificate))
    with answering(OK, certified) as port, Client(f"https://127.0.0.1:{port}") as client:
        assert client.get("stats") == 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_authorities_that_is_none_is_named(environment, tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    environment.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(InvalidInput, match=f"SSL_CERT_FILE {path} cannot be used"):
        Client("https://127.0.0.1:1")


def test_tls_to_a_port_without_it_says_so():
    with answering(OK) as port, Client(f"https://127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable, match="no answer from") as error:
            client.get("stats")
        assert error.value.hint == "what listens there speaks no TLS: does the address begin with http://?"


def test_a_port_with_tls_asked_without_it_says_so(certified):
    with answering(OK, certified) as port, Client(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unreachable, match="no answer from") as error:
            client.get("stats")
        assert "https://" in error.value.hint


def test_a_port_that_speaks_no_http_is_no_answer():
    with (
        answering(b"220 smtp ready\r\n") as port,
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(Unreachable, match="no answer from"),
    ):
        client.get("stats")
