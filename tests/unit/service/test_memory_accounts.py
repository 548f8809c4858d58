"""The engine's account of the memory that its parts take, against the kernel's count."""

from __future__ import annotations

import pytest

from tests.unit.measured_memory import measured
from tests.unit.running_engine import RunningEngine, fill
from tests.unit.store_on_disk import MANIFEST
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.memory_accounts import COLLECTION_BYTES, figures_of


@pytest.mark.parametrize(
    ("kind", "rows", "dimension", "band"),
    [
        pytest.param("graph", 20_000, 128, 0.15, id="graph"),
        pytest.param("graph", 5_000, 768, 0.15, id="graph of long rows"),
        pytest.param("tail", 30_000, 32, 0.25, id="tail"),
        pytest.param("overlay", 30_000, 32, 0.25, id="overlay"),
        pytest.param("columns", 100_000, 4, 0.2, id="payload indexes"),
        # The rows fill the capacity: pages that are not written yet are accounted, but not resident.
        pytest.param("tables", 1_477_500, 4, 0.15, id="tables"),
    ],
)
def test_the_account_is_within_a_band_of_the_resident_memory(kind, rows, dimension, band):
    own, resident = measured(kind, rows, dimension)
    assert own == pytest.approx(resident, rel=band)


async def test_the_sums_are_those_of_all_collections(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        for name in ("notes", "large", "dropped"):
            engine.declare(name)
            await engine.put(name, **fill("p", 1500 if name == "large" else 10))
        engine.indexed("large")
        await engine.delete_points("large", ["p1", "p2"])
        engine.drop("dropped")
        engine.accounts.count_all(engine.registry.collections())
        figures = [figures_of(collection) for collection in engine.registry.collections()]
        assert engine.accounts.data_bytes == sum(each.data for each in figures)
        assert engine.accounts.document()["change_bytes"] == sum(each.changes for each in figures)
        assert all(each.graph and each.overlay and each.tables for each in figures)


async def test_an_opening_that_fails_gives_back_what_was_admitted(engine, monkeypatch):
    await engine.put(**fill("p", 1500))
    collection = engine.indexed()
    engine._upkeep.stop()
    engine._indexer.stop()  # its next look would count the collection again
    engine._upkeep.checkpoint(collection)
    engine.accounts.count_all([])
    other = Collection(collection.manifest)

    def refuse(index, labels):
        raise MemoryError

    monkeypatch.setattr(VectorIndex, "add_backlog", refuse)
    engine._loader.load(other)
    assert other.retry_at is not None
    assert engine.accounts.data_bytes == COLLECTION_BYTES


def test_a_collection_that_is_closed_meanwhile_waits_for_nothing():
    collection = Collection(MANIFEST)

    class Closing:
        @property
        def overlay_bytes(self):
            collection.store = collection.index = None
            return 1

    collection.store, collection.index = Closing(), VectorIndex(
        MANIFEST.distance_metric, 4, MANIFEST.index_config, lambda labels: None
    )  # fmt: skip
    assert collection.waiting_bytes() == (1, 0)


async def test_an_account_of_what_waits_for_the_graph_becomes_the_graph(engine):
    """The graph takes in the end what was admitted: nothing is charged late."""
    await engine.put(**fill("p", 1500))
    promised = figures_of(engine.collection("notes")).lasting
    assert figures_of(engine.indexed()).lasting == pytest.approx(promised, rel=0.01)
