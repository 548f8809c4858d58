"""What a collection says of itself."""

from types import SimpleNamespace

from tests.unit.store_on_disk import MANIFEST
from vecstow_engine.service.collection import Collection, State


def test_the_reason_has_what_is_withheld_and_what_recovery_remarked():
    collection = Collection(MANIFEST)
    layers = SimpleNamespace(withheld={3: "a bad row"}, damage=None)
    store = SimpleNamespace(broken=None, remark=None, layers=layers)
    collection.opened(store, None, ("wal_missing",))
    assert collection.state is State.DEGRADED
    assert collection.reason == "1 point is withheld: a bad row; wal_missing"
    store.layers.withheld.clear()
    assert (collection.state, collection.reason) == (State.READY, "wal_missing")
