"""Guards: a write happens only where the point is still what its writer read, decided before it is logged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.store_on_disk import StoreOnDisk, upsert
from vecstow_engine.storage.log.segment import Delete, Presence


@pytest.fixture
def notes(tmp_path):
    store = StoreOnDisk(tmp_path / "data")
    yield store
    store.close()


def labels(notes, *ids):
    """Labels of points, in the order of the ids."""
    found = {point_id: label for label, point_id, _ in notes.store.view.scan()}
    return [found[point_id] for point_id in ids]


def guarded(effect, *guards):
    return replace(effect, guards=list(guards))


@pytest.mark.parametrize("in_table", [False, True], ids=["in the overlay", "in the table"])
@pytest.mark.parametrize("effect", [Delete(["a", "b"]), upsert(a=7, b=8)], ids=["delete", "upsert"])
def test_only_points_with_the_expected_label_change(notes, effect, in_table):
    notes.put(a=1, b=2)
    if in_table:
        notes.checkpoint()
    read = labels(notes, "a", "b")
    notes.put(b=3)
    applied = notes.store.commit([guarded(effect, *read)])[0]
    assert applied.rejected == (1,)
    assert applied.existed == [True]
    assert applied.removed.tolist() == read[:1]
    assert notes.points() == ({"b": 3} if isinstance(effect, Delete) else {"a": 7, "b": 3})
    assert notes.copied().points() == notes.points(), "replay does something else"


def test_a_slot_that_is_used_again_has_another_label(notes):
    notes.put(a=1)
    read = labels(notes, "a")
    notes.delete("a")
    notes.checkpoint()
    notes.put(a=2)
    assert labels(notes, "a")[0] & 0xFFFFFFFF == read[0] & 0xFFFFFFFF, "the slot is not used again"
    assert notes.store.commit([guarded(Delete(["a"]), *read)])[0].rejected == (0,)
    assert notes.points() == {"a": 2}


def test_an_id_may_be_required_to_be_absent_or_present(notes):
    notes.put(old=1)
    insert = guarded(upsert(new=2, old=3), Presence.ABSENT, Presence.ABSENT)
    assert notes.store.commit([insert])[0].rejected == (1,)
    update = guarded(upsert(none=4, old=5), Presence.PRESENT, Presence.PRESENT)
    assert notes.store.commit([update])[0].rejected == (0,)
    assert notes.points() == {"new": 2, "old": 5}


def test_a_group_is_checked_in_its_order(notes):
    """Writers that share a commit see each other as if they came one by one."""
    notes.put(a=1, b=2)
    a, b = labels(notes, "a", "b")
    absent, present = Presence.ABSENT, Presence.PRESENT
    group = [
        guarded(upsert(a=3), a),
        guarded(upsert(a=4), a),
        Delete(["b"]),
        guarded(Delete(["b"]), b),
        guarded(upsert(b=5), absent),
        guarded(upsert(b=6), absent),
        guarded(Delete(["a", "b"]), present, b),
        guarded(upsert(a=7), present),
    ]
    rejected = [applied.rejected for applied in notes.store.commit(group)]
    assert rejected == [(), (0,), (), (0,), (), (0,), (1,), (0,)]
    assert notes.points() == {"b": 5}
    assert notes.copied().points() == {"b": 5}


def test_an_effect_whose_guards_all_fail_is_not_logged(notes):
    notes.put(a=1)
    sequence, size = notes.store.last_sequence, notes.store.log.size
    for effect in (Delete(["a"]), upsert(a=2)):
        applied = notes.store.commit([guarded(effect, Presence.ABSENT)])[0]
        assert (applied.rejected, applied.existed, applied.added.tolist()) == ((0,), [], [])
    assert (notes.store.last_sequence, notes.store.log.size) == (sequence, size)
    assert notes.points() == {"a": 1}
    notes.checkpoint()
    assert notes.store.meta.applied == sequence


def test_a_guard_for_each_id_is_required(notes):
    notes.put(a=1)
    with pytest.raises(ValueError, match="zip"):
        notes.store.commit([guarded(Delete(["a", "b"]), Presence.PRESENT)])
    assert notes.points() == {"a": 1}
