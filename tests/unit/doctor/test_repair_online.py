"""Repair of one collection of a running engine, while its neighbours serve and are written."""

import asyncio
import errno
import json
import threading

import pytest

from tests.unit.checked_volume import flip, zero
from tests.unit.damaged_store import PAGE, DamagedStore, digests, without
from tests.unit.recorded_disk import RecordedDisk
from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.doctor.repair import staging
from vecstow_engine.model.errors import (
    Conflict,
    NotFound,
    OutcomeUnknown,
    Quarantined,
    Recovering,
    StorageError,
)
from vecstow_engine.service.lifecycle import State


@pytest.fixture
def store(tmp_path):
    return DamagedStore(tmp_path / "data")


def served(engine):
    """Value by id, as the engine answers."""
    collection = engine.collection("notes")
    ids = [point_id for _, point_id, _ in collection.store.view.scan()]
    return dict(zip(ids, asyncio.run(engine.values("notes", *ids)), strict=True))


MET = {State.READY, State.DEGRADED}
"""Whether the graph's builder came upon it already."""
DAMAGES = {
    "quarantined": (lambda s: zero(s.table, s.root("meta")), {State.QUARANTINED}, ()),
    "a row": (lambda s: flip(s.rows, s.row_offset("p7")), MET, ("p7",)),
    "a point": (
        lambda s: s.change_table("UPDATE points SET payload = x'7b7d' WHERE id = 'p7'"), MET, ("p7",),
    ),
    "no manifest": (lambda s: s.manifest.unlink(), None, ()),
    "a broken manifest": (lambda s: s.manifest.write_text("{"), None, ()),
    "a broken manifest above damage": (
        lambda s: (s.manifest.write_text("{"), zero(s.table, s.root("meta"))), None, (),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "states", "lost"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_collection_is_repaired_and_serves_at_once(store, damage, states, lost):
    damage(store)
    with RunningEngine(store.data) as engine:
        if states is None:
            with pytest.raises((NotFound, Quarantined)):
                engine.collection("notes")
        else:
            assert engine.collection("notes").state in states
        assert engine.repair("notes", dry_run=True)["outcome"] == "planned"
        assert engine.repair("notes")["outcome"] == "repaired"
        assert engine.collection("notes").state is State.READY
        assert served(engine) == without(store.points, *lost)
        asyncio.run(engine.put("notes", fresh=9000))
        assert asyncio.run(engine.nearest("notes", 9000)) == ["fresh"]
        assert engine.repair("notes")["outcome"] == "sound"
    with RunningEngine(store.data) as engine:
        assert served(engine) == without(store.points, *lost) | {"fresh": 9000}


def test_writes_that_were_acknowledged_while_it_was_degraded_are_kept(store):
    """They are in the log and in memory; the row was found damaged meanwhile."""
    flip(store.rows, store.row_offset("p7"))
    with RunningEngine(store.data) as engine:
        asyncio.run(engine.put("notes", late=9000, p8=9001))
        engine.repair("notes")
        assert served(engine) == without(store.points, "p7") | {"late": 9000, "p8": 9001}


def damage_index_of_ids(store):
    """Change one id in it, as a disk would; points and rows stay intact."""
    raw = store.table.read_bytes()
    leaf = next(at for at in range(0, len(raw), PAGE) if raw[at] == 0x0A and b"p55" in raw[at : at + PAGE])
    flip(store.table, raw.index(b"p55", leaf) + 1)


def test_index_of_ids_damaged_while_serving_makes_repair_rebuild_the_table(store):
    with RunningEngine(store.data) as engine:
        damage_index_of_ids(store)
        planned = engine.repair("notes", dry_run=True)
        assert planned["outcome"] == "planned"
        assert "the index of ids does not fit the points" in planned["plan"]["steps"][0]["because"]
        assert engine.repair("notes")["outcome"] == "repaired"
        assert engine.collection("notes").state is State.READY
        assert served(engine) == store.points
        assert engine.repair("notes")["outcome"] == "sound"


def test_collection_with_a_damaged_index_of_ids_serves_on_when_its_repair_fails(store):
    with RunningEngine(store.data) as engine:
        damage_index_of_ids(store)
        with pytest.MonkeyPatch.context() as patch:
            RecordedDisk(patch).fail("sync vectors.bin", errno.EIO)
            with pytest.raises(StorageError):
                engine.repair("notes")
        assert engine.collection("notes").state is State.READY
        assert served(engine) == store.points


class Paused:
    """Holds a repair before it writes what it saved, until `go_on` is set."""

    def __init__(self, monkeypatch):
        self.reached, self.go_on = threading.Event(), threading.Event()
        real = staging.write_points

        def write_points(*args, **kwargs):
            self.reached.set()
            assert self.go_on.wait(20)
            return real(*args, **kwargs)

        monkeypatch.setattr(staging, "write_points", write_points)


def test_neighbours_serve_and_are_written_while_one_is_repaired(store, monkeypatch):
    flip(store.rows, store.row_offset("p7"))
    paused = Paused(monkeypatch)
    with RunningEngine(store.data) as engine:
        engine.declare("other")
        repair = threading.Thread(target=engine.repair, args=("notes",))
        repair.start()
        assert paused.reached.wait(20)
        asyncio.run(engine.put("other", a=1))
        assert engine.checkpoint("other")
        assert asyncio.run(engine.values("other", "a")) == [1]
        engine.declare("third")
        engine.drop("third")
        for attempt in (
            lambda: asyncio.run(engine.put("notes", x=1)),
            lambda: asyncio.run(engine.values("notes", "p1")),
            lambda: asyncio.run(engine.nearest("notes", 5)),
            lambda: engine.drop("notes"),
            lambda: engine.repair("notes"),
            lambda: engine.check("notes"),
        ):
            with pytest.raises(Recovering) as refused:
                attempt()
            assert refused.value.retry_after_seconds
        description = engine.describe("notes")
        assert description["state"] == "recovering"
        assert description["progress"]["task"].startswith("repair: ")
        engine._manifest_watcher.rescan()
        assert engine.collection("notes").state is State.RECOVERING
        paused.go_on.set()
        repair.join()
        assert engine.collection("notes").state is State.READY
        assert served(engine) == without(store.points, "p7")
        asyncio.run(engine.put("other", b=2))


def test_engine_that_stops_gives_a_repair_up_and_the_damage_stays_as_it_was(store, monkeypatch):
    flip(store.rows, store.row_offset("p7"))
    before = digests(store.folder)
    paused = Paused(monkeypatch)
    failures = []
    engine = RunningEngine(store.data)

    def repair():
        try:
            engine.repair("notes")
        except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
            failures.append(error)

    with engine:
        thread = threading.Thread(target=repair)
        thread.start()
        assert paused.reached.wait(20)
        threading.Thread(target=lambda: (wait_until(lambda: engine.gate.closed), paused.go_on.set())).start()
    thread.join()
    assert "stopping" in str(failures[0])
    assert digests(store.folder) == before


def test_collection_that_takes_no_writes_is_written_anew(store):
    """Readable files are written again after a failed sync, as their content on the disk is unknown."""
    with RunningEngine(store.data) as engine:
        asyncio.run(engine.put("notes", acknowledged=9000))
        with pytest.MonkeyPatch.context() as patch:
            RecordedDisk(patch).fail("data_sync *", errno.EIO)
            with pytest.raises(OutcomeUnknown):
                asyncio.run(engine.put("notes", unknown=9001))
        assert engine.collection("notes").state is State.READ_ONLY
        done = engine.repair("notes")
        assert "a sync of" in done["plan"]["steps"][0]["because"]
        assert engine.collection("notes").state is State.READY
        found = served(engine)
        assert found.pop("unknown", 9001) == 9001
        assert found == store.points | {"acknowledged": 9000}
        asyncio.run(engine.put("notes", more=9002))


def test_repair_that_fails_lets_the_collection_serve_as_before(store):
    flip(store.rows, store.row_offset("p7"))
    with RunningEngine(store.data) as engine:
        with pytest.MonkeyPatch.context() as patch:
            RecordedDisk(patch).fail("sync vectors.bin", errno.EIO)
            with pytest.raises(StorageError):
                engine.repair("notes")
        assert engine.collection("notes").state is not State.RECOVERING
        assert asyncio.run(engine.values("notes", "p8")) == [9]
        asyncio.run(engine.put("notes", x=1))
        assert engine.repair("notes")["outcome"] == "repaired"


def test_repair_waits_for_the_end_of_a_hold(store):
    flip(store.rows, 40)
    with RunningEngine(store.data) as engine:
        engine.hold.begin(60)
        with pytest.raises(Conflict):
            engine.repair("notes")
        assert engine.repair("notes", dry_run=True)["outcome"] == "planned"
        engine.hold.end()
        assert engine.repair("notes")["outcome"] == "repaired"


def test_unknown_collection_is_not_found(store):
    with RunningEngine(store.data) as engine, pytest.raises(NotFound):
        engine.repair("other")


def test_collection_of_kubernetes_is_repaired_and_stays_its(store):
    document = json.loads(store.manifest.read_text()) | {"managed_by": "kubernetes", "resource_uid": "r"}
    store.manifest.write_text(json.dumps(document))
    flip(store.rows, 40)
    with RunningEngine(store.data) as engine:
        assert engine.repair("notes")["outcome"] == "repaired"
        assert engine.describe("notes")["managed_by"] == "kubernetes"
