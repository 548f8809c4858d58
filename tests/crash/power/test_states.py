"""States are chosen, distinguished and written to a folder."""

import random

import pytest

from tests.crash.power.cache import real_tree
from tests.crash.power.content import EVERYTHING, NOTHING, content_of
from tests.crash.power.disk import chosen_names
from tests.crash.power.events import Sync, Write
from tests.crash.power.hand_made import at, disk_after, events_of, folder_synced, opened, written
from tests.crash.power.moments import moments
from tests.crash.power.states import STRATEGIES, Chooser, State

LINES = (
    f"1 mkdir({at('notes')}, 0750) = 0", opened("notes/a", 3), written(3, b"x" * 5000, 0), opened("b", 4),
    f"1 link({at('b')}, {at('c')}) = 0", written(4, b"y" * 700, 0),
)  # fmt: skip


def chooser(seed=1, lines=LINES):
    return Chooser(disk_after(*lines), random.Random(seed))


def test_a_state_in_a_folder_is_what_was_chosen(tmp_path):
    state = chooser().build({0: {"notes": 1, "b": 3, "c": 3}, 1: {"a": 2}}, lambda inode: EVERYTHING)
    state.write(tmp_path / "data")
    assert real_tree(tmp_path / "data") == state.tree
    assert state.tree == {"notes": None, "notes/a": b"x" * 5000, "b": b"y" * 700, "c": b"y" * 700}
    assert (tmp_path / "data" / "b").samefile(tmp_path / "data" / "c")


def test_equal_states_have_equal_digests_and_others_do_not():
    whole = State({"a": b"xy"})
    assert whole.digest(1) == State({"a": b"xy"}).digest(1)
    others = [State({"a": b"x"}), State({"ax": b"y"}), State({"b": b"xy"}), State({"a": None}), State({})]
    assert len({whole.digest(1), whole.digest(2), *(other.digest(1) for other in others)}) == 7


def test_a_seed_chooses_the_same_state_again():
    digests = [chooser(seed).state().digest() for seed in (5, 5, *range(40))]
    assert digests[0] == digests[1]
    assert len(set(digests)) > 10


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.__name__)
def test_no_strategy_takes_away_what_is_durable(strategy):
    synced = (
        "1 fsync(3) = 0",
        *folder_synced("notes"),
        *folder_synced(""),
        written(3, b"z", 6000),
        opened("d", 5),
    )
    for seed in range(10):
        one = chooser(seed, (*LINES, *synced))
        names, choices = strategy(one)
        tree = one.build(chosen_names(one.disk, names), choices).tree
        assert tree["notes/a"].startswith(b"x" * 5000)
        assert tree.keys() >= {"notes", "b", "c"}


def test_each_strategy_says_something_of_its_own():
    """But for those that differ only where more than one thing is uncertain."""
    found = {strategy.__name__: set() for strategy in STRATEGIES}
    for strategy in STRATEGIES:
        for seed in range(20):
            one = chooser(seed)
            names, choices = strategy(one)
            found[strategy.__name__].add(one.build(chosen_names(one.disk, names), choices).digest())
    assert len(found["_nothing"]) == len(found["_everything"]) == 1
    assert found["_nothing"].isdisjoint(found["_everything"])
    assert all(
        len(found[name]) > 3 for name in ("_torn", "_sectors", "_some_names_undone", "_each_file_its_own")
    )


def test_shared_memory_is_absent_empty_zeros_or_garbage():
    lines = opened("points.db-shm", 3), "1 ftruncate(3, 32768) = 0"
    found = set()
    for seed in range(40):
        one = chooser(seed, lines)
        tree = one.build({0: {"points.db-shm": 1}}, lambda inode: NOTHING).tree
        content = tree.get("points.db-shm")
        found.add(content if content is None or not any(content) else "garbage")
    assert found == {None, b"", bytes(32768), "garbage"}


def test_a_moment_has_what_was_over_as_it_is_and_what_was_under_way_as_it_may_be():
    events = events_of(
        opened("a", 3),
        "1 clone3({flags=CLONE_FILES}, 88) = 2",
        written(3, "x", 0),
        '1 pwrite64(3, "\\x79", 1, 1 <unfinished ...>',
        "2 fdatasync(3) = 0",
        "1 <... pwrite64 resumed>) = 1",
    )
    found = []
    for moment in moments(events, [3, 5, 9]):
        file = moment.disk.files[1]
        found.append((type(moment.last), content_of(file, NOTHING), content_of(file, EVERYTHING)))
    assert found == [(Write, b"", b"x"), (Sync, b"x", b"xy"), (Write, b"x", b"xy")]
