"""The keys of the operator's programs: least roles, read again, and never in a message."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace

import pytest
import uvicorn

from tests.unit.fake_engine import FakeEngine
from vecstow_engine.api.key_file import KeyFile
from vecstow_engine.api.server import create_app
from vecstow_operator.keys import EngineKey, NoKey
from vecstow_operator.manager.state_poller import Address, StatePoller
from vecstow_operator.plugin.session import EngineProxy, NoAnswer
from vecstow_operator.sidecar.reports import EngineClient, EngineRefuses

SIDECAR = "the-key-of-the-sidecar"
MONITOR = "the-key-of-the-manager"
UID = "pod-1"


@pytest.fixture(autouse=True)
def _no_key_of_ours(monkeypatch):
    for variable in ("VECSTOW_API_KEY", "VECSTOW_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def engine(tmp_path):
    """One that asks for keys, over HTTP."""
    file = tmp_path / "keys.yaml"
    file.write_text(
        f"keys:\n- {{name: s, role: sidecar, key: {SIDECAR}}}\n- {{name: m, role: monitor, key: {MONITOR}}}\n"
    )
    fake = FakeEngine()
    document = fake.state_document
    fake.state_document = lambda: document() | {"engine": "vecstow", "pod_uid": UID, "findings": {}}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(fake, keys=KeyFile(file))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        fake.port = listener.getsockname()[1]
        fake.url = f"http://127.0.0.1:{fake.port}"
        yield fake
        server.should_exit = True
        thread.join()


def test_the_sidecar_pokes_with_its_key_and_with_the_next_one_when_that_changes(engine, tmp_path):
    file = tmp_path / "sidecar"
    beside = EngineClient(engine.url, EngineKey(file))
    with pytest.raises(EngineRefuses, match=r"key file .* cannot be read: No such file"):
        beside.poke([])
    file.write_text("a-key-of-yesterday\n")
    with pytest.raises(EngineRefuses, match="it says 401") as refused:
        beside.poke([])
    assert "a-key-of-yesterday" not in str(refused.value)
    file.write_text(MONITOR)
    with pytest.raises(EngineRefuses, match="it says 403"):
        beside.poke([])
    assert engine.calls == []
    file.write_text(SIDECAR + "\n")
    beside.poke([])
    assert engine.calls == [("refresh", {"resources": []})]


def test_the_manager_asks_with_its_key(engine, tmp_path):
    file = tmp_path / "manager"
    poller = StatePoller(EngineKey(file))
    address = Address("p", UID, "vecstow", "127.0.0.1", engine.port, is_owned=True)
    try:
        assert "cannot be read" in poller._ask(address).problem
        file.write_text(SIDECAR)
        assert "403" in poller._ask(address).problem
        file.write_text(MONITOR)
        assert poller._ask(address).state.volume_id == "v"
        file.unlink()
        assert "cannot be read" in poller._ask(address).problem
    finally:
        poller.close()


class ApiServer:
    """Stands in for the API server's client: keeps what it was asked to send."""

    def __init__(self):
        self.headers = {}

    def param_serialize(self, method, where, *, header_params, body, auth_settings):
        self.headers = header_params
        return (method, where)

    def call_api(self, method, where, _request_timeout):
        return SimpleNamespace(status=200, reason="OK", read=lambda: b'{"data": 1}')


def test_the_plugin_sends_the_key_in_a_header_that_the_api_server_passes_on(monkeypatch, tmp_path):
    server = ApiServer()
    assert EngineProxy(server, "n", "p", 3030).call("GET", "state") == 1
    assert set(server.headers) == {"Accept"}
    monkeypatch.setenv("VECSTOW_API_KEY", MONITOR)
    EngineProxy(server, "n", "p", 3030).call("GET", "state")
    assert server.headers == {"Accept": "application/json", "api-key": MONITOR}
    with pytest.raises(NoAnswer, match="cannot be read"):
        EngineProxy(server, "n", "p", 3030, EngineKey(tmp_path / "none")).call("GET", "state")


def test_a_file_wins_over_the_environment_and_the_key_there_over_its_file(monkeypatch, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("one\n")
    other.write_text("other")
    monkeypatch.setenv("VECSTOW_KEY_FILE", str(other))
    assert EngineKey().headers() == {"api-key": "other"}
    monkeypatch.setenv("VECSTOW_API_KEY", "variable")
    assert EngineKey().headers() == {"api-key": "variable"}
    assert EngineKey(one).headers() == {"api-key": "one"}


@pytest.mark.parametrize("content", [b"key\n", b"key\r\n", b"\xef\xbb\xbfkey\r\n", b"\n  key  \n"])
def test_what_editors_add_around_a_key_is_not_sent(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    assert EngineKey(file).headers() == {"api-key": "key"}


@pytest.mark.parametrize("content", [b"", b"  \n", b"two keys", b"a\nb", b"k\xff", b"k\x00"])
def test_what_is_no_key_is_not_sent_and_not_quoted(tmp_path, content):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(NoKey, match=f"key file {file} must hold one key: printable ASCII"):
        EngineKey(file).headers()
