"""The command line against a real engine process: every command, on real embeddings, through a kill."""

import gzip
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.engine_process import VECSTOW, EngineProcess
from tests.waiting import SECONDS_MAX, wait_for

SAMPLE = Path(__file__).parents[2] / "examples" / "packages"
ROWS = 1000


def vecstow(*arguments, url=None, data=None, check=True):
    """One command as a process; with `check` its JSON, else the finished process."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VECSTOW_")}
    if url is not None:
        environment["VECSTOW_URL"] = url
    if data is not None:
        environment["VECSTOW_DATA"] = str(data)
    command = [str(VECSTOW), *(str(argument) for argument in arguments), *(["--json"] if check else [])]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=SECONDS_MAX
    )
    assert "Traceback" not in done.stderr, done.stderr
    if not check:
        return done
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The first thousand rows of the sample data: vectors, payload and declaration."""
    folder = tmp_path_factory.mktemp("sample")
    np.save(folder / "rows.npy", np.load(SAMPLE / "packages.f16.npy")[:ROWS])
    with gzip.open(SAMPLE / "packages.jsonl.gz", "rt", encoding="utf-8") as lines:
        (folder / "rows.jsonl").write_text("".join(next(lines) for _ in range(ROWS)), encoding="utf-8")
    shutil.copy(SAMPLE / "collection.yaml", folder)
    return folder


@pytest.fixture(scope="module")
def template(sample, tmp_path_factory):
    """A volume with the sample imported, as an engine left it in order."""
    data = tmp_path_factory.mktemp("template") / "data"
    assert vecstow("apply", "-f", sample / "collection.yaml", "--data", data)[0]["outcome"] == "created"
    with EngineProcess(data) as engine:
        report = vecstow(
            "import", "packages", sample / "rows.npy", "--payload", sample / "rows.jsonl", url=engine.url
        )
        assert (report["acknowledged"], report["skipped"]) == (ROWS, 0)
        assert engine.stop() == 0
    return data


@pytest.fixture
def data(template, tmp_path):
    """A volume of one's own with the sample in it."""
    return Path(shutil.copytree(template, tmp_path / "data"))


@pytest.fixture
def engine(data):
    """An engine that serves it."""
    with EngineProcess(data) as process:
        yield process


def count(engine, name="packages"):
    return vecstow("show", name, url=engine.url)["vector_count"]


def test_what_was_imported_is_listed_shown_and_found(engine, sample):
    [listed] = vecstow("ls", url=engine.url)
    assert (listed["name"], listed["vector_count"], listed["managed_by"]) == ("packages", ROWS, "file")
    payloads = [json.loads(line) for line in (sample / "rows.jsonl").read_text().splitlines()]
    hits = vecstow(
        "search", "packages", "--npy", sample / "rows.npy", "--row", 7, "--limit", 3, url=engine.url
    )
    assert len(hits) == 3
    assert abs(hits[0]["distance"]) < 1e-3
    own = payloads[7]
    wanted = json.dumps({"section": own["section"]})
    by_id = vecstow("search", "packages", "--id", own["id"], "--filter", wanted, url=engine.url)
    assert {hit["metadata"]["section"] for hit in by_id} == {own["section"]}


def test_a_collection_applied_beside_a_running_engine_is_served(engine, data, tmp_path):
    """The engine looks at the manifests by itself; no API is asked."""
    text = (SAMPLE / "collection.yaml").read_text().replace("name: packages", "name: beside")
    (tmp_path / "beside.yaml").write_text(text)
    assert vecstow("apply", "-f", tmp_path / "beside.yaml", "--data", data)[0]["outcome"] == "created"
    wait_for(
        lambda: vecstow("show", "beside", url=engine.url, check=False).returncode == 0, engine.log.read_text
    )
    assert count(engine, "beside") == 0


def test_a_volume_is_listed_without_an_engine_and_with_one(engine, data):
    assert vecstow("ls", data=data)[0]["vector_count"] == ROWS
    engine.kill()
    assert vecstow("ls", data=data)[0]["vector_count"] == ROWS


def test_an_import_goes_on_after_the_engine_was_killed_and_came_back(engine, data, sample, tmp_path):
    """The client waits for the engine; nothing acknowledged is lost, nothing is there twice."""
    (tmp_path / "more.yaml").write_text((SAMPLE / "collection.yaml").read_text().replace("packages", "more"))
    vecstow("apply", "-f", tmp_path / "more.yaml", url=engine.url)
    command = [VECSTOW, "import", "more", sample / "rows.npy", "--batch", "10", "--url", engine.url, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as importing:
        wait_for(lambda: count(engine, "more"), engine.log.read_text)
        engine.kill()
        engine.start()
        report = json.loads(importing.communicate(timeout=SECONDS_MAX)[0])
    assert importing.returncode == 0
    assert report["acknowledged"] == ROWS
    assert count(engine, "more") == ROWS


def test_an_interrupted_import_is_resumed(engine, sample, tmp_path):
    (tmp_path / "more.yaml").write_text((SAMPLE / "collection.yaml").read_text().replace("packages", "more"))
    vecstow("apply", "-f", tmp_path / "more.yaml", url=engine.url)
    np.save(tmp_path / "part.npy", np.load(sample / "rows.npy")[:400])
    vecstow("import", "more", tmp_path / "part.npy", url=engine.url)
    report = vecstow("import", "more", sample / "rows.npy", "--batch", 100, "--resume", url=engine.url)
    assert (report["skipped"], report["acknowledged"]) == (400, 600)
    assert count(engine, "more") == ROWS


def test_a_backup_is_restored_under_another_name(engine):
    path = vecstow("backup", "packages", url=engine.url)["backup_path"]
    vecstow("restore", path, "--new-name", "again", url=engine.url)
    assert count(engine, "again") == ROWS


def test_an_alias_is_switched_while_the_engine_serves_it(engine, sample, tmp_path):
    text = (SAMPLE / "collection.yaml").read_text().replace("name: packages", "name: more")
    (tmp_path / "more.yaml").write_text(text + "  aliases: [all]\n")
    assert vecstow("aliases", "set", "all", "packages", url=engine.url)["collection"] == "packages"
    assert count(engine, "all") == ROWS
    assert vecstow("apply", "-f", tmp_path / "more.yaml", url=engine.url)[0]["outcome"] == "created"
    assert vecstow("apply", "-f", tmp_path / "more.yaml", url=engine.url)[0]["outcome"] == "unchanged"
    assert vecstow("show", "all", url=engine.url)["name"] == "more"
    assert [row["aliases"] for row in vecstow("ls", url=engine.url)] == [["all"], []]
    vecstow("aliases", "set", "all", "packages", url=engine.url)
    assert vecstow("apply", "-f", tmp_path / "more.yaml", url=engine.url)[0]["outcome"] == "configured"
    assert vecstow("aliases", "ls", url=engine.url) == [{"alias": "all", "collection": "more"}]
    assert vecstow("aliases", "rm", "all", url=engine.url)["collection"] == "more"


def test_an_alias_set_beside_a_running_engine_is_served(engine, data):
    vecstow("aliases", "set", "all", "packages", data=data)
    wait_for(
        lambda: vecstow("show", "all", url=engine.url, check=False).returncode == 0, engine.log.read_text
    )


def test_a_hold_ends_and_a_compaction_is_answered(engine):
    assert vecstow("hold", "--seconds", 30, url=engine.url)["until"].endswith("Z")
    vecstow("hold", "--release", url=engine.url)
    vecstow("compact", "packages", url=engine.url)
    assert count(engine) == ROWS


def test_a_sound_volume_is_checked_clean_with_an_engine_and_without(engine, data):
    assert vecstow("check", "packages", url=engine.url)["findings"] == []
    engine.stop()
    assert vecstow("check", data=data)["findings"] == []


def test_a_changed_byte_is_found_and_named(data):
    rows = data / "packages" / "vectors.bin"
    raw = bytearray(rows.read_bytes())
    raw[4096 + 5 * 384 * 4 + 3] ^= 1
    rows.write_bytes(raw)
    done = vecstow("check", "--data", data, "--json", check=False)
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 1
    assert any("vectors.bin" in finding["file"] for finding in findings)
    people = vecstow("check", "--data", data, check=False)
    assert people.returncode == 1
    assert "vectors.bin" in people.stdout


def test_a_second_engine_on_the_volume_is_refused(engine, data):
    with_port = ["serve", "--data", data, "--port", engine.port + 1 if engine.port < 65_000 else 1024]
    done = vecstow(*with_port, check=False)
    assert done.returncode == 1
    assert "another engine" in done.stderr


def test_ctrl_c_and_sigterm_end_the_server_with_zero(engine):
    assert engine.process is not None
    engine.process.send_signal(signal.SIGINT)
    assert engine.process.wait(timeout=SECONDS_MAX) == 0
    engine.process = None
    engine.start()
    assert engine.stop() == 0


def test_a_stopped_volume_gets_back_what_was_dropped_and_what_was_copied(engine, data):
    copied = vecstow("backup", "packages", url=engine.url)["backup_path"]
    httpx.delete(
        f"{engine.url}/collections/packages", timeout=SECONDS_MAX, trust_env=False
    ).raise_for_status()
    refused = vecstow("restore", copied, data=data, check=False)
    assert refused.returncode == 1
    assert "an engine serves this volume" in refused.stderr
    assert engine.stop() == 0
    [dropped] = vecstow("ls", "--deleted", data=data)
    assert dropped["name"] == "packages"
    assert vecstow("restore", dropped["path"], data=data)["name"] == "packages"
    assert vecstow("restore", copied, "--new-name", "copied", data=data)["name"] == "copied"
    taken = vecstow("restore", copied, data=data, check=False)
    assert taken.returncode == 1
    assert "'packages' exists" in taken.stderr
    engine.start()
    assert count(engine) == ROWS
    assert count(engine, "copied") == ROWS
    assert vecstow("check", url=engine.url)["clean"]


def test_maintenance_touches_nothing_until_a_signal_ends_it(data):
    before = sorted(data.rglob("*"))
    process = subprocess.Popen([VECSTOW, "maintenance", "--data", data], stdout=subprocess.PIPE, text=True)
    assert "is not served" in process.stdout.readline()
    assert vecstow("check", data=data)["clean"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS_MAX) == 0
    process.stdout.close()
    assert sorted(data.rglob("*")) == before
