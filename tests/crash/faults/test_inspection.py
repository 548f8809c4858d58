"""The states that a reading is compared with while it cannot be complete."""

from __future__ import annotations

import pytest

from tests.crash.faults.inspection import Inspection
from tests.crash.faults.workload import IMPORTED, NEW, OWN, SHARED, Workload
from tests.crash.ledger import Answer, Create, Drop, Points, Put, Restore

POINTS: Points = {"a/1": (b"1", None)}


@pytest.fixture
def workload(tmp_path) -> Workload:
    """Client `a` has a collection with a point, and each client one in a shared collection."""
    made = Workload(1, tmp_path / "outside" / "orphan")
    made.main.ledger.add(Create(OWN), Answer.YES)
    made.main.ledger.add(Put(OWN, POINTS), Answer.YES)
    for writer in made.writers:
        writer.ledger.add(Put(SHARED, {f"{writer.ledger.client}/1": (b"1", None)}), Answer.YES)
    return made


def everything(workload: Workload) -> Inspection:
    """A reading of all that was acknowledged."""
    found = Inspection()
    for writer in workload.writers:
        for name, points in writer.ledger.worlds()[0].served.items():
            found.content.setdefault(name, {}).update(points)
    return found


def test_restore_in_doubt_is_neither_served_nor_dropped_until_the_next_start(workload):
    ledger = workload.main.ledger
    ledger.add(Drop(OWN, kept=OWN), Answer.YES)
    found = everything(workload)
    ledger.add(Restore(OWN, OWN), Answer.UNKNOWN)
    assert found.problems(workload, doubtful=True) == []
    assert found.problems(workload) == ["dropped are {'own'}, but set() can be restored"]


def test_what_is_neither_served_nor_dropped_is_missed_without_a_doubt(workload):
    found = everything(workload)
    del found.content[OWN]
    assert found.problems(workload, doubtful=True) != []


def test_unreadable_collection_is_there_though_it_may_have_been_dropped(workload):
    ledger = workload.main.ledger
    ledger.add(Create(IMPORTED, POINTS), Answer.YES)
    found = everything(workload)
    ledger.add(Drop(IMPORTED, kept=IMPORTED), Answer.UNKNOWN)
    del found.content[IMPORTED]
    found.excuse({IMPORTED}, workload)
    assert found.problems(workload) == []


def test_collections_that_cannot_be_read_are_excused_together_and_for_all_clients(workload):
    found = everything(workload)
    for name in (OWN, SHARED):
        del found.content[name]
    found.excuse({OWN, SHARED}, workload)
    assert found.problems(workload) == []


def test_unreadable_collection_that_nobody_made_is_not_excused(workload):
    found = everything(workload)
    found.excuse({NEW}, workload)
    assert found.problems(workload) != []
