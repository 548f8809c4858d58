"""Recovery of a volume over real processes: restarts, lost files, manifests written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.crash.rest import Refused, Rest, Stored
from tests.engine_process import EngineProcess
from tests.waiting import SECONDS_MAX

FIVE_KEYS = ["name", "dimension", "distance_metric", "vector_type", "index_config"]
INDEX_CONFIG = {"max_connections": 16, "ef_construction": 200, "ef_search": 50, "max_layer": 16}


@pytest.fixture
def engine(tmp_path):
    process = EngineProcess(tmp_path / "data", "--reserve-bytes", 0, "--log-format", "json")
    yield process
    process.kill()


def point(value: float, **payload: Any) -> Stored:
    return np.array([value, value + 1, value + 2], "<f4").tobytes(), payload or None


def points(prefix: str, count: int) -> dict[str, Stored]:
    return {f"{prefix}{number}": point(number, n=number) for number in range(count)}


def manifest(name: str, **more: Any) -> dict[str, Any]:
    """The five keys, as a person or d-vecDB writes them."""
    shape = {"dimension": 3, "distance_metric": "Euclidean", "vector_type": "Float32"}
    return {"name": name} | shape | {"index_config": INDEX_CONFIG} | more


def write_manifest(folder: Path, content: dict[str, Any] | str) -> bytes:
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, indent=2)
    (folder / "metadata.json").write_text(text)
    return text.encode()


def log_lines(engine: EngineProcess, **wanted: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in engine.log.read_text().splitlines()]
    return [line for line in lines if wanted.items() <= line.items()]


def serves(engine: EngineProcess, name: str, expected: dict[str, Stored]) -> None:
    """Exactly these points: by their ids, by their number, and by their vectors."""
    with Rest(engine.port) as rest:
        assert rest.get_many(name, expected) == expected
        assert rest.describe(name)["vector_count"] == len(expected)
        for point_id, (vector, payload) in expected.items():
            [hit] = rest.search(name, vector, limit=1)
            assert (hit["id"], hit["distance"], hit["metadata"]) == (point_id, 0, payload)


def fill(engine: EngineProcess, *names: str, count: int = 20) -> dict[str, Stored]:
    """Start, make collections of the same points, and leave the engine running."""
    content = points("p", count)
    engine.start()
    with Rest(engine.port) as rest:
        for name in names:
            rest.create(name, 3)
            rest.put_many(name, content)
    return content


def listed(engine: EngineProcess) -> list[str]:
    with Rest(engine.port) as rest:
        names: list[str] = rest.call("GET", "/collections")
        return names


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_collections_are_listed_and_served_after_a_restart(engine, end):
    content = fill(engine, "incidents", "notes")
    with Rest(engine.port) as rest:
        rest.create("empty", 7, "DotProduct", "Int8")
        described = {name: rest.describe(name) for name in listed(engine)}
    getattr(engine, end)()
    engine.start()
    assert listed(engine) == ["empty", "incidents", "notes"]
    serves(engine, "incidents", content)
    serves(engine, "notes", content)
    with Rest(engine.port) as rest:
        for name, before in described.items():
            now = rest.describe(name)
            assert {key: now[key] for key in FIVE_KEYS} == {key: before[key] for key in FIVE_KEYS}
            assert now["collection_uid"] == before["collection_uid"]


def test_metadata_begins_with_the_five_keys_in_order_and_indented_by_two(engine):
    fill(engine, "incidents")
    engine.stop()
    text = (engine.data / "incidents" / "metadata.json").read_text()
    five_alone = json.dumps(manifest("incidents"), indent=2)
    assert text.startswith(five_alone.removesuffix("\n}") + ",\n")
    document = json.loads(text)
    assert list(document)[:5] == FIVE_KEYS
    assert text.rstrip("\n") == json.dumps(document, indent=2)


def test_nothing_checkpointed_is_lost_with_the_log(engine):
    content = fill(engine, "notes")
    assert engine.stop() == 0
    for segment in (engine.data / "wal").rglob("*.log"):
        segment.unlink()
    engine.start()
    serves(engine, "notes", content)
    with Rest(engine.port) as rest:
        facts = rest.describe("notes")
        assert facts["state"] == "ready"
        assert facts["reason"].startswith("wal_missing")
        rest.put("notes", "later", point(99))
    engine.kill()
    engine.start()
    serves(engine, "notes", content | {"later": point(99)})


def test_only_what_was_not_checkpointed_is_lost_with_the_log_of_a_killed_engine(engine):
    content = fill(engine, "notes")
    assert engine.stop() == 0
    engine.start()
    with Rest(engine.port) as rest:
        rest.put("notes", "later", point(99))
    engine.kill()
    for segment in (engine.data / "wal").rglob("*.log"):
        segment.unlink()
    engine.start()
    serves(engine, "notes", content)
    with Rest(engine.port) as rest:
        assert "wal_missing" in rest.describe("notes")["reason"]


@pytest.mark.parametrize("with_files", [True, False], ids=["files of 0 bytes", "no files"])
def test_a_manifest_written_by_hand_beside_no_data_is_an_empty_collection(engine, with_files):
    write_manifest(engine.data / "incidents", manifest("incidents"))
    if with_files:
        (engine.data / "incidents" / "vectors.bin").touch()
        (engine.data / "incidents" / "index.bin").touch()
    engine.start()
    assert listed(engine) == ["incidents"]
    serves(engine, "incidents", {})
    content = points("p", 5)
    with Rest(engine.port) as rest:
        rest.put_many("incidents", content)
    serves(engine, "incidents", content)
    engine.kill()
    engine.start()
    serves(engine, "incidents", content)


def test_a_manifest_written_by_hand_serves_the_vectors_whose_own_was_lost(engine):
    content = fill(engine, "incidents")
    with Rest(engine.port) as rest:
        uid = rest.describe("incidents")["collection_uid"]
    engine.kill()
    (engine.data / "incidents" / "metadata.json").unlink()
    engine.start()
    assert listed(engine) == []
    assert log_lines(engine, level="warning", folder="incidents")
    with Rest(engine.port) as rest, pytest.raises(Refused, match="holds data"):
        rest.create("incidents", 3)
    engine.stop()
    write_manifest(engine.data / "incidents", manifest("incidents"))
    engine.start()
    serves(engine, "incidents", content)
    with Rest(engine.port) as rest:
        assert rest.describe("incidents")["collection_uid"] == uid


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "broken", "dim',
        "",
        "[]",
        json.dumps(manifest("broken", dimension=-3)),
        json.dumps(manifest("neighbour")),
    ],
    ids=["cut", "empty", "no object", "impossible dimension", "the name of another folder"],
)
def test_a_broken_manifest_is_logged_and_its_neighbours_are_served(engine, text):
    content = fill(engine, "broken", "neighbour")
    engine.kill()
    raw = write_manifest(engine.data / "broken", text)
    rows = (engine.data / "broken" / "vectors.bin").read_bytes()
    engine.start()
    assert listed(engine) == ["neighbour"]
    serves(engine, "neighbour", content)
    assert log_lines(engine, level="error", event="collection failed to load", collection="broken")
    with Rest(engine.port) as rest, pytest.raises(Refused) as refused:
        rest.create("broken", 3)
    assert refused.value.status == 409
    engine.stop()
    assert (engine.data / "broken" / "metadata.json").read_bytes() == raw
    assert (engine.data / "broken" / "vectors.bin").read_bytes() == rows


def test_lost_and_found_and_other_strangers_disturb_nothing(engine):
    content = fill(engine, "notes")
    engine.kill()
    (engine.data / "lost+found").mkdir(mode=0o700)
    write_manifest(engine.data / "lost+found", manifest("lost+found"))
    (engine.data / "a file").write_text("nothing of ours")
    (engine.data / "no manifest").mkdir()
    (engine.data / "bare").mkdir()
    engine.start()
    assert listed(engine) == ["notes"]
    serves(engine, "notes", content)
    assert not log_lines(engine, level="error")
    engine.stop()
    assert (engine.data / "lost+found" / "metadata.json").exists()


def test_a_newer_manifest_is_refused_and_nothing_beside_it_is_touched(engine):
    content = fill(engine, "newer", "neighbour")
    engine.stop()
    folder = engine.data / "newer"
    document = json.loads((folder / "metadata.json").read_text()) | {"schema_version": 99, "future": [1]}
    write_manifest(folder, document)
    before = contents(engine.data, "newer", document["collection_uid"])
    engine.start()
    assert listed(engine) == ["neighbour"]
    assert log_lines(engine, level="error", event="collection failed to load", collection="newer")
    with Rest(engine.port) as rest:
        for method, path in [("GET", "newer"), ("DELETE", "newer"), ("GET", "newer/vectors/p1")]:
            with pytest.raises(Refused) as refused:
                rest.call(method, f"/collections/{path}")
            assert refused.value.status == 503
    serves(engine, "neighbour", content)
    engine.stop()
    assert contents(engine.data, "newer", document["collection_uid"]) == before


def contents(data: Path, name: str, uid: str) -> dict[str, bytes]:
    """Every file of a collection, its log included."""
    files = [*(data / name).rglob("*"), *(data / "wal" / uid).rglob("*")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def test_an_older_manifest_is_served_and_rewritten_at_its_next_change(engine):
    folder = engine.data / "incidents"
    raw = write_manifest(folder, manifest("incidents", team="search"))
    engine.start()
    with Rest(engine.port) as rest:
        facts = rest.describe("incidents")
    assert (facts["schema_version"], facts["managed_by"]) == (1, "api")
    engine.stop()
    assert (folder / "metadata.json").read_bytes() == raw
    engine.start()
    with Rest(engine.port) as rest:
        rest.put("incidents", "p", point(1))
    engine.stop()
    document = json.loads((folder / "metadata.json").read_text())
    assert {key: document[key] for key in FIVE_KEYS} == manifest("incidents")
    assert (document["schema_version"], document["team"]) == (1, "search")
    assert document["collection_uid"] is not None
    assert list(document)[:5] == FIVE_KEYS


def test_the_id_of_two_dots_drops_the_collection_and_restore_brings_everything_back(engine):
    """URL libraries make `DELETE /collections/x` of the point `..` of x before they send it."""
    content = fill(engine, "notes", "neighbour")
    url = httpx.URL(f"{engine.url}/collections/notes/vectors/").join("..")
    assert url.path.rstrip("/") == "/collections/notes"
    answer = httpx.delete(str(url).rstrip("/"), timeout=SECONDS_MAX)
    assert answer.status_code == 200
    assert listed(engine) == ["neighbour"]
    engine.kill()
    engine.start()
    with Rest(engine.port) as rest:
        [dropped] = rest.call("GET", "/collections/deleted")
        assert dropped["name"] == "notes"
        rest.call("POST", "/collections/restore", {"backup_path": dropped["path"]})
    serves(engine, "notes", content)
    engine.kill()
    engine.start()
    serves(engine, "notes", content)
    serves(engine, "neighbour", content)
