"""The reason and the errors that a collection reports about itself."""

import threading
import traceback
from types import SimpleNamespace

import pytest

from tests.unit.store_on_disk import MANIFEST
from vecstow_engine.model.errors import Quarantined
from vecstow_engine.service import lifecycle
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.lifecycle import State
from vecstow_engine.storage.layers import Layers


def test_the_reason_has_what_is_withheld_and_what_recovery_remarked():
    collection = Collection(MANIFEST)
    layers = SimpleNamespace(withheld={3: "a bad row"}, damage=None, lock=threading.Lock())
    layers.withheld_remarks = lambda: Layers.withheld_remarks(layers)
    store = SimpleNamespace(broken=None, remark=None, layers=layers)
    collection.opened(store, None, ("wal_missing",))
    assert collection.state is State.DEGRADED
    assert collection.reason == "1 point is withheld: a bad row; wal_missing"
    store.layers.withheld.clear()
    assert (collection.state, collection.reason) == (State.READY, "wal_missing")


def test_error_of_a_closed_collection_keeps_nothing_of_the_requests_before():
    collection = Collection(MANIFEST)
    error = Quarantined("damaged")
    collection.move_to(lifecycle.InQuarantine(error))
    for _ in range(5):
        with pytest.raises(Quarantined):
            collection.readable()
    assert len(list(traceback.walk_tb(error.__traceback__))) <= 2
