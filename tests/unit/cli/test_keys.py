"""The command line and API keys: who may be let in without, and where a command's key comes from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.unit.cli.test_client import scripted
from vecstow_engine.cli.client import Client, RequestRefused
from vecstow_engine.cli.options import address
from vecstow_engine.cli.serving import KeySettings, _keys
from vecstow_engine.model.errors import InvalidInput, TooLarge

URL = "http://127.0.0.1:3030"
KEY = "5f0c7d1e9b2a4c6d8e3f"
PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


@pytest.fixture(autouse=True)
def _no_key_of_ours(monkeypatch):
    for variable in ("VECSTOW_API_KEY", "VECSTOW_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys.yaml"
    path.write_text(json.dumps({"keys": [{"name": "a", "role": "read", "key": KEY}]}))
    return path


# vecstow serve


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "no-such-host.invalid"])
def test_this_machine_is_let_in_without_keys(host):
    """An address on which no process can listen is refused when the server tries it."""
    assert _keys(host, KeySettings()) is None


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "0", "10.1.2.3", "192.0.2.1", "fe80::1%1", "::ffff:10.0.0.1", "::ffff:0.0.0.0"]
)
def test_others_are_let_in_with_keys_or_by_a_flag(host, file):
    with pytest.raises(InvalidInput, match=f"--host {re.escape(host)} lets other machines in") as refused:
        _keys(host, KeySettings())
    assert "--keys FILE" in refused.value.hint
    assert "--without-keys" in refused.value.hint
    assert _keys(host, KeySettings(without_keys=True)) is None
    assert len(_keys(host, KeySettings(keys=file)).ring.keys) == 1


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "\udcff"])
def test_a_host_whose_name_cannot_be_one_is_refused(host):
    with pytest.raises(InvalidInput, match="is no name of a host"):
        _keys(host, KeySettings())


def test_keys_and_none_at_once_are_refused(file):
    with pytest.raises(InvalidInput, match="exclude each other"):
        _keys("127.0.0.1", KeySettings(keys=file, without_keys=True))


def test_on_loopback_too_a_file_that_is_given_counts(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read"):
        _keys("127.0.0.1", KeySettings(keys=tmp_path / "none"))


# The other commands


def test_a_file_wins_over_the_environment_and_the_key_there_over_its_file(monkeypatch, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("one\n")
    other.write_text("other")
    assert address(URL, None).key is None
    monkeypatch.setenv("VECSTOW_KEY_FILE", str(other))
    assert address(URL, None).key == "other"
    monkeypatch.setenv("VECSTOW_API_KEY", "variable")
    assert address(URL, None).key == "variable"
    assert address(URL, one).key == "one"
    assert "variable" not in repr(address(URL, None))


@pytest.mark.parametrize("content", [b"%s", b"%s\n", b"%s\r\n", b"\xef\xbb\xbf%s\r\n", b"\n  %s  \n"])
def test_what_editors_add_around_a_key_is_not_sent(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content % KEY.encode())
    assert address("http://127.0.0.1:1", path).key == KEY


def test_a_key_file_that_holds_more_than_keys_have_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"k" * 5000)
    with pytest.raises(TooLarge, match=f"^key file {path} has more than 4096 bytes"):
        address("http://127.0.0.1:1", path)


@pytest.mark.parametrize("content", [b"", b" \n", b"two keys", b"a\nb", b"k\xff", b"k\x00"])
def test_what_is_no_key_is_not_sent_and_not_quoted(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"^key file {path} must hold one key: printable ASCII"):
        address(URL, path)


def test_the_key_goes_with_each_request_as_a_header():
    done = (200, {}, {"success": True, "data": None, "error": None})
    with scripted(done, done) as script, Client(script.url, key=KEY) as client:
        client.get("state")
        client.post("hold")
    assert [headers["Authorization"] for *_, headers in script.asked] == [f"Bearer {KEY}"] * 2
    with scripted(done) as script, Client(script.url) as client:
        client.get("state")
    assert "Authorization" not in script.asked[0][3]


def test_a_refusal_says_how_to_give_a_key():
    body = {"success": False, "data": None, "error": "a key is needed", "message": "a key is needed"}
    refused = (401, {}, body | {"details": {"kind": "Unauthenticated", "hint": "send it as the header"}})
    with scripted(refused) as script, Client(script.url) as client, pytest.raises(RequestRefused) as error:
        client.get("collections")
    assert (error.value.status, error.value.message) == (401, "a key is needed")
    assert "VECSTOW_API_KEY" in error.value.hint
    assert "--key-file" in error.value.hint


def test_every_command_that_asks_an_engine_takes_a_file_and_none_takes_a_key():
    """Commands take the key from a file: every user of the machine can read a command line."""
    helps = PAGE.read_text().split("\n## vecstow ")[1:]
    asking = [text for text in helps if "--url" in text]
    assert len(asking) == 16
    for text in asking:
        assert "--key-file FILE" in text, text.splitlines()[0]
    assert re.findall(r"--(?:api-)?key\b(?!-file)", PAGE.read_text()) == []
