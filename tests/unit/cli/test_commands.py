"""The commands over HTTP, against the API with an engine in memory: what they ask, print and exit with."""

import dataclasses
import io
import json
import logging
import os
import socket
import threading

import numpy as np
import pytest
import structlog
import uvicorn

from tests.ports import free_port
from tests.unit.fake_engine import FakeEngine
from vecstow_engine.api.server import create_app
from vecstow_engine.cli import ingest
from vecstow_engine.model.errors import Quarantined
from vecstow_engine.model.manifest import IndexConfig, Manifest, PayloadIndex
from vecstow_engine.model.metrics import DistanceMetric

DOCS = Manifest(name="docs", dimension=3, distance_metric=DistanceMetric.EUCLIDEAN)


@pytest.fixture(scope="module")
def server():
    """One API server for all tests; each gets it emptied."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    engine = FakeEngine()
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(create_app(engine), log_config=None, lifespan="on"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    yield engine, f"http://127.0.0.1:{listener.getsockname()[1]}"
    running.should_exit = True
    thread.join()
    structlog.reset_defaults()


@pytest.fixture
def engine(server, monkeypatch):
    """The engine behind VECSTOW_URL, with the collection `docs`."""
    engine, url = server
    engine.collections.clear()
    engine.dropped.clear()
    engine.calls.clear()
    engine.create(DOCS)
    monkeypatch.setenv("VECSTOW_URL", url)
    monkeypatch.delenv("VECSTOW_DATA", raising=False)
    return engine


@pytest.fixture
def embeddings(tmp_path):
    """Five rows with payload: a .npy and a .jsonl file."""
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    np.save(tmp_path / "rows.npy", rows)
    lines = [json.dumps({"id": f"p{n}", "size": n}) + "\n" for n in range(5)]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    return tmp_path / "rows.npy", tmp_path / "rows.jsonl"


def import_rows(vecstow, embeddings, *options):
    npy, payload = embeddings
    return vecstow("import", "docs", npy, "--payload", payload, *options)


def test_import_brings_every_row_with_its_payload_and_prints_the_rate(engine, vecstow, embeddings):
    code, out, _ = import_rows(vecstow, embeddings, "--batch", 2)
    assert code == 0
    assert out.startswith("docs: 5 vectors acknowledged in ")
    assert "vectors/s" in out
    points = engine.collections["docs"].points
    assert sorted(points) == ["p0", "p1", "p2", "p3", "p4"]
    assert points["p3"].vector.tolist() == [9.0, 10.0, 11.0]
    assert json.loads(points["p3"].payload) == {"size": 3}


def test_import_as_json_tells_what_was_done(engine, vecstow, embeddings):
    code, out, err = import_rows(vecstow, embeddings, "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert (report["rows"], report["skipped"], report["acknowledged"]) == (5, 0, 5)
    assert report["vectors_per_second"] > 0


def test_import_resumes_where_it_was_interrupted(engine, vecstow, embeddings):
    """Rows are acknowledged in order, so the last id that is there stands for all before it."""
    import_rows(vecstow, embeddings)
    for point_id in ("p3", "p4"):
        del engine.collections["docs"].points[point_id]
    report = json.loads(import_rows(vecstow, embeddings, "--batch", 2, "--resume", "--json")[1])
    assert (report["skipped"], report["acknowledged"]) == (3, 2)
    assert len(engine.collections["docs"].points) == 5


def test_import_asks_no_more_once_a_row_was_missing(engine, vecstow, embeddings):
    """Rows after the first gap are sent, whatever the engine has of them: its points may be older."""
    import_rows(vecstow, embeddings)
    del engine.collections["docs"].points["p1"]
    report = json.loads(import_rows(vecstow, embeddings, "--batch", 1, "--resume", "--json")[1])
    assert (report["skipped"], report["acknowledged"]) == (1, 4)


REPEATED = ["p0", "p1", "p2", "p0", "p1"]
"""Two ids have two rows each."""


@pytest.fixture
def repeated(tmp_path, embeddings):
    (tmp_path / "ids.txt").write_text("\n".join(REPEATED))
    return "import", "docs", embeddings[0], "--ids", tmp_path / "ids.txt"


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 1000])
def test_import_says_how_many_ids_occurred_more_than_once(engine, vecstow, embeddings, repeated, batch):
    """The last row of an id is stored, whether the rows are in one request or in several."""
    code, out, _ = vecstow(*repeated, "--batch", batch)
    assert code == 0
    assert out.endswith("; 2 ids occurred more than once, and the last row of each won\n")
    points = engine.collections["docs"].points
    assert {name: point.vector[0] for name, point in points.items()} == {"p0": 9.0, "p1": 12.0, "p2": 6.0}
    assert json.loads(vecstow(*repeated, "--batch", batch, "--json")[1])["repeated_ids"] == 2
    assert json.loads(import_rows(vecstow, embeddings, "--json")[1])["repeated_ids"] == 0


def test_import_stores_the_payload_of_the_last_row_of_an_id(engine, vecstow, embeddings):
    embeddings[1].write_text(
        "".join(json.dumps({"id": name, "n": n}) + "\n" for n, name in enumerate(REPEATED))
    )
    assert import_rows(vecstow, embeddings)[0] == 0
    points = engine.collections["docs"].points
    assert {name: json.loads(point.payload)["n"] for name, point in points.items()} == {
        "p0": 3,
        "p1": 4,
        "p2": 2,
    }


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("acknowledged", [0, 1, 2, 3, 4, 5])
def test_import_with_repeated_ids_resumes_without_a_gap(
    engine, vecstow, repeated, embeddings, tmp_path, acknowledged, batch
):
    """An id that an earlier row brought stands for no row, whatever the batches were before."""
    vecstow(*repeated)
    wanted = dict(engine.collections["docs"].points)
    engine.collections["docs"].points.clear()
    if acknowledged:
        np.save(tmp_path / "part.npy", np.load(embeddings[0])[:acknowledged])
        (tmp_path / "part.txt").write_text("\n".join(REPEATED[:acknowledged]))
        vecstow("import", "docs", tmp_path / "part.npy", "--ids", tmp_path / "part.txt", "--batch", 2)
    report = json.loads(vecstow(*repeated, "--batch", batch, "--resume", "--json")[1])
    assert report["skipped"] <= min(acknowledged, 3)
    assert (report["skipped"] + report["acknowledged"], report["repeated_ids"]) == (5, 2)
    points = engine.collections["docs"].points
    assert {n: p.vector.tolist() for n, p in points.items()} == {
        n: p.vector.tolist() for n, p in wanted.items()
    }


def test_import_that_is_interrupted_twice_keeps_the_last_row_of_an_id(engine, vecstow, tmp_path, monkeypatch):
    """Each of the three runs has other batches."""
    np.save(tmp_path / "v.npy", np.repeat(np.arange(8, dtype=np.float32), 3).reshape(8, 3))
    (tmp_path / "ids.txt").write_text("\n".join(["a"] * 6 + ["y", "z"]))
    arguments = ("import", "docs", tmp_path / "v.npy", "--ids", tmp_path / "ids.txt")
    send = ingest._send
    for batch in (7, 4):
        sent = iter([send])

        def interrupted(*batch_to_send, sent=sent):
            if (sends := next(sent, None)) is None:
                raise KeyboardInterrupt
            sends(*batch_to_send)

        monkeypatch.setattr(ingest, "_send", interrupted)
        vecstow(*arguments, "--batch", batch, "--resume")
    monkeypatch.setattr(ingest, "_send", send)
    assert vecstow(*arguments, "--batch", 7, "--resume")[0] == 0
    points = engine.collections["docs"].points
    assert {name: point.vector[0] for name, point in points.items()} == {"a": 5.0, "y": 6.0, "z": 7.0}


def test_import_of_another_dimension_is_refused_before_anything_is_sent(engine, vecstow, tmp_path):
    np.save(tmp_path / "v.npy", np.ones((2, 4), np.float32))
    code, _, err = vecstow("import", "docs", tmp_path / "v.npy")
    assert code == 1
    assert err == "vecstow: the file's rows have 4 values, but collection 'docs' has dimension 3\n"
    assert engine.collections["docs"].points == {}


def test_import_names_the_row_that_the_engine_refuses(engine, vecstow, tmp_path):
    rows = np.ones((5, 3), np.float32)
    rows[3, 1] = np.nan
    np.save(tmp_path / "v.npy", rows)
    code, _, err = vecstow("import", "docs", tmp_path / "v.npy", "--batch", 2)
    assert code == 1
    assert err == (
        "vecstow: row 3: data[1] is nan; values must be finite float32 numbers\n"
        "hint: 2 of 5 rows are in; mend the file first; --resume goes on from there\n"
    )
    assert sorted(engine.collections["docs"].points) == ["0", "1"]


def test_import_names_the_line_of_a_refused_row_among_repeated_ids(engine, vecstow, repeated, embeddings):
    """Rows whose id occurs again in the batch are not sent, but count as lines."""
    rows = np.load(embeddings[0])
    rows[4] = 1e-30
    np.save(embeddings[0], rows)
    code, _, err = vecstow(*repeated)
    assert code == 1
    assert err.startswith(f"vecstow: row 4 ({repeated[4]} line 5): the largest magnitude in data is ")


def test_import_takes_no_id_for_a_position_in_the_request(engine, vecstow, embeddings, monkeypatch):
    async def upsert(name, points):
        raise Quarantined("point 'vectors[99]' is withheld", collection="docs")

    monkeypatch.setattr(engine, "upsert", upsert)
    code, _, err = import_rows(vecstow, embeddings, "--batch", 2, "--patience", 0)
    assert code == 1
    assert err.startswith("vecstow: rows 0 to 1: point 'vectors[99]' is withheld")


def test_import_of_a_payload_that_is_too_large_says_to_mend_the_file(engine, vecstow, embeddings):
    lines = embeddings[1].read_text().splitlines()
    lines[3] = json.dumps({"id": "p3", "text": "x" * 2_000_000})
    embeddings[1].write_text("\n".join(lines))
    code, _, err = import_rows(vecstow, embeddings, "--batch", 2)
    assert code == 1
    assert err.startswith(f"vecstow: {embeddings[1]} line 4: payload ")
    assert err.endswith("hint: 2 of 5 rows are in; mend the file first; --resume goes on from there\n")


def test_import_that_the_engine_refuses_for_now_advises_to_resume(engine, vecstow, embeddings, monkeypatch):
    """The hint asks for no change of the file."""

    async def upsert(name, points):
        raise Quarantined("collection 'docs' is damaged", collection="docs")

    monkeypatch.setattr(engine, "upsert", upsert)
    code, _, err = import_rows(vecstow, embeddings, "--batch", 2, "--patience", 0)
    assert code == 1
    assert err == (
        "vecstow: rows 0 to 1: collection 'docs' is damaged\n"
        "hint: 0 of 5 rows are in; --resume goes on from there\n"
    )


def test_import_that_is_interrupted_tells_what_is_in_and_how_to_go_on(
    engine, vecstow, embeddings, monkeypatch
):
    send = ingest._send

    def interrupted(client, collection, source, batch, body):
        if batch.start == 4:
            raise KeyboardInterrupt
        send(client, collection, source, batch, body)

    monkeypatch.setattr(ingest, "_send", interrupted)
    code, out, err = import_rows(vecstow, embeddings, "--batch", 2)
    assert (code, out) == (130, "")
    assert err == ("interrupted; 4 of 5 rows were acknowledged. Go on with the same command and --resume\n")
    assert len(engine.collections["docs"].points) == 4


@pytest.mark.parametrize("uid", [None, "1" * 32], ids=["empty", "with data"])
def test_import_into_a_collection_that_is_replaced_meanwhile_is_no_success(
    engine, vecstow, embeddings, monkeypatch, uid
):
    def give_uid(uid):
        engine.collections["docs"].manifest = dataclasses.replace(DOCS, collection_uid=uid)

    send = ingest._send

    def overtaken(client, collection, source, batch, body):
        if batch.start == 2:
            engine.drop("docs")
            engine.create(DOCS)
        send(client, collection, source, batch, body)
        give_uid(("2" if batch.start >= 2 else "1") * 32)

    give_uid(uid)
    monkeypatch.setattr(ingest, "_send", overtaken)
    code, out, err = import_rows(vecstow, embeddings, "--batch", 2)
    assert (code, out) == (1, "")
    assert "'docs' was dropped and created again during the import" in err
    assert "without --resume" in err


def test_import_of_a_dvecdb_folder_is_asked_of_the_engine(engine, vecstow):
    code, out, _ = vecstow(
        "import", "old", "--orphan", "/data/old", "--dimension", 8, "--metric", "Cosine", "--type", "Int8"
    )
    assert (code, out) == (0, "old: imported\n")
    [(_, orphaned_path, wanted)] = engine.calls
    assert orphaned_path == "/data/old"
    assert (wanted.name, wanted.dimension) == ("old", 8)
    assert (wanted.distance_metric.value, wanted.vector_type.value) == ("Cosine", "Int8")


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["import", "docs"], id="nothing to import"),
        pytest.param(["import", "docs", "a.npy", "--orphan", "b"], id="both kinds"),
        pytest.param(["import", "docs", "--orphan", "b"], id="orphan without its shape"),
        pytest.param(["search", "docs"], id="no vector"),
        pytest.param(["search", "docs", "--id", "a", "--vector", "[1]"], id="two vectors"),
        pytest.param(["search", "docs", "--id", "a", "--npy", "b", "--text", "c"], id="two vectors and text"),
        pytest.param(
            ["search", "docs", "--id", "a", "--fields", "b", "--without-payload"], id="fields of no payload"
        ),
        pytest.param(["search", "docs", "--id", "a", "--diversity", "2"], id="too diverse"),
        pytest.param(["ls", "--data", "a", "--url", "http://b"], id="two places"),
        pytest.param(["hold", "--release", "--seconds", "5"], id="release with seconds"),
        pytest.param(["apply"], id="apply nothing"),
        pytest.param(["nonsense"], id="unknown command"),
        pytest.param(["ls", "--nonsense"], id="unknown option"),
    ],
)
def test_wrong_usage_exits_with_two(engine, vecstow, arguments):
    code, out, err = vecstow(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: vecstow" in err


def test_search_prints_the_nearest_first(engine, vecstow, embeddings):
    import_rows(vecstow, embeddings)
    code, out, _ = vecstow("search", "docs", "--vector", "[3, 4, 5]", "--limit", 2)
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["distance", "id", "payload"],
        ["0.0000", "p1", '{"size":', "1}"],
        ["5.1962", "p0", '{"size":', "0}"],
    ]


@pytest.mark.parametrize("source", ["row", "stdin"])
def test_search_takes_its_vector_from_a_file_or_stdin(engine, vecstow, embeddings, source, monkeypatch):
    import_rows(vecstow, embeddings)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"[6, 7, 8]")))
    options = {"row": ["--npy", embeddings[0], "--row", 2], "stdin": ["--vector", "-"]}
    code, out, _ = vecstow("search", "docs", *options[source], "--json")
    assert code == 0
    assert json.loads(out)[0] == {"id": "p2", "distance": 0.0, "metadata": {"size": 2}}


def test_search_near_a_point_leaves_the_point_out(engine, vecstow, embeddings):
    import_rows(vecstow, embeddings)
    code, out, _ = vecstow("search", "docs", "--id", "p2", "--json", "--limit", 1)
    assert code == 0
    assert [hit["id"] for hit in json.loads(out)] == ["p1"]


def test_search_hands_its_options_on(engine, vecstow):
    options = {
        "--limit": 7, "--offset": 3, "--ef": 90, "--filter": '{"size": {"$gt": 1}}', "--max-distance": 0,
        "--diversity": 0.25, "--fields": "a,b.c",
    }  # fmt: skip
    pairs = [each for pair in options.items() for each in pair]
    assert vecstow("search", "docs", "--vector", "[1,2,3]", *pairs, "--with-vectors")[0] == 0
    [(_, query)] = engine.calls
    assert (query.limit, query.offset, query.ef_search) == (7, 3, 90)
    assert (query.max_distance, query.diversity, query.with_vectors) == (0.0, 0.25, True)
    assert query.payload.fields == ("a", "b.c")
    assert query.filter is not None


@pytest.mark.parametrize("near", [(), ("--id", "p1")], ids=["words alone", "words and a point"])
def test_search_hands_text_and_weights_on(engine, vecstow, embeddings, near):
    import_rows(vecstow, embeddings)
    docs = engine.collection("docs")
    docs.manifest = dataclasses.replace(docs.manifest, payload_indexes=(PayloadIndex("body", "text"),))
    fusion = ["--fusion", '{"text": 2}'] if near else []
    vecstow("search", "docs", *near, "--text", "some words", *fusion)
    [(_, query)] = engine.calls
    assert query.text == "some words"
    assert query.fusion.text == (2 if near else 1)
    assert (query.near is None) == (not near)


def test_search_without_options_asks_for_none(engine, vecstow):
    vecstow("search", "docs", "--vector", "[1,2,3]")
    [(_, query)] = engine.calls
    assert (query.limit, query.offset, query.ef_search, query.filter) == (10, 0, None, None)
    assert (query.max_distance, query.diversity, query.with_vectors) == (None, 0, False)
    assert query.payload.fields is None


def test_search_prints_no_payload_when_none_is_wanted(engine, vecstow, embeddings):
    import_rows(vecstow, embeddings)
    code, out, _ = vecstow("search", "docs", "--vector", "[3, 4, 5]", "--limit", 1, "--without-payload")
    assert (code, [line.split() for line in out.splitlines()]) == (0, [["distance", "id"], ["0.0000", "p1"]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--vector", "[1,2"], "--vector is no valid JSON", id="broken vector"),
        pytest.param(
            ["--vector", "[NaN]"], "--vector[0] is nan; values must be finite", id="vector that is no number"
        ),
        pytest.param(["--vector", "[1, -1e999]"], "--vector[1] is -inf; values", id="infinite vector"),
        pytest.param(
            ["--vector", "[1,2,3]", "--filter", '{"a": NaN}'], "--filter holds a number", id="infinite filter"
        ),
        pytest.param(["--vector", '{"a": 1}'], "--vector must be a JSON list", id="no list"),
        pytest.param(
            ["--vector", "[1,2,3]", "--filter", "{"], "--filter is no valid JSON", id="broken filter"
        ),
        pytest.param(
            ["--id", "nobody"], "collection 'docs' has no point with id 'nobody'", id="unknown point"
        ),
        pytest.param(["--vector", "[1,2]"], "dimension", id="wrong dimension"),
        pytest.param(
            ["--vector", "[1,2,3]", "--max-distance", "nan"], "--max-distance is nan", id="distance"
        ),
        pytest.param(["--npy", "none.npy"], "none.npy", id="missing file"),
    ],
)
def test_a_search_that_cannot_be_is_one_line_on_stderr(engine, vecstow, arguments, message):
    code, out, err = vecstow("search", "docs", *arguments)
    assert (code, out) == (1, "")
    assert err.startswith("vecstow: ")
    assert message in err
    assert "Traceback" not in err


def test_a_row_beyond_the_file_is_refused(engine, vecstow, embeddings):
    code, _, err = vecstow("search", "docs", "--npy", embeddings[0], "--row", 5)
    assert code == 1
    assert "--row is 5" in err
    assert "rows 0 to 4" in err


def test_ls_lists_what_the_engine_has(engine, vecstow):
    engine.create(Manifest(name="more", dimension=8, distance_metric=DistanceMetric.COSINE))
    code, out, _ = vecstow("ls")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["name", "docs", "more"]
    assert [entry["name"] for entry in json.loads(vecstow("ls", "--json")[1])] == ["docs", "more"]


@pytest.fixture
def broken(engine, monkeypatch):
    """The engine has `notes` too, whose manifest it cannot read."""

    def refuse(name):
        if name == "notes":
            raise Quarantined("notes/metadata.json is not valid JSON")
        return found(name)

    state, found = engine.state_document(), engine.collection
    row = {"name": "notes", "state": "quarantined", "reason": "not valid JSON", "vector_count": 0}
    monkeypatch.setattr(
        engine, "state_document", lambda: state | {"collections": [*state["collections"], row]}
    )
    monkeypatch.setattr(engine, "collection", refuse)


def test_ls_lists_a_collection_whose_manifest_is_broken(broken, vecstow):
    code, out, _ = vecstow("ls")
    assert code == 0
    assert out.splitlines()[2].split() == ["notes", "-", "-", "-", "-", "-", "quarantined", "-"]
    assert json.loads(vecstow("ls", "--json")[1])[1]["vector_count"] is None


@pytest.mark.parametrize("state", ["quarantined", "foreign"])
def test_vectors_that_nobody_read_are_not_counted_as_none(engine, vecstow, monkeypatch, state):
    described = engine.describe("docs")
    monkeypatch.setattr(engine, "describe", lambda name: described | {"state": state})
    assert vecstow("ls")[1].splitlines()[1].split()[:3] == ["docs", "-", "3"]
    assert "vector count" not in vecstow("show", "docs")[1]


def test_ls_leaves_out_what_was_dropped_meanwhile(engine, vecstow, monkeypatch):
    state = engine.state_document()
    monkeypatch.setattr(engine, "state_document", lambda: state)
    engine.collections.clear()
    assert vecstow("ls")[:2] == (0, "no collections\n")


def test_ls_of_nothing_says_so(engine, vecstow):
    engine.collections.clear()
    assert vecstow("ls")[:2] == (0, "no collections\n")
    assert vecstow("ls", "--json")[1] == "[]\n"


def test_ls_deleted_shows_the_path_that_restore_takes(engine, vecstow):
    engine.drop("docs")
    code, out, _ = vecstow("ls", "--deleted")
    path = out.splitlines()[1].split()[-1]
    assert code == 0
    assert vecstow("restore", path, "--new-name", "again")[:2] == (0, "again: restored\n")
    assert "again" in engine.collections


def test_restore_of_a_path_that_is_gone_tells_where_to_look(engine, vecstow):
    code, _, err = vecstow("restore", "data/.deleted/docs-1-u")
    assert code == 1
    assert err.splitlines()[1] == (
        "hint: vecstow ls --deleted lists what was dropped; backups lie in .backups of the data directory; "
        "a relative path is taken from the data directory"
    )


def test_show_prints_declaration_and_state(engine, vecstow):
    code, out, _ = vecstow("show", "docs")
    facts = dict(line.split(":", 1) for line in out.splitlines())
    assert code == 0
    assert facts["dimension"].strip() == "3"
    assert facts["index config"].strip().startswith("max_connections 16, ef_")
    assert json.loads(vecstow("show", "docs", "--json")[1])["state"] == "ready"


def test_show_sums_up_the_payload_indexes(engine, vecstow):
    indexes = (PayloadIndex("tenant", "keyword"), PayloadIndex("body", "text"))
    engine.create(dataclasses.replace(DOCS, name="indexed", payload_indexes=indexes))
    _, out, _ = vecstow("show", "indexed")
    [line] = [line for line in out.splitlines() if line.startswith("payload index")]
    assert line.partition(":")[2].strip() == "tenant (keyword, 12,000 bytes), body (text, not ready)"
    shown = json.loads(vecstow("show", "indexed", "--json")[1])
    assert [each["ready"] for each in shown["payload_index_state"]] == [True, False]
    assert "payload index" not in vecstow("show", "docs")[1]


def test_show_of_an_unknown_collection_is_refused(engine, vecstow):
    code, out, err = vecstow("show", "nothing")
    assert (code, out) == (1, "")
    assert err.startswith("vecstow: no collection 'nothing'")


@pytest.mark.parametrize("name", ["../etc", "a/b", "wal", "."])
def test_an_illegal_name_is_refused_before_the_engine_is_asked(engine, vecstow, name):
    for command in ("show", "compact", "backup"):
        code, _, err = vecstow(command, name)
        assert code == 1
        assert repr(name) in err


def test_backup_and_compact_print_what_the_engine_says(engine, vecstow):
    assert vecstow("backup", "docs")[:2] == (0, "docs is copied to .backups/docs-1\n")
    assert json.loads(vecstow("compact", "docs", "--json")[1]) == {"progress": 1.0}


def test_backup_of_a_damaged_collection_warns_of_what_it_lacks(engine, vecstow, monkeypatch):
    monkeypatch.setattr(engine, "remarks_on", lambda name: "2 points are withheld")
    code, out, err = vecstow("backup", "docs")
    assert (code, out) == (0, "docs is copied to .backups/docs-1\n")
    assert err == "warning: 2 points are withheld\n"
    assert json.loads(vecstow("backup", "docs", "--json")[1])["message"] == "backed up; 2 points are withheld"


def test_hold_and_its_release(engine, vecstow):
    assert vecstow("hold", "--seconds", 30)[:2] == (0, "held until 2026-01-01T00:01:00Z\n")
    assert vecstow("hold", "--release")[:2] == (0, "the hold is released\n")
    assert engine.calls == [("hold", 30.0), ("release_hold",)]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["backup", "docs"], "backup_path"),
        (["compact", "docs"], "progress"),
        (["hold", "--seconds", "5"], "until"),
        (["hold", "--release"], "until"),
    ],
)
def test_what_the_engine_answers_is_printed_whole_as_json(engine, vecstow, arguments, key):
    code, out, _ = vecstow(*arguments, "--json")
    assert code == 0
    assert key in json.loads(out)


def test_compact_prints_what_was_given_back(engine, vecstow):
    assert vecstow("compact", "docs")[:2] == (0, "progress: 1.0\n")


def checked(**changes):
    """A report as the engine gives it."""
    clean = {"clean": True, "errors": 0, "warnings": 0, "infos": 0, "findings": [], "omitted": {}}
    return clean | {"collections": {}} | changes


def damaged(name):
    finding = {
        "severity": "error",
        "collection": name,
        "file": f"{name}/vectors.bin",
        "offset": 4096,
        "message": "the row of point 'a' fails its checksum",
        "next_command": f"vecstow import {name}",
        "next_steps": [{"does": None, "command": f"vecstow import {name}", "link": "next"}],
    }
    return checked(
        clean=False, errors=2, findings=[finding], omitted={f"{name}/vectors.bin": 1},
        collections={name: {"points": 3}},
    )  # fmt: skip


def answering(reports):
    """An engine's check that has a report for each collection, and is not asked to measure recall."""

    def check(name, recall):
        assert not recall
        return reports[name]

    return check


def test_commands_after_a_check_ask_the_engine_that_was_checked(engine, vecstow, monkeypatch):
    url = os.environ["VECSTOW_URL"]
    monkeypatch.setattr(engine, "check", answering({"docs": damaged("docs")}))
    assert f"    next: vecstow import docs --url {url}\n" in vecstow("check", "docs", "--url", url)[1]
    monkeypatch.setattr(engine, "check", answering({"docs": damaged("docs")}))
    [finding] = json.loads(vecstow("check", "docs", "--url", url, "--json")[1])["findings"]
    assert (
        finding["next_command"] == finding["next_steps"][0]["command"] == f"vecstow import docs --url {url}"
    )


def test_commands_after_a_check_have_its_key_file(engine, vecstow, monkeypatch, tmp_path):
    key = tmp_path / "the key"
    key.write_text("0" * 64)
    monkeypatch.setattr(engine, "check", answering({"docs": damaged("docs")}))
    out = vecstow("check", "docs", "--key-file", key)[1]
    assert f"    next: vecstow import docs --key-file '{key}'\n" in out


def test_check_of_an_engine_puts_the_reports_together(engine, vecstow, monkeypatch):
    engine.create(Manifest(name="more", dimension=8, distance_metric=DistanceMetric.COSINE))
    sound = checked(warnings=1, collections={"more": {"points": 1000}})
    monkeypatch.setattr(engine, "check", answering({"docs": damaged("docs"), "more": sound}))
    code, out, _ = vecstow("check")
    assert code == 1
    assert out.splitlines() == [
        "error: docs/vectors.bin at byte 4096: the row of point 'a' fails its checksum",
        "    next: vecstow import docs",
        "docs/vectors.bin: 1 finding more",
        "checked 2 collections with 1,003 points: 2 errors, 1 warning",
    ]
    code, out, _ = vecstow("check", "more", "--json")
    assert (code, json.loads(out)) == (0, sound)


def test_check_of_an_engine_asks_for_collections_whose_manifest_is_broken(
    engine, broken, vecstow, monkeypatch
):
    monkeypatch.setattr(engine, "check", answering({"docs": checked(), "notes": damaged("notes")}))
    code, out, _ = vecstow("check")
    assert code == 1
    assert out.startswith("error: notes/vectors.bin")


RESOURCE = """\
apiVersion: vecstow.dev/v1alpha1
kind: VectorCollection
metadata: {name: packages}
spec:
  dimension: 4
  distanceMetric: Cosine
  index: {efSearch: 80}
  payloadIndexes: [{field: section, type: keyword}]
  owner: examples
"""


def test_apply_over_rest_creates_then_leaves_unchanged(engine, vecstow, tmp_path):
    (tmp_path / "c.yaml").write_text(RESOURCE)
    assert vecstow("apply", "-f", tmp_path)[:2] == (0, "vectorcollection/packages created\n")
    made = engine.collections["packages"].manifest
    assert (made.dimension, made.owner) == (4, "examples")
    assert made.index_config == IndexConfig(ef_search=80)
    assert made.payload_indexes == (PayloadIndex("section", "keyword"),)
    assert vecstow("apply", "-f", tmp_path)[:2] == (0, "vectorcollection/packages unchanged\n")


def test_apply_over_rest_refuses_what_rest_cannot_change(engine, vecstow, tmp_path):
    (tmp_path / "c.yaml").write_text(RESOURCE)
    vecstow("apply", "-f", tmp_path)
    (tmp_path / "c.yaml").write_text(RESOURCE.replace("efSearch: 80", "efSearch: 90"))
    code, out, err = vecstow("apply", "-f", tmp_path)
    assert (code, out) == (1, "")
    assert "spec.index differs" in err
    assert "--data" in err


def test_apply_over_rest_changes_payload_indexes(engine, vecstow, tmp_path):
    (tmp_path / "c.yaml").write_text(RESOURCE)
    vecstow("apply", "-f", tmp_path)
    (tmp_path / "c.yaml").write_text(RESOURCE.replace("section, type: keyword", "age, type: integer"))
    assert vecstow("apply", "-f", tmp_path)[:2] == (0, "vectorcollection/packages configured\n")
    assert engine.collections["packages"].manifest.payload_indexes == (PayloadIndex("age", "integer"),)
    assert vecstow("apply", "-f", tmp_path)[:2] == (0, "vectorcollection/packages unchanged\n")


def test_apply_over_rest_changes_nothing_when_it_cannot_change_all(engine, vecstow, tmp_path):
    (tmp_path / "c.yaml").write_text(RESOURCE)
    vecstow("apply", "-f", tmp_path)
    changed = RESOURCE.replace("section", "age").replace("owner: examples", "owner: me")
    (tmp_path / "c.yaml").write_text(changed)
    code, _, err = vecstow("apply", "-f", tmp_path)
    assert (code, "spec.owner differs" in err) == (1, True)
    assert engine.collections["packages"].manifest.payload_indexes == (PayloadIndex("section", "keyword"),)


def test_apply_goes_on_after_a_refusal_and_exits_with_one(engine, vecstow, tmp_path):
    bad = RESOURCE.replace("dimension: 4", "dimension: 0").replace("packages", "bad")
    (tmp_path / "c.yaml").write_text(f"{bad}---\n{RESOURCE}")
    code, out, err = vecstow("apply", "-f", tmp_path / "c.yaml")
    assert (code, out) == (1, "vectorcollection/packages created\n")
    assert "vectorcollection/bad refused" in err
    assert "c.yaml, document 1: spec.dimension is 0; it must be from 1 to 65536" in err


def test_apply_as_json_has_every_resource(engine, vecstow, tmp_path):
    (tmp_path / "c.yaml").write_text(f"{RESOURCE}---\n{RESOURCE}")
    code, out, err = vecstow("apply", "-f", tmp_path / "c.yaml", "--json")
    first, second = json.loads(out)
    assert (code, err) == (1, "")
    assert (first["outcome"], first["message"]) == ("created", None)
    assert second["outcome"] == "refused"
    assert "is declared in" in second["message"]


def test_apply_leaves_a_paused_resource_alone(engine, vecstow, tmp_path):
    (tmp_path / "c.yaml").write_text(RESOURCE + "  paused: true\n")
    assert vecstow("apply", "-f", tmp_path)[:2] == (0, "vectorcollection/packages paused\n")
    assert "packages" not in engine.collections


def test_an_engine_that_is_not_there_is_one_line_and_a_hint(vecstow, monkeypatch):
    port = free_port()
    monkeypatch.setenv("VECSTOW_URL", f"http://127.0.0.1:{port}")
    code, out, err = vecstow("ls")
    assert (code, out) == (1, "")
    assert err.splitlines()[0].startswith(f"vecstow: no answer from http://127.0.0.1:{port}")
    assert err.splitlines()[1].startswith("hint: ")
