"""The header that explains a search, over REST in both formats; the answer itself stays as it is."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.unit.query.served import DIMENSION, Asker, store
from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.metrics import DistanceMetric

SEARCH = {"vector": [1.0] * DIMENSION, "limit": 3}


@pytest.fixture(scope="module")
def engine_with_points(tmp_path_factory):
    with RunningEngine(tmp_path_factory.mktemp("explain") / "data") as engine:
        asyncio.run(store(engine, "notes", DistanceMetric.COSINE, 300))
        yield engine


@pytest.fixture(params=[False, True], ids=["json", "msgpack"])
def asker(engine_with_points, request):
    return Asker(engine_with_points, packed=request.param)


def explanation(reply):
    return json.loads(reply.headers["vecstow-explain"])


@pytest.mark.parametrize(
    ("route", "more"),
    [
        pytest.param("search", {}, id="search"),
        pytest.param("search?explain=true", None, id="search, by the URL"),
        pytest.param("search", {"filter": {"n": {"$lt": 9}}}, id="search with a filter"),
        pytest.param("search/groups", {"group_by": "doc"}, id="groups"),
        pytest.param("recommend", {"positive": ["p1"], "vector": None}, id="recommend"),
    ],
)
async def test_the_header_has_plan_counts_and_milliseconds(asker, route, more):
    body = SEARCH | ({"explain": True} | more if more is not None else {})
    body = {name: value for name, value in body.items() if value is not None}
    explained = await asker.post("notes", route, body)
    found = explanation(explained)
    assert found["plan"] in ("graph", "exact", "scan")
    assert found["reason"]
    assert found["counts"]["points"] == 300
    assert all(value >= 0 for value in found["milliseconds"].values())
    plain = await asker.post("notes", route.partition("?")[0], body | {"explain": False})
    assert "vecstow-explain" not in plain.headers
    assert plain.body == explained.body


async def test_a_search_of_a_batch_is_not_explained(asker):
    reply = await asker.post("notes", "search/batch", {"searches": [SEARCH, SEARCH | {"explain": True}]})
    assert reply.status == 400
    assert b"searches[1]" in reply.body
    assert b"explain is true" in reply.body


async def test_explain_in_the_url_is_true_or_false(asker):
    reply = await asker.post("notes", "search?explain=yes", SEARCH)
    assert reply.status == 400
    assert b"query parameter explain is 'yes'; it must be true or false" in reply.body


async def test_the_header_is_short_and_ascii_for_any_filter(asker):
    fields = {f"ü{number}" * 200: 1 for number in range(100)}
    found = await asker.post("notes", "search", SEARCH | {"explain": True, "filter": fields})
    assert found.status == 200
    assert len(found.headers["vecstow-explain"]) < 4096
    assert found.headers["vecstow-explain"].isascii()
