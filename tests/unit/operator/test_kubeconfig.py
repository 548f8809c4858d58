"""A kubeconfig that cannot be used is named with what is wrong in it, and shows no token."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vecstow_operator import kubeconfig
from vecstow_operator.kubeconfig import Unconfigured, client_of, load_configuration

TOKEN = "a-token-of-somebody"
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh"}


def content(*, user=None, cluster=None, **changes):
    """A kubeconfig that is right but for the changes."""
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{"name": "it", "cluster": cluster or {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "it", "user": user or {"token": TOKEN}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "apps"}}],
    } | changes  # fmt: skip


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(kubeconfig, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config"))
    return tmp_path / "config"


def plugin(script):
    return {"exec": EXEC | {"args": ["-c", script]}}


CREDENTIAL = {"apiVersion": EXEC["apiVersion"], "kind": "ExecCredential"}
TLS = {"server": "https://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"", "file is empty", id="empty"),
        pytest.param(b"a: [1\n", "is no valid YAML: line 2: ", id="no YAML"),
        pytest.param(b"a: 1\n\tb: 2\n", "is no valid YAML: line 2: found character", id="tab"),
        pytest.param(b"a: *b\n", "is no valid YAML: line 1: found undefined alias", id="alias"),
        pytest.param(b"a: 1\n---\nb: 1\n", "is no valid YAML: line 2: ", id="two documents"),
        pytest.param(b"a: \x00\n", "is no text in UTF-8", id="zero byte"),
        pytest.param(b"a: caf\xe9\n", "is no text in UTF-8", id="Latin-1"),
        pytest.param("a: 1\n".encode("utf-16"), "is no text in UTF-8", id="UTF-16"),
        pytest.param(b"\x7fELF\x02", "is no text in UTF-8", id="a program"),
        pytest.param(b"[" * 5000, "is no kubeconfig: RecursionError", id="deep"),
        pytest.param(b"some text\n", "is no kubeconfig", id="text"),
        pytest.param(b"[1, 2]\n", "is no kubeconfig", id="a list"),
        pytest.param(b"7\n", "is no kubeconfig", id="a number"),
        pytest.param(b"{}\n", "current-context", id="nothing in it"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named(path, raw, problem):
    path.write_bytes(raw)
    with pytest.raises(Unconfigured, match=f"^kubeconfig {path}") as wrong:
        client_of(None)
    assert problem in str(wrong.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"current-context": "other"}, "object with name other in", id="unknown context"),
        pytest.param({"current-context": None}, "current-context", id="no context"),
        pytest.param({"contexts": []}, "object with name it", id="no contexts"),
        pytest.param({"contexts": "it"}, "Expected key name", id="contexts that are text"),
        pytest.param({"contexts": [{"name": "it"}]}, "Expected key context", id="context without content"),
        pytest.param({"contexts": [{"name": "it", "context": "x"}]}, "is no kube", id="context of text"),
        pytest.param({"clusters": []}, "object with name it", id="no cluster"),
        pytest.param({"cluster": {"proxy-url": "x"}}, "cluster 'it' has no server", id="no server"),
        pytest.param({"cluster": {"server": 7}}, "is no kubeconfig", id="server that is a number"),
        pytest.param({"users": [{"name": "it", "usr": {"token": TOKEN}}]}, "Expected key user", id="no user"),
        pytest.param({"users": [{"name": "it", "user": TOKEN}]}, "is no kubeconfig", id="user of text"),
        pytest.param({"users": [7]}, "is no kubeconfig", id="users that are numbers"),
        pytest.param(
            {"cluster": TLS | {"certificate-authority": "ca.pem"}}, "ca.pem", id="missing authority"
        ),
        pytest.param(
            {"cluster": TLS | {"certificate-authority-data": "a"}}, "is no kubeconfig", id="no base64"
        ),
        pytest.param(
            {"cluster": TLS, "user": {"client-certificate": "c.pem"}}, "c.pem", id="missing certificate"
        ),
        pytest.param({"user": {"tokenFile": "token"}}, "token", id="missing token"),
        *[
            pytest.param(
                {"user": {"auth-provider": {"name": name, "config": {"access-token": TOKEN}}}},
                f"user 'it' has the auth-provider '{name}', which Kubernetes 1.26 removed",
                id=f"provider of {name}",
            )
            for name in ("gcp", "azure", "openstack")
        ],
        pytest.param({"user": {"auth-provider": "gcp"}}, "is no kubeconfig", id="provider of text"),
        pytest.param(
            {"user": {"auth-provider": {"name": "oidc", "config": {}}}}, "Expected key id-token",
            id="no id token",
        ),
        pytest.param({"user": {"exec": EXEC | {"command": "/no/such"}}}, "No such file", id="missing plugin"),
        pytest.param({"user": {"exec": {"command": "sh"}}}, "missing key 'apiV", id="plugin, no version"),
        pytest.param({"user": plugin("echo broken >&2; exit 3")}, "returned 3. broken", id="plugin fails"),
        pytest.param({"user": plugin("echo no json")}, "failed to decode", id="plugin that says no JSON"),
        pytest.param({"user": plugin("echo '{}'")}, "malformed response", id="plugin that says nothing"),
        pytest.param(
            {"user": plugin(f"echo '{json.dumps(CREDENTIAL | {'status': {}})}'")}, "missing token",
            id="no token",
        ),
        pytest.param(
            {"user": plugin(f"echo '{json.dumps(CREDENTIAL | {'apiVersion': 'v1alpha1', 'status': {}})}'")},
            "plugin api version v1alpha1 does not match", id="removed version of plugins",
        ),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_used_is_named_without_a_token(path, changes, problem):
    path.write_text(yaml.safe_dump(content(**changes)))
    for load in (lambda: client_of(None), load_configuration):
        with pytest.raises(Unconfigured, match=f"^kubeconfig {path}") as wrong:
            load()
        assert problem in str(wrong.value)
        assert TOKEN not in str(wrong.value)


def test_a_plugin_that_answers_is_used(path):
    status = {"status": {"token": TOKEN, "expirationTimestamp": "2030-01-01T00:00:00Z"}}
    path.write_text(yaml.safe_dump(content(user=plugin(f"echo '{json.dumps(CREDENTIAL | status)}'"))))
    api, namespace = client_of(None)
    assert (api.configuration.api_key, namespace) == ({"BearerToken": f"Bearer {TOKEN}"}, "apps")


def test_what_cannot_be_read_is_named(path):
    with pytest.raises(Unconfigured, match=f"^kubeconfig {path}: it does not exist"):
        client_of(None)
    path.mkdir()
    with pytest.raises(Unconfigured, match=f"^kubeconfig {path}: {path} cannot be read: Is a directory"):
        client_of(None)


COMMANDS = [
    *[["kubectl-vecstow", *c.split()] for c in (
        "status", "adopt", "accept-empty x", "release --all", "check x", "repair x", "backup x", "restore x",
        "deleted", "cleanup", "compact x", "hold",
    )],
    *[["vecstow-operator", *c.split()] for c in (
        "manager", "release", "sidecar --engine x --data .", "round-trip --engine x --engine-url http://x",
    )],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_ends_in_a_traceback_for_want_of_a_kubeconfig(tmp_path, command):
    path = tmp_path / "config"
    path.write_text("[not, a, kubeconfig]")
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "KUBECONFIG": str(path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: kubeconfig {path} is no kubeconfig: ")
    assert done.stderr.count("\n") == 1
