"""Routes of collections and of the server, against an engine in memory."""

from __future__ import annotations

import pytest

from tests.unit.asgi_client import docs_service
from vecstow_engine.model.errors import Recovering
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType

NEW = {"name": "new", "dimension": 4, "distance_metric": "Cosine"}


async def test_a_created_collection_is_listed_and_described():
    client, _ = docs_service()
    body = {**NEW, "vector_type": "Int8", "index_config": {"ef_search": 70}, "owner": "me"}
    body["payload_indexes"] = [{"field": "tenant", "type": "keyword"}]
    reply = await client.call("POST", "/collections", body)
    assert (reply.status, reply.data) == (200, {"name": "new", "message": "created"})
    assert (await client.call("GET", "/collections")).data == ["docs", "new"]
    described = (await client.call("GET", "/collections/new")).data
    assert list(described)[:5] == ["name", "dimension", "distance_metric", "vector_type", "index_config"]
    assert described["index_config"]["ef_search"] == 70
    assert (described["owner"], described["vector_count"], described["state"]) == ("me", 0, "ready")
    assert described["payload_indexes"] == [{"field": "tenant", "type": "keyword"}]


async def test_a_collection_is_created_as_the_published_client_asks():
    client, _ = docs_service()
    body = {**NEW, "vector_type": "Float32", "index_config": None}
    assert (await client.call("POST", "/collections", body)).status == 200


async def test_creating_twice_is_a_conflict_unless_that_is_ok():
    client, _ = docs_service()
    await client.call("POST", "/collections", NEW)
    assert (await client.call("POST", "/collections", NEW)).status == 409
    reply = await client.call("POST", "/collections?if_exists=ok", NEW)
    assert (reply.status, reply.data["message"]) == (200, "exists already, with the same shape")
    reply = await client.call("POST", "/collections?if_exists=ok", {**NEW, "dimension": 5})
    assert reply.status == 409


async def test_stats_have_exactly_the_fields_of_the_published_client():
    client, _ = docs_service()
    reply = await client.call("GET", "/collections/docs/stats")
    assert set(reply.data) == {"name", "vector_count", "dimension", "index_size", "memory_usage"}
    reply = await client.call("GET", "/stats")
    names = {"total_vectors", "total_collections", "memory_usage", "disk_usage", "uptime_seconds"}
    assert set(reply.data) == names


async def test_a_dropped_collection_is_listed_and_restored():
    client, _ = docs_service()
    reply = await client.call("DELETE", "/collections/docs")
    assert (reply.status, reply.data["name"]) == (200, "docs")
    [row] = (await client.call("GET", "/collections/deleted")).data
    assert set(row) == {"name", "path", "deleted_timestamp", "age_hours"}
    reply = await client.call(
        "POST", "/collections/restore", {"backup_path": row["path"], "new_name": "docs2"}
    )
    assert reply.data == {"name": "docs2", "message": "restored"}
    assert (await client.call("GET", "/collections")).data == ["docs2"]


async def test_hard_delete_leaves_nothing_to_restore():
    client, _ = docs_service()
    assert (await client.call("DELETE", "/collections/docs/hard-delete")).data["name"] == "docs"
    assert (await client.call("GET", "/collections/deleted")).data == []


@pytest.mark.parametrize(
    ("body", "hours"),
    [
        pytest.param(None, 24.0, id="no body"),
        pytest.param({}, 24.0, id="empty"),
        pytest.param({"retention_hours": 0}, 0, id="now"),
    ],
)
async def test_cleanup_removes_what_is_older_than_its_hours(body, hours):
    client, engine = docs_service()
    await client.call("DELETE", "/collections/docs")
    assert (await client.call("POST", "/collections/cleanup", body)).data == ["docs"]
    assert engine.calls == [("cleanup", hours)]


async def test_backup_compact_and_check_answer_what_the_engine_says():
    client, _ = docs_service()
    reply = await client.call("POST", "/collections/docs/backup")
    assert reply.data == {"collection": "docs", "backup_path": ".backups/docs-1", "message": "backed up"}
    assert (await client.call("POST", "/collections/docs/compact")).data == {"progress": 1.0}
    assert (await client.call("POST", "/collections/docs/check")).data == {"problems": []}


async def test_import_hands_the_checked_shape_to_the_engine():
    client, engine = docs_service()
    body = {
        "orphaned_path": "/data/old",
        "collection_name": "old",
        "dimension": 3,
        "distance_metric": "Cosine",
        "vector_type": "Float32",
    }
    assert (await client.call("POST", "/collections/import", body)).data["name"] == "old"
    shape = {"dimension": 3, "distance_metric": DistanceMetric.COSINE, "vector_type": VectorType.FLOAT32}
    assert engine.calls == [("import", "/data/old", Manifest(name="old", **shape))]
    reply = await client.call("POST", "/collections/import", {**body, "collection_name": "../x"})
    assert reply.status == 400


async def test_a_hold_answers_its_end_and_is_released():
    client, engine = docs_service()
    reply = await client.call("POST", "/hold", {"seconds": 5})
    assert reply.data == {"until": "2026-01-01T00:01:00Z", "message": "holding"}
    assert (await client.call("DELETE", "/hold")).data["until"] is None
    assert engine.calls == [("hold", 5.0), ("release_hold",)]


async def test_an_unchanged_state_is_304():
    client, engine = docs_service()
    reply = await client.call("GET", "/state")
    etag = reply.headers["etag"]
    assert reply.data["collections"][0]["name"] == "docs"
    reply = await client.call("GET", "/state", headers={"if-none-match": f'"other", W/{etag}'})
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)
    engine.drop("docs")
    reply = await client.call("GET", "/state", headers={"if-none-match": etag})
    assert (reply.status, reply.data["collections"]) == (200, [])


async def test_findings_reach_the_engine():
    client, engine = docs_service()
    await client.call("POST", "/state/refresh", {"docs": {"drift": True}})
    await client.call("POST", "/state/refresh")
    assert engine.calls == [("refresh", {"docs": {"drift": True}}), ("refresh", {})]


async def test_health_is_as_the_published_client_reads_it():
    client, _ = docs_service()
    for path in ("/health", "/health/check", "/health/live", "/health/ready", "/ready"):
        assert (await client.call("GET", path)).json == {"success": True, "data": "OK", "error": None}


async def test_before_discovery_only_liveness_is_well():
    client, engine = docs_service()
    engine.discovered = False
    assert (await client.call("GET", "/health/live")).status == 200
    for method, path in (
        ("GET", "/ready"),
        ("GET", "/health"),
        ("GET", "/health/ready"),
        ("GET", "/collections"),
        ("POST", "/collections/docs/search"),
        ("GET", "/stats"),
    ):
        reply = await client.call(method, path)
        assert (reply.status, reply.headers["retry-after"]) == (503, "1"), path
        assert reply.json["details"]["kind"] == "Recovering"
    assert (await client.call("GET", "/metrics")).status == 200


async def test_a_collection_in_replay_does_not_hide_the_others():
    client, engine = docs_service()
    engine.all_ready = False
    assert (await client.call("GET", "/ready")).status == 200
    reply = await client.call("GET", "/health/ready")
    assert (reply.status, reply.json["details"]["not_ready"]) == (503, {"docs": "recovering"})
    assert reply.headers["retry-after"] == "1"


async def test_no_wait_is_asked_for_while_a_collection_is_read_only(monkeypatch):
    """Only a restart or a repair ends `read_only`."""
    client, engine = docs_service()
    waiting = {"docs": "read_only", "notes": "recovering"}
    monkeypatch.setattr(engine, "not_ready", lambda: waiting)
    reply = await client.call("GET", "/health/ready")
    assert (reply.status, reply.json["details"]["not_ready"]) == (503, waiting)
    assert "retry-after" not in reply.headers


async def test_liveness_fails_when_a_restart_would_help():
    client, engine = docs_service()
    engine.live = False
    reply = await client.call("GET", "/health/live")
    assert reply.status == 503
    assert "retry-after" not in reply.headers


async def test_an_error_of_the_engine_keeps_its_own_retry_after():
    client, engine = docs_service()
    engine.fails = Recovering("replaying", collection="docs", retry_after_seconds=7, hint="wait")
    reply = await client.call("POST", "/collections/docs/search", {"vector": [1, 2, 3]})
    assert (reply.status, reply.headers["retry-after"]) == (503, "7")
    assert reply.json["details"] == {"kind": "Recovering", "collection": "docs", "hint": "wait"}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        pytest.param("PATCH", "/collections", "GET, HEAD, POST", id="FastAPI's"),
        pytest.param("PUT", "/collections/docs", "DELETE, GET, HEAD", id="two routes of one path"),
        pytest.param("GET", "/collections/docs/search", "POST", id="hot"),
        pytest.param("POST", "/collections/docs/vectors/a", "DELETE, GET, HEAD, PUT", id="by id"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(method, path, allow):
    client, _ = docs_service()
    reply = await client.call(method, path)
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert reply.json["details"]["kind"] == "MethodNotAllowed"


@pytest.mark.parametrize(
    "path",
    ["/", "/nope", "/collections/", "/collections/docs/nope", "/docs", "/collections/docs/vectors/a/b"],
)
async def test_an_unknown_route_is_404_in_the_envelope(path):
    client, _ = docs_service()
    reply = await client.call("GET", path)
    assert (reply.status, reply.json["success"]) == (404, False)


async def test_cold_answers_come_packed_when_asked_for():
    client, _ = docs_service()
    reply = await client.call(
        "GET", "/collections", headers={"accept": "text/html, application/x-msgpack;q=0.9"}
    )
    assert reply.packed == {"success": True, "data": ["docs"], "error": None}
