"""The API server's address and credentials, and how long a role waits for it."""

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.util import retry

from vecstow_operator import kube, kubeconfig
from vecstow_operator.kube import Away, Changed, Cluster, Undefined
from vecstow_operator.kubeconfig import client_of, load_configuration
from vecstow_operator.manager import lease as lease_module
from vecstow_operator.manager.lease import Lease


class ApiServer(BaseHTTPRequestHandler):
    """Keeps the tokens that it is shown, and has no resources."""

    tokens: list[str]
    status = 200
    document: object = {"items": [], "metadata": {}}

    content_type = "application/json"

    def do_GET(self):
        self.tokens.append(self.headers["Authorization"])
        content = json.dumps(self.document).encode() if self.document is not None else b"<html>"
        self.send_response(self.status)
        self.send_header("Content-Type", self.content_type)
        self.send_header("Retry-After", "3600")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_PATCH(self):
        self.do_GET()

    def do_POST(self):
        self.do_GET()

    def log_message(self, format, *args):
        """Nothing."""


@pytest.fixture
def tokens():
    """Those that the API server was shown; `port` is its own."""
    handler = type("Handler", (ApiServer,), {"tokens": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        handler.port = server.server_port
        yield handler
        server.shutdown()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the kubeconfig, and load it the first time."""
    path = tmp_path / "kubeconfig"
    monkeypatch.setattr(kubeconfig, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    monkeypatch.setattr(client.Configuration, "_default", None)
    written = []

    def write(port, token):
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "apps"}}],
        }  # fmt: skip
        path.write_text(json.dumps(content) if token else "")
        written.append(token)
        os.utime(path, ns=(len(written), len(written)))

    return write


def test_token_that_is_written_anew_is_shown_by_every_client(write, tokens):
    write(tokens.port, "old")
    clusters = [Cluster(load_configuration()), Cluster("apps")]
    for cluster in clusters:
        assert (cluster.namespace, list(cluster.resources())) == ("apps", [])
    write(tokens.port, "new")
    for cluster in clusters * 2:
        list(cluster.resources())
    assert tokens.tokens == ["Bearer old"] * 2 + ["Bearer new"] * 4


def test_kubeconfig_that_cannot_be_read_is_away_until_it_can(write, tokens):
    write(tokens.port, "old")
    cluster = Cluster(load_configuration())
    write(tokens.port, None)
    for _ in range(2):
        with pytest.raises(Away, match="credentials"):
            list(cluster.resources())
    write(tokens.port, "new")
    list(cluster.resources())
    assert tokens.tokens == ["Bearer new"]


def test_silent_api_server_holds_neither_lists_nor_the_lease(write, monkeypatch):
    monkeypatch.setattr(kube, "TIMEOUT_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(lease_module, "TIMEOUT_SECONDS", (0.05, 0.05))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write(silent.getsockname()[1], "old")
        cluster = Cluster(load_configuration())
        with pytest.raises(Away, match="does not answer"):
            list(cluster.resources())
        assert not Lease("vecstow-manager", "apps").is_held()


def test_kind_that_nobody_defined_is_told_from_an_outage(write, tokens):
    tokens.status = 404
    write(tokens.port, "old")
    with pytest.raises(Undefined, match="says 404"):
        list(Cluster(load_configuration()).resources())


@pytest.mark.parametrize("status", [429, 503])
def test_answer_that_asks_for_an_hour_holds_nobody(write, tokens, monkeypatch, status):
    def sleep(seconds):
        raise AssertionError(f"it sleeps for {seconds} s")

    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=sleep))
    tokens.status = status
    write(tokens.port, "old")
    for cluster in (Cluster(load_configuration()), Cluster("apps", client_of("it")[0])):
        with pytest.raises(Away, match=f"says {status}"):
            list(cluster.resources())
    assert not Lease("vecstow-manager", "apps").is_held()
    assert len(tokens.tokens) == 3


@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
@pytest.mark.parametrize(
    "document",
    [
        pytest.param(None, id="no JSON"),
        pytest.param("", id="text"),
        pytest.param([], id="a list"),
        pytest.param({}, id="an empty object"),
        pytest.param({"kind": "Status", "status": "Success"}, id="a status"),
        pytest.param({"items": None, "metadata": None}, id="nothing in it"),
        pytest.param({"items": ["x"], "metadata": []}, id="another list"),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda cluster: list(cluster.resources()), id="resources"),
        pytest.param(Cluster.stateful_sets, id="stateful sets"),
        pytest.param(Cluster.pods, id="pods"),
        pytest.param(Cluster.namespace_ends, id="namespace"),
        pytest.param(lambda cluster: cluster.apply_status("notes", "1", {}), id="status"),
    ],
)
def test_answer_that_is_another_is_none(write, tokens, document, content_type, ask):
    """Another program's answer in place of the API server's raises Away, which fails no pass."""
    tokens.document, tokens.content_type = document, content_type
    write(tokens.port, "old")
    cluster = Cluster(load_configuration())
    with pytest.raises(Away, match="is not understood"):
        ask(cluster)
    assert not Lease("vecstow-manager", "apps").is_held()


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        pytest.param(400, Away, id="not understood"),
        pytest.param(403, Away, id="forbidden"),
        pytest.param(404, Changed, id="gone"),
        pytest.param(409, Changed, id="another version"),
        pytest.param(413, Away, id="too large"),
        pytest.param(422, Away, id="not allowed"),
        pytest.param(500, Away, id="a failure"),
    ],
)
def test_refusal_of_one_change_is_no_unexpected_error(monkeypatch, status, raised):
    """A pass goes on with the other resources."""

    def refuse(*_, **__):
        raise ApiException(status=status, reason="no")

    cluster = Cluster("apps")
    monkeypatch.setattr(cluster._objects, "patch_namespaced_custom_object", refuse)
    with pytest.raises(raised, match=f"{status} no"):
        cluster.patch_metadata("notes", "r-1", "1", {})


def test_without_any_configuration_it_says_so(write, tmp_path):
    with pytest.raises(config.ConfigException):
        load_configuration()


@pytest.mark.parametrize(
    ("status", "metadata", "ends"),
    [
        pytest.param(200, {}, False, id="it stays"),
        pytest.param(200, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, True, id="it goes"),
        pytest.param(403, {}, False, id="nobody may tell"),
        pytest.param(404, {}, False, id="it is gone"),
    ],
)
def test_definition_that_is_being_deleted_is_seen_where_it_may_be_read(tokens, status, metadata, ends):
    tokens.status, tokens.document = status, {"metadata": metadata}
    configuration = client.Configuration(host=f"http://127.0.0.1:{tokens.port}")
    assert Cluster("apps", client.ApiClient(configuration)).definition_ends() is ends
