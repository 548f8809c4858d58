"""Searches that share a call, or read what is replaced meanwhile."""

from types import SimpleNamespace

import numpy as np

from tests.unit.store_on_disk import upsert
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.service import searcher


async def test_filtered_search_misses_no_point_that_is_replaced_meanwhile(engine, monkeypatch):
    await engine.put(a=1, b=1, c=2)
    collection = engine.collection("notes")
    real = collection.index.search_among

    def overtaken(*values):
        hits = real(*values)
        monkeypatch.setattr(collection.index, "search_among", real)
        collection.commit([upsert(a=1)])
        return hits

    monkeypatch.setattr(collection.index, "search_among", overtaken)
    query = SearchQuery.build(collection.manifest, np.zeros(4, np.float32), 3, None, parse_filter({"v": 1}))
    assert {hit.id for hit in searcher.search_alone(collection, query)} == {"a", "b"}


def test_searches_that_ask_for_many_hits_share_no_call():
    small, large = SimpleNamespace(hits_read=10), SimpleNamespace(hits_read=10_000)
    assert searcher._group_size([(small, None)] * 100) == 64
    assert searcher._group_size([(large, None), (small, None)]) == 1
    assert searcher._group_size([(small, None), (large, None), (small, None)]) == 1
    assert searcher._group_size([(small, None)]) == 1
