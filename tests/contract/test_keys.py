"""Keys against a real engine: the published client, every command's way, and a file that changes."""

from __future__ import annotations

import json
import os
import subprocess

import httpx
import pytest
from vectordb_client import AsyncVectorDBClient, VectorDBClient
from vectordb_client.exceptions import AuthenticationError, AuthorizationError

from tests.engine_process import VECSTOW, EngineProcess
from tests.waiting import SECONDS_MAX, wait_for

READ, WRITE, ADMIN = "the-key-that-reads-0000", "the-key-that-writes-000", "the-key-of-the-admin-00"


def write_keys(path, *entries):
    document = {"keys": [{"name": role, "role": role, "key": key} for role, key in entries]}
    new = path.with_name("next")
    new.write_text(json.dumps(document))
    new.rename(path)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder / "keys.yaml", ("read", READ), ("write", WRITE), ("admin", ADMIN))
    with EngineProcess(folder / "data", "--keys", folder / "keys.yaml", "--log-level", "debug") as running:
        yield running


def vecstow(engine, *arguments, **environment):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VECSTOW_")}
    return subprocess.run(
        [str(VECSTOW), *map(str, arguments)],
        env=inherited | {"VECSTOW_URL": engine.url} | environment,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("header", ["api-key", "Authorization"])
def test_the_published_client_brings_a_key_as_a_header(engine, header):
    def client(key):
        value = f"Bearer {key}" if header == "Authorization" else key
        return VectorDBClient("127.0.0.1", engine.port, timeout=SECONDS_MAX, headers={header: value})

    name = f"with-{header}"
    with client(WRITE) as writing:
        assert writing.create_collection_simple(name, 3, "cosine").success
        writing.insert_simple(name, "a", [1.0, 0.0, 0.0])
        with pytest.raises(AuthorizationError, match="needs the role admin"):
            writing.delete_collection(name)
    with client(READ) as reading:
        assert len(reading.search_simple(name, [1.0, 0.0, 0.0], limit=1)) == 1
        assert reading.get_server_stats().total_vectors >= 1
        with pytest.raises(AuthorizationError, match="needs the role write"):
            reading.insert_simple(name, "b", [0.0, 1.0, 0.0])
    with client(ADMIN) as admin:
        assert admin.delete_collection(name).success
    with (
        client("a-key-of-nobody-0000") as stranger,
        pytest.raises(AuthenticationError, match="not known here"),
    ):
        stranger.list_collections()


def test_the_published_client_without_a_key_is_told_so(engine):
    with VectorDBClient("127.0.0.1", engine.port, timeout=SECONDS_MAX) as client:
        with pytest.raises(AuthenticationError, match="a key is needed"):
            client.list_collections()
        assert client.ping()


async def test_the_asynchronous_client_brings_it_likewise(engine):
    async with AsyncVectorDBClient(
        "127.0.0.1", engine.port, timeout=SECONDS_MAX, headers={"api-key": ADMIN}
    ) as client:
        await client.create_collection_simple("async", 3, "cosine")
        assert (await client.delete_collection("async")).success


def test_commands_take_the_key_from_the_environment_or_a_file(engine, tmp_path):
    without = vecstow(engine, "hold", "--seconds", 5)
    assert (without.returncode, "a key is needed" in without.stderr) == (1, True)
    assert "VECSTOW_API_KEY" in without.stderr
    refused = vecstow(engine, "hold", "--release", VECSTOW_API_KEY=WRITE)
    assert (refused.returncode, "needs the role admin" in refused.stderr) == (1, True)
    assert vecstow(engine, "hold", "--release", VECSTOW_API_KEY=ADMIN).stdout == "the hold is released\n"
    file = tmp_path / "key"
    file.write_text(READ + "\n")
    listed = vecstow(engine, "ls", "--key-file", file, "--json", VECSTOW_API_KEY="wrong-key-0000000")
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])


def test_the_log_has_no_key_at_any_level(engine):
    httpx.get(f"{engine.url}/collections", headers={"api-key": ADMIN}, timeout=60)
    httpx.get(f"{engine.url}/collections", headers={"api-key": "a-key-of-nobody-0000"}, timeout=60)
    told = engine.log.read_text()
    assert "/collections" in told
    for key in (READ, WRITE, ADMIN, "a-key-of-nobody-0000"):
        assert key not in told


def test_a_changed_file_is_followed_and_a_bad_one_is_not(tmp_path):
    file = tmp_path / "keys.yaml"
    write_keys(file, ("read", READ))
    with EngineProcess(tmp_path / "data", "--keys", file) as engine:

        def status(key):
            return httpx.get(f"{engine.url}/collections", headers={"api-key": key}, timeout=60).status_code

        assert (status(READ), status(WRITE)) == (200, 401)
        write_keys(file, ("write", WRITE))
        wait_for(lambda: status(WRITE) == 200, engine.log.read_text)
        assert status(READ) == 401
        file.write_text("keys: []")
        wait_for(lambda: "those before stay in force" in engine.log.read_text(), engine.log.read_text)
        assert status(WRITE) == 200
        engine.kill()
        engine.launch()
        assert engine.process.wait(60) == 1
        engine.process = None
        assert f"keys file {file}: keys has 0 items; 1 to 256 are allowed" in engine.log.read_text()


def test_other_machines_are_not_let_in_unasked(tmp_path):
    command = [VECSTOW, "serve", "--data", tmp_path / "data", "--host", "0.0.0.0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert refused.returncode == 1
    assert "no API keys are asked for" in refused.stderr
    assert not (tmp_path / "data").exists()
