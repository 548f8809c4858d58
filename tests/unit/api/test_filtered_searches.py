"""Filters reach the id and the payload of each point, in both body formats and in both ways to search."""

import asyncio

import msgspec
import numpy as np
import pytest

from tests.unit.asgi_client import AsgiClient
from tests.unit.running_engine import RunningEngine
from vecstow_engine.api.server import create_app

SEARCH = "/collections/notes/search"
VECTOR = [1.0, 2.0, 3.0, 4.0]
PACKED = {"content-type": "application/msgpack"}
POINTS = {
    "docs/a": {"at": "2024-05-01T12:00:00+02:00", "site": {"lat": 59.9, "lon": 10.7}, "tags": ["x", "y"]},
    "docs/b": {"at": "2024-05-02", "site": {"lat": 0, "lon": 179.9}, "tags": [], "$id": "docs/a"},
    "c": {"at": "2024-06-01T00:00:00Z", "n": 2**64 - 1},
    "d": None,
}
NEAR = {"center": {"lat": 59.91, "lon": 10.75}, "radius_m": 5000}
CASES = [
    pytest.param({"$id": "docs/a"}, {"docs/a"}, id="an id"),
    pytest.param({"$id": {"$startsWith": "docs/"}}, {"docs/a", "docs/b"}, id="a prefix of ids"),
    pytest.param({"$not": {"$id": {"$in": ["c", "d"]}}}, {"docs/a", "docs/b"}, id="other ids"),
    pytest.param({"at": {"datetime": "2024-05-01T10:00:00Z"}}, {"docs/a"}, id="an instant"),
    pytest.param({"at": {"$gt": {"datetime": "2024-05-01T10:00:00Z"}}}, {"c"}, id="after an instant"),
    pytest.param({"tags": {"$size": 2}}, {"docs/a"}, id="a size"),
    pytest.param({"tags": {"$empty": True}}, {"docs/b", "c", "d"}, id="empty and absent"),
    pytest.param({"n": {"$between": [2.0**63, 2**64 - 1]}}, {"c"}, id="a range beyond int64"),
    pytest.param({"site": {"$within": NEAR}}, {"docs/a"}, id="a circle"),
    pytest.param(
        {"site": {"$within": {"box": {"south": -1, "west": 179, "north": 1, "east": -179}}}},
        {"docs/b"},
        id="a box across the antimeridian",
    ),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client of an engine with four points, two of them checkpointed."""

    async def write(client, *ids):
        for point_id in ids:
            body = {"id": point_id, "data": VECTOR, "metadata": POINTS[point_id]}
            assert (await client.call("POST", "/collections/notes/vectors", body)).status == 200

    with RunningEngine(tmp_path_factory.mktemp("filtered") / "data") as engine:
        engine.declare("notes")
        client = AsgiClient(create_app(engine))
        asyncio.run(write(client, "docs/a", "c"))
        assert engine.checkpoint()
        asyncio.run(write(client, "docs/b", "d"))
        yield client


@pytest.mark.parametrize("limit", [pytest.param(4, id="near hits"), pytest.param(1001, id="scan")])
@pytest.mark.parametrize(("filter", "wanted"), CASES)
async def test_a_filter_finds_the_points_that_match(client, filter, wanted, limit):
    sent = {"vector": VECTOR, "limit": limit, "filter": filter}
    reply = await client.call("POST", SEARCH, sent)
    assert {hit["id"] for hit in reply.data} == wanted
    packed = msgspec.msgpack.encode(sent | {"vector": np.array(VECTOR, "<f4").tobytes()})
    reply = await client.call("POST", SEARCH, body=packed, headers=PACKED)
    assert {hit["id"] for hit in reply.data} == wanted


async def test_a_timestamp_of_messagepack_is_refused_as_a_value(client):
    """MessagePack has datetimes of its own, which no payload can hold."""
    body = {
        "vector": np.array(VECTOR, "<f4").tobytes(),
        "filter": {"at": msgspec.msgpack.Ext(-1, b"\0\0\0\0")},
    }
    reply = await client.call("POST", SEARCH, body=msgspec.msgpack.encode(body), headers=PACKED)
    assert reply.status == 400
    assert reply.json["details"]["field"] == "filter.at"
