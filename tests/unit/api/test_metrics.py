"""/metrics: what is counted, under which names, and how many labels there can be."""

from __future__ import annotations

import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.asgi_client import docs_service
from vecstow_engine.api.metrics import bounded
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric


async def scrape(client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    reply = await client.call("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


async def test_requests_are_counted_by_route_method_and_status():
    client, _ = docs_service()
    await client.call("POST", "/collections/docs/search", {"vector": [1, 2, 3]})
    await client.call("POST", "/collections/docs/search", {"vector": [1, 2]})
    await client.call("GET", "/collections/docs")
    await client.call("GET", "/no/such/route")
    await client.call("BREW", "/no/such/route")
    samples = await scrape(client)

    def count(route: str, method: str, status: str) -> float:
        labels = (("method", method), ("route", route), ("status", status))
        return samples["vecstow_http_requests_total", labels]

    assert count("/collections/{collection}/search", "POST", "200") == 1
    assert count("/collections/{collection}/search", "POST", "400") == 1
    assert count("/collections/{collection}", "GET", "200") == 1
    assert count("unknown", "GET", "404") == 1
    assert count("unknown", "other", "404") == 1


async def test_durations_are_histograms_in_seconds():
    client, _ = docs_service()
    await client.call("POST", "/collections/docs/search", {"vector": [1, 2, 3]})
    samples = await scrape(client)
    labels = (("method", "POST"), ("route", "/collections/{collection}/search"))
    assert samples["vecstow_http_request_duration_seconds_count", labels] == 1
    assert 0 < samples["vecstow_http_request_duration_seconds_sum", labels] < 10


async def test_the_scrape_itself_is_in_flight():
    client, _ = docs_service()
    assert (await scrape(client))["vecstow_http_requests_in_flight", ()] == 1


async def test_collections_are_counted_by_state_and_sized_up_to_a_bound():
    client, engine = docs_service(metrics_collections_max=1)
    engine.catalog.create(Manifest(name="b", dimension=3, distance_metric=DistanceMetric.COSINE))
    for _ in range(3):
        await client.call("POST", "/collections/docs/vectors", {"data": [1, 2, 3]})
    await client.call("POST", "/collections/b/vectors", {"data": [1, 2, 3]})
    samples = await scrape(client)
    assert samples["vecstow_collections", (("state", "ready"),)] == 2
    assert samples["vecstow_collections", (("state", "quarantined"),)] == 0
    assert samples["vecstow_collection_vectors", (("collection", "docs"),)] == 3
    assert samples["vecstow_collection_vectors", (("collection", "_other"),)] == 1
    assert samples["vecstow_collection_wal_bytes", (("collection", "_other"),)] == 100


async def test_what_a_failed_sync_made_read_only_is_named(monkeypatch):
    client, engine = docs_service()
    assert not [name for name, _ in await scrape(client) if name == "vecstow_read_only"]
    state = engine.state_document() | {"failure": "a sync failed"}
    state["collections"][0]["state"] = "read_only"
    monkeypatch.setattr(engine, "state_document", lambda: state)
    samples = await scrape(client)
    for name in ("docs", "_names"):
        assert samples["vecstow_read_only", (("collection", name),)] == 1


async def test_the_volume_has_a_size_and_says_when_it_is_full():
    client, engine = docs_service()
    samples = await scrape(client)
    assert samples["vecstow_volume_bytes", ()] == 100
    assert samples["vecstow_volume_available_bytes", ()] == 40
    assert samples["vecstow_volume_full", ()] == 0
    engine.volume.full = True
    assert (await scrape(client))["vecstow_volume_full", ()] == 1


async def test_the_oldest_change_without_a_checkpoint_has_an_age():
    client, engine = docs_service()
    assert (await scrape(client))["vecstow_checkpoint_lag_seconds", ()] == 0
    engine.collection("docs").changed_at = time.monotonic() - 5
    assert 5 <= (await scrape(client))["vecstow_checkpoint_lag_seconds", ()] < 60


async def test_before_discovery_only_the_readiness_is_known():
    client, engine = docs_service()
    engine.discovered = False
    samples = await scrape(client)
    assert samples["vecstow_ready", ()] == 0
    assert not [name for name, _ in samples if name.startswith("vecstow_collection")]


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        pytest.param(3, {"a": 1, "b": 5, "c": 5}, id="all fit"),
        pytest.param(2, {"b": 5, "c": 5, "_other": 1}, id="the smallest goes"),
        pytest.param(0, {"_other": 11}, id="none"),
    ],
)
def test_the_largest_values_keep_their_name(bound, expected):
    assert bounded({"a": 1, "b": 5, "c": 5}, bound) == expected


async def test_the_memory_limit_its_parts_and_what_they_take_are_told():
    client, engine = docs_service()
    samples = await scrape(client)
    assert samples["vecstow_memory_limit_bytes", ()] == 4 << 30
    shares = ("base", "requests", "changes", "work", "data")
    assert sum(samples["vecstow_memory_plan_bytes", (("part", part),)] for part in shares) == 4 << 30
    for part in ("overlays", "tails", "graphs", "growth", "rebuilds", "tables"):
        assert samples["vecstow_memory_bytes", (("part", part),)] == 0
    assert samples["vecstow_memory_bytes", (("part", "base"),)] == engine.accounts.plan.base_bytes
    assert samples["vecstow_memory_postponed_collections", ()] == 0
