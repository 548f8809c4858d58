"""The states of a collection: every pair, what follows from each, and the diagram in ARCHITECTURE.md."""

import itertools
import re
from pathlib import Path

import pytest

from tests.unit.store_on_disk import MANIFEST
from vecstow_engine.model.errors import NotFound, Recovering, Unavailable
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.lifecycle import (
    TRANSITIONS,
    Dropping,
    ForeignData,
    IllegalTransition,
    InQuarantine,
    Opening,
    Postponed,
    Retired,
    Serving,
    State,
    dropped,
    failed,
    transition,
    without_drop,
)

ERROR = Unavailable("closed")
STATES = {
    state.__class__: state
    for state in (
        Opening(), Postponed(ERROR, 1.0), Serving(), InQuarantine(ERROR), ForeignData(ERROR), Retired(ERROR),
        Dropping(Serving()),
    )
}  # fmt: skip
PAIRS = [pytest.param(a, b, id=f"{a.__name__}-{b.__name__}") for a, b in itertools.product(STATES, STATES)]
ARCHITECTURE = Path(__file__).parents[3] / "ARCHITECTURE.md"


def test_the_table_has_every_state():
    assert TRANSITIONS.keys() == STATES.keys()


@pytest.mark.parametrize(("now", "to"), PAIRS)
def test_only_pairs_of_the_table_are_taken(now, to):
    before, after = STATES[now], STATES[to]
    if now is Dropping:
        return
    if to in TRANSITIONS[now]:
        assert transition(before, after) == after
    else:
        with pytest.raises(IllegalTransition, match=f"{now.__name__} to {to.__name__}"):
            transition(before, after)


@pytest.mark.parametrize(("now", "to"), PAIRS)
def test_a_failed_sync_is_remembered_in_every_state_that_follows(now, to):
    if to in TRANSITIONS[now] and now is not Dropping:
        assert transition(failed(STATES[now], "fdatasync failed"), STATES[to]).failure == "fdatasync failed"


def test_a_drop_goes_on_while_another_thread_opens_the_collection():
    """Else an opening that ends late would take the drop back, or leave the state for ever."""
    dropping = dropped(Opening())
    assert transition(dropping, Serving()) == Dropping(Serving())
    assert transition(Dropping(Serving()), Serving()) == Dropping(Serving())
    with pytest.raises(IllegalTransition):
        transition(Dropping(Serving()), Opening())


@pytest.mark.parametrize("state", [s for s in STATES.values() if not isinstance(s, Dropping)])
def test_a_drop_that_is_taken_back_leads_to_the_state_before(state):
    assert without_drop(dropped(state)) == state
    assert without_drop(state) == state
    assert without_drop(failed(dropped(state), "fdatasync failed")) == failed(state, "fdatasync failed")
    assert dropped(dropped(state)) == dropped(state)


@pytest.mark.parametrize(
    ("path", "state", "is_being_opened", "refusal"),
    [
        pytest.param([], State.RECOVERING, True, Recovering, id="opening"),
        pytest.param([Postponed(ERROR, 1.0)], State.RECOVERING, False, Unavailable, id="postponed"),
        pytest.param([Serving()], State.READY, False, None, id="serving"),
        pytest.param([InQuarantine(ERROR)], State.QUARANTINED, False, Unavailable, id="quarantined"),
        pytest.param([ForeignData(ERROR)], State.FOREIGN, False, Unavailable, id="foreign"),
        pytest.param([Serving(), Retired(ERROR)], State.RECOVERING, True, Unavailable, id="retired"),
        pytest.param([Serving(), Dropping(Serving())], State.READY, False, NotFound, id="dropping"),
    ],
)
def test_what_a_collection_can_do_follows_from_its_state(path, state, is_being_opened, refusal):
    collection = Collection(MANIFEST)
    for step in path:
        collection.move_to(step)
    assert (collection.state, collection.is_being_opened) == (state, is_being_opened)
    assert collection.serves() is (refusal is None)
    if refusal is None:
        collection.readable()
    else:
        with pytest.raises(refusal):
            collection.readable()


def test_a_collection_whose_sync_failed_is_read_only_until_the_process_ends():
    collection = Collection(MANIFEST)
    collection.opened(None, None)
    collection.fail("fdatasync failed")
    assert (collection.state, collection.reason) == (State.READ_ONLY, "fdatasync failed")
    other = Collection(MANIFEST)
    other.take_over(collection)
    other.opened(None, None)
    assert other.state is State.READ_ONLY


def test_the_diagram_has_the_transitions_of_the_table():
    drawn = set(re.findall(r"^ +(\w+) --> (\w+):", ARCHITECTURE.read_text(), re.MULTILINE))
    table = {(now.__name__, to.__name__) for now, follow in TRANSITIONS.items() for to in follow if to != now}
    assert drawn == table
