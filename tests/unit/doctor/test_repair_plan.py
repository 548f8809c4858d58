"""A repair states its plan before it does anything, and leaves evidence behind."""

import json

import pytest

from tests.unit.checked_volume import flip, zero
from tests.unit.damaged_store import DamagedStore, digests
from vecstow_engine.doctor.check import check_volume
from vecstow_engine.doctor.repair import RepairOutcome, repair_volume
from vecstow_engine.model.errors import NotFound, VolumeRefused
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.volume import Volume


@pytest.fixture
def store(tmp_path):
    store = DamagedStore(tmp_path / "data")
    flip(store.rows, store.row_offset("p7"))
    zero(store.table, store.root("meta"))
    return store


def names(data):
    return sorted(str(path.relative_to(data)) for path in data.rglob("*"))


def test_dry_run_tells_the_same_plan_and_changes_nothing(store):
    before = names(store.data), digests(store.data)
    planned = store.repair(dry_run=True)
    assert planned.outcome is RepairOutcome.PLANNED
    assert (names(store.data), digests(store.data)) == before
    assert store.repair().plan == planned.plan


def test_plan_is_told_before_anything_is_done(store):
    before = names(store.data)
    seen = []

    def planned(plan):
        files = [name for name in names(store.data) if name not in ("LOCK", "VOLUME")]
        seen.append((plan.collection, files == before))

    repair_volume(store.data, planned=planned)
    assert seen == [("notes", True)]


def test_evidence_is_whole_and_can_be_checked_like_a_volume(store):
    """The folder as it was found, its log, the plan and the list of losses."""
    original = digests(store.data)
    done = store.repair()
    evidence = store.data / done.quarantine
    assert {name: digest for name, digest in digests(evidence).items() if name in original} == original
    assert json.loads((evidence / "repair.json").read_text())["lost"] == 1
    report = check_volume(evidence, ["notes"])
    assert report.collections["notes"]["state"] == "quarantined"


def test_sound_collection_is_not_touched(tmp_path):
    store = DamagedStore(tmp_path / "data")
    before = digests(store.data)
    done = store.repair()
    assert (done.outcome, done.plan.needed) == (RepairOutcome.SOUND, False)
    assert digests(store.data) == before


def test_repairs_of_one_second_do_not_share_their_evidence(store):
    first = store.repair()
    flip(store.rows, 40)
    second = store.repair()
    assert first.quarantine != second.quarantine
    assert (store.data / first.quarantine / "repair.json").exists()


def test_index_that_no_start_would_take_is_left_to_the_start(store):
    store.repair()
    (store.folder / "index.bin").write_bytes(b"no index")
    before = digests(store.data)
    assert store.repair().outcome is RepairOutcome.SOUND
    assert digests(store.data) == before


def test_volume_in_use_is_refused(store):
    volume = Volume(Layout(store.data), 0)
    try:
        for dry_run in (True, False):
            with pytest.raises(VolumeRefused):
                repair_volume(store.data, dry_run=dry_run)
    finally:
        volume.close()


def test_unknown_name_and_folder_are_refused(store, tmp_path):
    with pytest.raises(NotFound):
        repair_volume(store.data, ["other"])
    with pytest.raises(VolumeRefused):
        repair_volume(tmp_path / "nowhere")


def test_progress_tells_each_kind_of_work(store):
    told = set()
    repair_volume(store.data, progress=lambda label, done, total: told.add(label))
    assert told >= {f"notes: {what}" for what in ("reading rows", "writing rows", "verifying")}
