"""Guards: a write happens only where the point is still what its writer read, decided before it is logged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.store_on_disk import StoreOnDisk, upsert
from vecstow_engine.model.conditions import Presence
from vecstow_engine.storage.log.segment import Delete


@pytest.fixture
def notes(tmp_path):
    store = StoreOnDisk(tmp_path / "data")
    yield store
    store.close()


def labels(notes, *ids):
    """Labels of points, in the order of the ids."""
    found = {point_id: label for label, point_id, _ in notes.store.view.scan()}
    return [found[point_id] for point_id in ids]


def version(notes, point_id):
    """The version of a point, as a condition names it."""
    [point] = notes.store.view.get([point_id])
    return frozenset([point.version])


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


@pytest.mark.parametrize("in_table", [False, True], ids=["in the overlay", "in the table"])
@pytest.mark.parametrize("effect", [Delete(["a", "b"]), upsert(a=7, b=8)], ids=["delete", "upsert"])
def test_only_points_with_the_expected_version_change(notes, effect, in_table):
    notes.put(a=1, b=2)
    if in_table:
        notes.checkpoint()
    read = version(notes, "a") | {"another"}, version(notes, "b")
    notes.put(b=2)
    assert notes.store.commit([guarded(effect, *read)])[0].rejected == (1,)
    assert notes.points() == ({"b": 2} if isinstance(effect, Delete) else {"a": 7, "b": 2})
    assert notes.copied().points() == notes.points(), "replay does something else"


def test_the_second_of_two_writes_that_expect_one_version_is_rejected(notes):
    """The first one of the same group has changed the point already."""
    notes.put(a=1)
    read = version(notes, "a")
    applied = notes.store.commit([guarded(upsert(a=2), read), guarded(upsert(a=3), read)])
    assert [each.rejected for each in applied] == [(), (0,)]
    assert notes.points() == notes.copied().points() == {"a": 2}


def test_a_version_outlives_checkpoint_kill_and_restart(notes):
    notes.put(a=1, b=2)
    notes.put(c=3)
    read = version(notes, "a")
    killed = notes.copied()
    assert version(killed, "a") == read
    assert version(killed, "b") != read
    notes.checkpoint()
    assert version(notes, "a") == read
    again = notes.reopened()
    assert version(again, "a") == read
    assert again.store.commit([guarded(upsert(a=4), read)])[0].rejected == ()


def test_no_version_is_a_version_of_other_content_with_the_same_sequence(notes):
    """A restored copy goes on with sequences that the lost volume had used, too."""
    notes.put(a=1)
    vector, payload = replace(upsert(a=3), payloads=[b'{"v":2}']), replace(upsert(a=2), payloads=[b"{}"])
    copies = [notes.copied(f"copy{number}") for number in range(4)]
    for copy, effect in zip(copies, (upsert(a=2), upsert(a=2), vector, payload), strict=True):
        copy.store.commit([effect])
    lost, same, other_vector, other_payload = (version(copy, "a") for copy in copies)
    assert len({copy.store.last_sequence for copy in copies}) == 1
    assert lost == same
    assert len({lost, other_vector, other_payload}) == 3


def test_a_collection_of_the_same_name_has_other_versions(notes, tmp_path):
    notes.put(a=1)
    other = StoreOnDisk(tmp_path / "other")
    other.put(a=1)
    assert other.store.last_sequence == notes.store.last_sequence
    assert version(other, "a") != version(notes, "a")
    other.close()


def test_a_point_that_a_compaction_moves_has_another_version(notes):
    notes.put(a=1, b=2)
    notes.delete("a")
    notes.checkpoint()
    read = version(notes, "b")
    assert notes.store.relocate(10) is not None
    assert version(notes, "b") != read
    assert notes.store.commit([guarded(Delete(["b"]), read)])[0].rejected == (0,)
