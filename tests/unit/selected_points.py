"""A client of a real engine in this process for the routes that select points, and what they must answer.

Whatever is asked in JSON is asked in MessagePack too, and both answers must be the same.
"""

from __future__ import annotations

import random
from typing import Any, cast

import msgspec
import numpy as np

from tests.unit.asgi_client import AsgiClient, Reply
from tests.unit.running_engine import RunningEngine
from tests.unit.store_on_disk import vector
from vecstow_engine.api.server import create_app
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.points import PointBatch

PACKED = {"content-type": "application/msgpack", "accept": "application/msgpack"}
Payload = dict[str, Any]
Points = dict[str, Payload | None]


class Selecting:
    """Requests about the points of one collection of `engine`."""

    def __init__(self, engine: RunningEngine, collection: str = "notes") -> None:
        self.engine = engine
        self.collection = collection
        self.client = AsgiClient(create_app(engine, HttpSettings()))

    async def ask(self, what: str, body: Any, *, packed: bool = False) -> Reply:
        """The reply to a request, whatever it is."""
        target = f"/collections/{self.collection}/points/{what}"
        if packed:
            return await self.client.call("POST", target, body=msgspec.msgpack.encode(body), headers=PACKED)
        return await self.client.call("POST", target, body)

    async def read(self, what: str, **body: Any) -> Any:
        """The data that both formats answer."""
        reply = await self.ask(what, body)
        assert reply.status == 200, reply.body
        again = await self.ask(what, body, packed=True)
        assert again.status == 200, again.body
        data = cast(Payload, again.packed["data"])
        for point in data.get("points", []):
            if "data" in point:
                point["data"] = np.frombuffer(point["data"], "<f4").tolist()
        assert data == reply.data
        return data

    async def change(self, what: str, *, packed: bool = False, **body: Any) -> int:
        """The number of points that were changed."""
        reply = await self.ask(what, body, packed=packed)
        assert reply.status == 200, reply.body
        [number] = (reply.packed if packed else reply.json)["data"].values()
        return int(number)

    async def pages(self, **body: Any) -> list[Payload]:
        """The points of all pages."""
        found: list[Payload] = []
        while True:
            page = await self.read("scroll", **body)
            assert len(page["points"]) <= body.get("limit", 100)
            found += page["points"]
            body["cursor"] = page["next_cursor"]
            if body["cursor"] is None:
                return found
            assert page["points"], "a page without points that is not the last"

    async def put(self, points: Points) -> None:
        """Store points; the vector of each comes from the place of its id in `points`."""
        manifest = self.engine.collection(self.collection).manifest
        vectors = np.array([vector(number + 1) for number in range(len(points))], np.float32)
        await self.engine.upsert(
            self.collection, PointBatch.build(manifest, list(points), vectors, list(points.values()))
        )

    async def stored(self) -> Points:
        """All points, read by their ids."""
        ids = [point_id for _, point_id, _ in self.view.scan()]
        found: Points = {}
        for point in await self.engine.get_points(self.collection, ids):
            assert point is not None
            found[point.id] = None if point.payload is None else msgspec.json.decode(point.payload)
        return found

    @property
    def view(self) -> Any:
        store = self.engine.collection(self.collection).store
        assert store is not None
        return store.view


def matching(points: Points, filter: Any) -> Points:
    """The points that match, naively."""
    if filter is None:
        return points
    wanted = parse_filter(filter)
    return {i: payload for i, payload in points.items() if wanted.matches(payload, i)}


def random_payload(choose: random.Random) -> Payload | None:
    """Few fields with few values of all kinds, so that filters, orders and facets meet each of them."""
    scalars: list[Any] = [
        0,
        1,
        1.0,
        -1.5,
        2,
        True,
        False,
        None,
        "",
        "a",
        "b",
        "Z",
        "é",
        "\U0001f600",
        "\uffff",
    ]
    values: list[Any] = [*scalars, [], [1, True, 1.0, "a", "a"], [None, [2], {"x": 1}], {"b": 1}, {"b": "x"}]
    payload = {name: choose.choice(values) for name in ("a", "c", "n") if choose.random() < 0.7}
    payload["year"] = choose.randrange(2000, 2010)
    return payload if choose.random() < 0.9 else None
