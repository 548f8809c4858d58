"""Errors repeat a few hundred characters of a request at most, whatever part of it is wrong."""

from __future__ import annotations

import json

import pytest

from tests.unit.asgi_client import docs_service

LONG = "x" * 50_000
VECTORS = "/collections/docs/vectors"
ANSWER_BYTES_MAX = 3_000
"""The message stands twice, and once more in parts."""


@pytest.mark.parametrize(
    ("method", "target", "value"),
    [
        pytest.param("POST", VECTORS, {"data": [1, 2, 3], LONG: 1}, id="unknown field"),
        pytest.param("POST", VECTORS, {"data": [1, 2, 3], "id": LONG}, id="id"),
        pytest.param("PUT", f"{VECTORS}/a", {"data": [1, 2, 3], "id": "y" * 250}, id="other id"),
        pytest.param("POST", VECTORS, {"data": [1, 2, 3], "metadata": {LONG: 2**70}}, id="payload key"),
        pytest.param("POST", VECTORS, {"data": LONG}, id="vector"),
        pytest.param("POST", f"{VECTORS}/get", {"ids": [LONG]}, id="ids"),
        pytest.param(
            "POST", "/collections/docs/search", {"vector": [1, 2, 3], "filter": {LONG: 1}}, id="filter key"
        ),
        pytest.param(
            "POST",
            "/collections/docs/search",
            {"vector": [1, 2, 3], "filter": {"a": {"$" + LONG: 1}}},
            id="operator",
        ),
        pytest.param("POST", "/collections/docs/search", {"vector": [1, 2, 3], "limit": LONG}, id="limit"),
        pytest.param(
            "POST", "/collections", {"name": LONG, "dimension": 3, "distance_metric": "Cosine"}, id="name"
        ),
        pytest.param(
            "POST", "/collections", {"name": "a", "dimension": 3, "distance_metric": LONG}, id="metric"
        ),
        pytest.param(
            "POST",
            "/collections",
            {"name": "a", "dimension": 3, "distance_metric": "Cosine", "index_config": {LONG: 1}},
            id="index key",
        ),
        pytest.param("POST", "/collections/restore", {"backup_path": LONG}, id="path"),
        pytest.param("GET", f"/{LONG[:8000]}", None, id="route"),
        pytest.param("GET", f"/collections/{LONG[:8000]}", None, id="collection"),
        pytest.param("GET", f"{VECTORS}/{LONG[:8000]}", None, id="point"),
        pytest.param("POST", f"/collections?{LONG[:8000]}=1", {}, id="query"),
        pytest.param("PATCH", f"{VECTORS}/{LONG[:8000]}", {}, id="method"),
    ],
)
async def test_an_error_quotes_in_part(method, target, value):
    client, _ = docs_service()
    reply = await client.call(method, target, value)
    assert 400 <= reply.status < 500
    assert len(reply.body) < ANSWER_BYTES_MAX, reply.body[:2000]
    assert json.loads(reply.body)["message"]
