"""`vecstow check --repair`: what is printed, asked and exited with, on a volume and over REST."""

import json

import pytest

from tests.unit.asgi_client import docs_service
from tests.unit.checked_volume import flip, zero
from tests.unit.damaged_store import DamagedStore, digests
from vecstow_engine.cli import client as rest
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.volume import Volume


@pytest.fixture
def store(tmp_path):
    store = DamagedStore(tmp_path / "data")
    flip(store.rows, store.row_offset("p7"))
    return store


def test_dry_run_prints_the_plan_and_exits_with_1(store, vecstow):
    before = digests(store.data)
    code, out, err = vecstow("check", "notes", "--data", store.data, "--repair", "--dry-run")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == "notes: step 1: set the folder and its log aside in .quarantine, whole"
    assert "the row of point 'p7' fails its checksum" in lines[1]
    assert lines[2].startswith("notes: step 2: build vectors.bin and points.db again, with 327 points: ")
    offset = store.row_offset("p7")
    assert (
        f"notes: lost: point 'p7' (notes/vectors.bin at byte {offset}): its row fails its checksum" in lines
    )
    assert lines[-1] == "notes: nothing was changed; the same command without --dry-run repairs it"
    assert digests(store.data) == before


def test_repair_prints_the_plan_and_what_came_of_it_and_exits_with_0(store, vecstow):
    code, out, _ = vecstow("check", "--data", store.data, "--repair")
    assert code == 0
    assert out.splitlines()[0].startswith("notes: step 1: ")
    [folder] = (store.data / ".quarantine").iterdir()
    assert out.splitlines()[-2:] == [
        "notes: repaired (316 points kept, 11 from the log, 1 lost); what was damaged lies in "
        f".quarantine/{folder.name}",
        f"    next: look at what is lost: {folder}/lost.jsonl",
    ]
    code, out, _ = vecstow("check", "--data", store.data, "--repair", "--dry-run")
    assert (code, out) == (0, "notes: sound, nothing to do\n")
    assert vecstow("check", "--data", store.data)[0] == 0


def test_what_cannot_be_repaired_exits_with_1_and_says_what_to_do(store, vecstow):
    store.table.unlink()
    for path in store.log.glob("*.log"):
        path.unlink()
    code, out, _ = vecstow("check", "--data", store.data, "--repair")
    assert code == 1
    assert "notes: cannot be repaired: nothing of it can be saved" in out
    again = f"vecstow check notes --data {store.data}"
    copy = f"    next: copy notes/ and its log back from a copy of the volume, then: {again}"
    assert out.splitlines()[-1] == copy


def test_what_cannot_be_repaired_names_the_newest_sound_backup(store, vecstow):
    older, newer = "notes-20260101T120000Z", "notes-20260102T120000Z"
    for backup in (older, newer):
        intact = DamagedStore(store.data / ".backups" / backup)
    flip(intact.rows, intact.row_offset("p7"))
    store.table.unlink()
    for path in store.log.glob("*.log"):
        path.unlink()
    _, out, _ = vecstow("check", "--data", store.data, "--repair")
    restore = f"vecstow restore .backups/{older} --data {store.data} --new-name notes-restored"
    assert out.splitlines()[-1].startswith(f"    next: {restore}  # ")


def test_rows_of_a_lost_table_are_counted_and_the_backup_is_named(store, vecstow):
    DamagedStore(store.data / ".backups" / "notes-20260101T120000Z")
    store.table.unlink()
    rows = (store.rows.stat().st_size - 4096) // 16
    code, out, _ = vecstow("check", "--data", store.data, "--repair")
    [folder] = (store.data / ".quarantine").iterdir()
    lines = out.splitlines()
    assert (code, lines[-3].partition(";")[0]) == (
        0, f"notes: repaired (0 points kept, 11 from the log, up to {rows} lost)",
    )  # fmt: skip
    assert f".backups/notes-20260101T120000Z --data {store.data} --new-name notes-restored" in lines[-2]
    assert lines[-1] == f"    next: look at what is lost: {folder}/lost.jsonl"
    assert f"notes: lost: up to {rows} points whose ids nothing tells" in lines
    assert any(f"rows 0 to {rows - 1} (notes/vectors.bin at byte 4096)" in line for line in lines)


def test_dry_run_sums_up_what_is_lost(store, vecstow):
    store.table.unlink()
    _, out, _ = vecstow("check", "--data", store.data, "--repair", "--dry-run")
    assert "notes: to be repaired (0 points kept, 11 from the log, up to " in out


@pytest.mark.parametrize(
    ("log", "told"),
    [
        pytest.param("a record", "1 log record lost (sequence {})", id="a record"),
        pytest.param("all of it", "whatever log records there were lost (any from sequence {} on)", id="all"),
    ],
)
def test_summary_never_says_that_nothing_is_lost_where_records_are(tmp_path, vecstow, log, told):
    store = DamagedStore(tmp_path / "data")
    first = store.table_value("SELECT applied FROM meta") + 1
    if log == "a record":
        flip(store.segment, 150)
    else:
        store.segment.unlink()
        store.change_table("UPDATE meta SET points = 1")  # a log that is gone is no damage by itself
    code, out, _ = vecstow("check", "--data", store.data, "--repair")
    assert code == 0
    assert told.format(first) in out
    assert " 0 lost" not in out


@pytest.mark.parametrize("options", [["--repair"], ["--repair", "--dry-run"]])
def test_folder_without_collections_is_told_and_nothing_is_written(tmp_path, vecstow, options):
    (tmp_path / "values.yaml").write_text("a: 1")
    (tmp_path / "charts").mkdir()
    code, out, err = vecstow("check", "--data", tmp_path, *options)
    assert (code, out) == (1, "")
    assert f"no collections in {tmp_path}" in err
    assert {path.name for path in tmp_path.iterdir()} == {"values.yaml", "charts"}


def test_unknown_name_leaves_no_trace(tmp_path, vecstow):
    assert vecstow("check", "alpha", "--data", tmp_path, "--repair")[0] == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        pytest.param(["notes", "--repair"], "vecstow check notes --repair --url", id="a name"),
        pytest.param(["notes", "--repair", "--dry-run"], "check notes --repair --dry-run --url", id="dry"),
        pytest.param(["--repair"], "vecstow check NAME --repair --url", id="all"),
        pytest.param(["notes"], "vecstow check notes --url", id="a check"),
    ],
)
def test_beside_a_running_engine_the_command_that_asks_it_is_named(store, vecstow, arguments, command):
    volume = Volume(Layout(store.data), 0)
    try:
        code, _, err = vecstow("check", *arguments, "--data", store.data)
    finally:
        volume.close()
    assert code == 1
    assert f"{command} http://127.0.0.1:3030  # or its own address: this is the default" in err


def test_damaged_row_names_repair_and_the_backup(store, vecstow):
    DamagedStore(store.data / ".backups" / "notes-20260101T120000Z")
    _, out, _ = vecstow("check", "notes", "--data", store.data)
    restore = f"vecstow restore .backups/notes-20260101T120000Z --data {store.data} --new-name notes-restored"
    assert out.splitlines()[1:-1] == [
        "    next: print what a repair saves",
        f"        vecstow check notes --data {store.data} --repair --dry-run",
        "    or: restore the backup of 2026-01-01T12:00:00Z, which lacks later writes",
        f"        {restore}",
        "    or: start the engine, and insert the point again: PUT /collections/notes/vectors/p7",
    ]


def test_json_is_one_document(store, vecstow):
    for option, outcome, expected in (("--dry-run", "planned", 1), ("--repair", "repaired", 0)):
        code, out, _ = vecstow("check", "--data", store.data, "--repair", option, "--json")
        assert code == expected
        repair = json.loads(out)["collections"]["notes"]
        assert repair["outcome"] == outcome
        assert (repair["plan"]["kept"], repair["plan"]["restored"], repair["plan"]["lost"]) == (316, 11, 1)


def test_many_losses_are_counted_not_printed(store, vecstow):
    zero(store.rows, 4096, 16 * 60)
    _, out, _ = vecstow("check", "--data", store.data, "--repair")
    assert sum("lost: point" in line for line in out.splitlines()) == 20
    assert "notes: lost: 37 points more; the repair lists them all in lost.jsonl" in out


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["check", "--dry-run", "--data", "x"], id="a dry run of nothing"),
        pytest.param(["check", "--repair", "--url", "http://127.0.0.1:1"], id="all of an engine"),
    ],
)
def test_wrong_usage_exits_with_2(vecstow, arguments):
    assert vecstow(*arguments)[0] == 2


class Answers:
    """Stands for the client: the plan first, then the repair."""

    def __init__(self, outcome):
        self.outcome, self.asked = outcome, []

    def __call__(self, url, **_):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def get(self, *segments):
        return {"progress": None}

    def post(self, *segments, document):
        self.asked.append((segments, document))
        plan = {
            "steps": [{"does": "rebuild it", "because": "it is damaged"}], "warnings": ["mind this"],
            "kept": 3, "restored": 1, "lost": 2, "lost_without_id": 2, "lost_rows": 0,
            "lost_records": 0, "losses": [], "impossible": None,
            "hint": None, "summary": "3 points kept, 1 from the log, 2 lost",
        }  # fmt: skip
        outcome = "planned" if document["dry_run"] and self.outcome == "repaired" else self.outcome
        return {"outcome": outcome, "quarantine": ".quarantine/notes-x", "plan": plan}


def test_engine_is_asked_for_the_plan_before_it_repairs(vecstow, monkeypatch):
    answers = Answers("repaired")
    monkeypatch.setattr(rest, "Client", answers)
    code, out, _ = vecstow("check", "notes", "--url", "http://127.0.0.1:1", "--repair")
    assert code == 0
    path = ("collections", "notes", "repair")
    assert answers.asked == [(path, {"dry_run": True}), (path, {"dry_run": False})]
    assert out.splitlines() == [
        "notes: step 1: rebuild it",
        "    because it is damaged",
        "notes: lost: 2 points whose ids nothing tells",
        "notes: note: mind this",
        "notes: repaired (3 points kept, 1 from the log, 2 lost); what was damaged lies in "
        ".quarantine/notes-x",
        "    next: look at what is lost: .quarantine/notes-x/lost.jsonl",
    ]


@pytest.mark.parametrize(("outcome", "code"), [("sound", 0), ("impossible", 1)])
def test_engine_is_asked_once_where_nothing_can_or_must_be_done(vecstow, monkeypatch, outcome, code):
    answers = Answers(outcome)
    monkeypatch.setattr(rest, "Client", answers)
    assert vecstow("check", "notes", "--url", "http://127.0.0.1:1", "--repair")[0] == code
    assert len(answers.asked) == 1


async def test_route_repairs_and_takes_no_unknown_field():
    client, _ = docs_service()
    reply = await client.call("POST", "/collections/docs/repair", {"dry_run": True})
    assert (reply.status, reply.data) == (200, {"outcome": "planned"})
    assert (await client.call("POST", "/collections/docs/repair")).data == {"outcome": "repaired"}
    assert (await client.call("POST", "/collections/docs/repair", {"dryrun": True})).status == 422
    assert (await client.call("POST", "/collections/none/repair")).status == 404
