"""Contents are read for the hits alone, weighed before they are read, and never those of another point."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests.unit.query.served import Asker
from tests.unit.running_engine import RunningEngine, fill
from tests.unit.store_on_disk import upsert, vector
from vecstow_engine.api.search_decoding import _Share
from vecstow_engine.model.errors import TooLarge
from vecstow_engine.model.examples import ExampleSearch, Strategy
from vecstow_engine.model.groups import GroupSearch
from vecstow_engine.model.points import PointBatch
from vecstow_engine.model.searches import SearchOptions
from vecstow_engine.query import answering, best_score
from vecstow_engine.service.request_memory import Part, RequestMemory
from vecstow_engine.storage.layout import ROWS
from vecstow_engine.storage.rows import HEADER_BYTES

POINTS = 300
ROW_BYTES = 16
NEAR = np.array(vector(1.0), np.float32)


@pytest.fixture
async def engine(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(**fill("p", POINTS))
        yield engine


def options(engine, weigh=None, **fields):
    return SearchOptions.checked(engine.collection("notes").manifest, weigh=weigh, **fields)


def weight(hits):
    return sum(len(hit.payload or b"") + (0 if hit.vector is None else hit.vector.nbytes) for hit in hits)


SEARCHES = [
    pytest.param({"limit": 20, "offset": 200}, id="offset"),
    pytest.param({"limit": 20, "diversity": 0.5}, id="diversity"),
    pytest.param({"limit": 20, "with_vectors": True}, id="vectors"),
    pytest.param({"limit": 20, "with_vectors": True, "offset": 5}, id="vectors and offset"),
]


@pytest.mark.parametrize("fields", SEARCHES)
async def test_a_search_weighs_what_its_answer_has(engine, fields):
    seen = []
    hits = await engine.search("notes", options(engine, seen.append, **fields).query(NEAR))
    assert len(hits) == 20
    assert max(seen) == weight(hits) > 0


async def test_best_scores_weigh_what_their_answer_has(engine):
    seen = []
    wanted = options(engine, seen.append, limit=5, with_vectors=True)
    search = ExampleSearch.checked(wanted, ["p7", "p9"], ["p100"], Strategy.BEST_SCORE)
    hits = await engine.search("notes", search)
    assert max(seen) == weight(hits) > 0


async def test_of_the_candidates_for_groups_only_the_field_is_kept(engine):
    """With 300 candidates and a payload of 2,000 bytes each, whole payloads would weigh 600,000 bytes."""
    manifest = engine.collection("notes").manifest
    rows = np.array([vector(n) for n in range(POINTS)], np.float32)
    payloads = [{"v": n, "text": "x" * 2000} for n in range(POINTS)]
    await engine.upsert("notes", PointBatch.build(manifest, [f"p{n}" for n in range(POINTS)], rows, payloads))
    seen = []
    wanted = options(engine, seen.append, limit=4, with_vectors=True)
    groups = await engine.search_groups("notes", GroupSearch.checked(wanted.query(NEAR), "v", 3))
    assert len(groups) == 4
    assert max(seen) < 4 * (2000 + 100)
    values = sum(sys.getsizeof(group.value) for group in groups)
    assert seen[-1] == values + weight([hit for group in groups for hit in group.hits])


async def test_vectors_of_a_refused_search_are_not_read(engine, monkeypatch):
    def refuse(held_bytes):
        if held_bytes >= 20 * ROW_BYTES:
            raise TooLarge("too much")

    monkeypatch.setattr(
        engine.collection("notes").store.view, "vectors", lambda labels: pytest.fail("vectors were read")
    )
    with pytest.raises(TooLarge):
        await engine.search("notes", options(engine, refuse, limit=20, with_vectors=True).query(NEAR))


def test_the_searches_of_a_batch_hold_the_sum_of_their_weights():
    memory = RequestMemory(64 << 20)
    lease = memory.lease()
    one, other = _Share(lease), _Share(lease)
    one(1000)
    other(5000)
    one(800)  # a repeated search begins from the start
    one(2000)
    assert lease.parts[Part.ANSWERS] == 7000
    with pytest.raises(TooLarge):
        other(memory.answer_bytes_max)
    assert lease.parts[Part.ANSWERS] == 7000


def overtake(monkeypatch, module, name, change):
    """Let `change` happen once, before the first call of a function."""
    real, overtaken = getattr(module, name), []

    def call(*values, **options):
        if not overtaken:
            overtaken.append(change())
        return real(*values, **options)

    monkeypatch.setattr(module, name, call)
    return overtaken


@pytest.mark.parametrize(
    ("module", "name", "body"),
    [
        pytest.param(answering, "with_contents", {"with_vectors": True}, id="vectors"),
        pytest.param(answering, "with_contents", {"offset": 1}, id="payloads"),
        pytest.param(answering, "read_vectors", {"diversity": 0.5}, id="candidates"),
        pytest.param(answering, "with_contents", {"diversity": 0.5}, id="diverse hits"),
        pytest.param(best_score, "read_vectors", {"strategy": "best_score"}, id="scores"),
        pytest.param(best_score, "with_contents", {"strategy": "best_score"}, id="hits of scores"),
    ],
)
async def test_a_search_misses_no_point_that_is_replaced_meanwhile(engine, monkeypatch, module, name, body):
    """The points that the search is about are p0 and p1; the new vector of p0 is that of p1."""
    engine.declare("moving")
    await engine.put("moving", p0=1, p1=2, p2=4, p3=50)
    collection = engine.collection("moving")
    overtaken = overtake(monkeypatch, module, name, lambda: collection.commit([upsert(p0=2)]))
    near = {"positive": [vector(1.0)]} if "strategy" in body else {"vector": vector(1.0)}
    route = "recommend" if "strategy" in body else "search"
    hits = await Asker(engine, packed=False).ask("moving", route, near | body | {"limit": 4})
    assert overtaken
    found = {hit["id"]: hit["metadata"]["v"] for hit in hits}
    wanted = {"p0": 2.0, "p1": 2.0, "p2": 4.0, "p3": 50.0}
    if "offset" in body:
        assert len(hits) == 3
        assert found.items() <= wanted.items()
    else:
        assert found == wanted
    for hit in hits:
        apart = np.linalg.norm(np.array(vector(found[hit["id"]])) - vector(1.0))
        assert hit["distance"] == pytest.approx(apart)
        assert hit.get("data", vector(found[hit["id"]])) == vector(found[hit["id"]])


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"with_vectors": True}, id="vectors"),
        pytest.param({"diversity": 0.1}, id="diversity"),
        pytest.param({"group_by": "v"}, id="groups"),
        pytest.param({"strategy": "best_score"}, id="best score"),
    ],
)
async def test_a_point_whose_row_is_damaged_is_withheld_and_another_found(engine, body):
    """The index has the row in memory, and finds the point; the contents show the damage."""
    engine.checkpoint()
    path = engine.layout.collection("notes") / ROWS
    raw = bytearray(path.read_bytes())
    raw[HEADER_BYTES + 1] ^= 1
    path.write_bytes(raw)
    body = body | {"limit": 3}
    if "group_by" in body:
        body["with_vectors"] = True
        groups = await Asker(engine, packed=False).ask("notes", "search/groups", {"vector": vector(1)} | body)
        ids = [group["hits"][0]["id"] for group in groups["groups"]]
    else:
        route = "recommend" if "strategy" in body else "search"
        near = {"positive": [vector(1)]} if "strategy" in body else {"vector": vector(1)}
        ids = [hit["id"] for hit in await Asker(engine, packed=False).ask("notes", route, near | body)]
    assert ids == ["p1", "p2", "p3"]
    assert engine.describe("notes")["state"] == "degraded"
    reply = await Asker(engine, packed=False).post("notes", "search", {"id": "p0"})
    assert reply.status == 503
