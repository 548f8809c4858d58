"""The nearest points of each value of a field, over REST in both formats, against numpy."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.unit.query.served import DIMENSION, Asker, store
from tests.unit.running_engine import RunningEngine
from tests.unit.store_on_disk import upsert
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.query import groups as grouping

NEAR = 2e-5
VECTOR = np.random.default_rng(3).normal(size=DIMENSION).astype(np.float32).tolist()
ALL = {"vector": VECTOR, "ef_search": 1000}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An engine with a collection that is searched exactly, and two with a graph, one of these indexed."""
    with RunningEngine(tmp_path_factory.mktemp("groups") / "data") as engine:
        yield engine, asyncio.run(fill(engine))


async def fill(engine):
    stored = [
        await store(engine, "flat", DistanceMetric.EUCLIDEAN, 300),
        await store(engine, "graph", DistanceMetric.COSINE, 1500),
    ]
    indexes = (PayloadIndex("doc", "keyword"), PayloadIndex("tags", "keyword"))
    stored.append(await store(engine, "indexed", DistanceMetric.COSINE, 1500, payload_indexes=indexes))
    for name in ("graph", "indexed"):
        assert engine.indexed(name).index.graph_rows
    assert engine.collection("indexed").source().columns is not None
    return {each.name: each for each in stored}


@pytest.fixture(params=[False, True], ids=["json", "msgpack"])
def asker(served, request):
    return Asker(served[0], packed=request.param)


@pytest.fixture(params=["flat", "graph", "indexed"])
def stored(served, request):
    return served[1][request.param]


def values(payload, field):
    """The values of a point, without equal ones; true is not 1."""
    found = payload
    for step in field.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    listed = found if isinstance(found, list) else [found]
    return {(type(each) is bool, each): each for each in listed if each is not None}


def grouped(stored, field, groups, size, **options):
    """Value, and positions of the nearest points, of each of the nearest groups."""
    found = {}
    for at in stored.nearest(VECTOR, **options):
        for key in values(stored.payloads[at] or {}, field):
            members = found.get(key)
            if members is None and len(found) < groups:
                members = found[key] = []
            if members is not None and len(members) < size:
                members.append(at)
    return [(key[1], members) for key, members in found.items()]


def check(stored, answer, wanted):
    apart = stored.distances(VECTOR)
    assert [group["value"] for group in answer["groups"]] == [value for value, _ in wanted]
    for group, (_, members) in zip(answer["groups"], wanted, strict=True):
        found = [hit["distance"] for hit in group["hits"]]
        assert found == pytest.approx(apart[members].tolist(), rel=NEAR, abs=NEAR)
        assert all(hit["metadata"] == stored.payload(hit["id"]) for hit in group["hits"])


@pytest.mark.parametrize("field", ["doc", "at.x", "n"])
async def test_groups_have_their_nearest_points_nearest_group_first(asker, stored, field):
    for limit, size in ((1, 1), (5, 3), (10, 4), (100, 2)):
        body = ALL | {"group_by": field, "group_size": size, "limit": limit}
        answer = await asker.ask(stored.name, "search/groups", body)
        check(stored, answer, grouped(stored, field, limit, size))


async def test_each_element_of_an_array_counts(asker, stored):
    """The first tags of a point enter in their order; the others of this collection follow."""
    body = ALL | {"group_by": "tags", "group_size": 5, "limit": 10}
    answer = await asker.ask(stored.name, "search/groups", body)
    wanted = grouped(stored, "tags", 10, 5)
    assert {repr(group["value"]) for group in answer["groups"]} == {repr(value) for value, _ in wanted}
    of_value = {repr(value): members for value, members in wanted}
    apart = stored.distances(VECTOR)
    for group in answer["groups"]:
        found = [hit["distance"] for hit in group["hits"]]
        assert found == pytest.approx(apart[of_value[repr(group["value"])]].tolist(), rel=NEAR, abs=NEAR)


async def test_one_hit_of_a_group_is_the_default(asker, stored):
    answer = await asker.ask(stored.name, "search/groups", ALL | {"group_by": "doc"})
    check(stored, answer, grouped(stored, "doc", 10, 1))


async def test_offset_counts_groups(asker, stored):
    body = ALL | {"group_by": "doc", "group_size": 2, "limit": 4, "offset": 3}
    answer = await asker.ask(stored.name, "search/groups", body)
    check(stored, answer, grouped(stored, "doc", 7, 2)[3:])


async def test_groups_match_filter_and_distance(asker, stored):
    most = float(np.sort(stored.distances(VECTOR))[120])
    body = ALL | {"group_by": "doc", "group_size": 3, "limit": 70, "max_distance": most}
    answer = await asker.ask(stored.name, "search/groups", body | {"filter": {"at.x": {"$lte": 4}}})
    fits = lambda payload: "at" in payload and payload["at"]["x"] <= 4  # noqa: E731
    check(stored, answer, grouped(stored, "doc", 70, 3, fits=fits, max_distance=most))


async def test_groups_near_a_stored_point_leave_it_out(asker, stored):
    body = {"id": "p4", "group_by": "doc", "group_size": 9, "limit": 100}
    answer = await asker.ask(stored.name, "search/groups", body)
    ids = {hit["id"] for group in answer["groups"] for hit in group["hits"]}
    with_doc = {each for each, payload in zip(stored.ids, stored.payloads, strict=True) if payload}
    assert "p4" not in ids
    if stored.name == "flat":
        assert ids == with_doc - {"p4"}


async def test_a_field_that_no_point_has_makes_no_group(asker, stored):
    assert await asker.ask(stored.name, "search/groups", ALL | {"group_by": "none"}) == {"groups": []}


async def test_hits_of_groups_have_what_is_asked_for(asker, stored):
    body = ALL | {"group_by": "doc", "limit": 3, "with_vectors": True, "with_metadata": ["n"]}
    for group in (await asker.ask(stored.name, "search/groups", body))["groups"]:
        for hit in group["hits"]:
            assert hit["metadata"] == {"n": stored.ids.index(hit["id"])}
            assert hit["data"] == stored.row(hit["id"]).tolist()


@pytest.fixture
def few_candidates(monkeypatch):
    """As in a collection that has far more points than candidates."""
    monkeypatch.setattr(grouping, "LIMIT_MAX", 70)
    compared = []
    real = grouping.matching_labels
    monkeypatch.setattr(
        grouping, "matching_labels", lambda source, given: compared.append(given) or real(source, given)
    )
    return compared


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        pytest.param(30, 3, id="no group is complete"),
        pytest.param(3, 12, id="some groups are complete"),
        pytest.param(2, 60, id="groups are missing"),
    ],
)
async def test_groups_beyond_the_candidates_are_found_exactly(asker, stored, few_candidates, size, wanted):
    body = ALL | {"group_by": "doc", "group_size": size, "limit": wanted}
    answer = await asker.ask(stored.name, "search/groups", body)
    check(stored, answer, grouped(stored, "doc", wanted, size))
    assert few_candidates


async def test_with_a_payload_index_known_groups_are_completed_at_once(asker, served, monkeypatch):
    sizes = []
    real = grouping.nearest_hits
    monkeypatch.setattr(
        grouping, "nearest_hits", lambda source, query: sizes.append(query.limit) or real(source, query)
    )
    body = ALL | {"group_by": "doc", "group_size": 100, "limit": 3}
    for name, wanted in (("graph", [1200, 4800]), ("indexed", [1200])):
        sizes.clear()
        stored = served[1][name]
        answer = await asker.ask(name, "search/groups", body)
        check(stored, answer, grouped(stored, "doc", 3, 100))
        assert sizes == wanted


async def test_incomplete_groups_of_arrays_are_completed(asker, stored, few_candidates):
    body = ALL | {"group_by": "tags", "group_size": 100, "limit": 3, "filter": {"n": {"$gte": 20}}}
    answer = await asker.ask(stored.name, "search/groups", body)
    apart = stored.distances(VECTOR)
    fits = [at for at in stored.nearest(VECTOR) if at >= 20 and stored.payloads[at]]
    for group in answer["groups"]:
        key = (type(group["value"]) is bool, group["value"])
        members = [at for at in fits if key in values(stored.payloads[at], "tags")][:100]
        found = [hit["distance"] for hit in group["hits"]]
        assert found == pytest.approx(apart[members].tolist(), rel=NEAR, abs=NEAR)
    assert few_candidates


@pytest.mark.parametrize(("size", "wanted"), [(30, 5), (3, 12)])
async def test_many_incomplete_groups_are_not_named_in_a_filter(
    asker, stored, few_candidates, monkeypatch, size, wanted
):
    monkeypatch.setattr(grouping, "NAMED_VALUES_MAX", 2)
    body = ALL | {"group_by": "doc", "group_size": size, "limit": wanted}
    answer = await asker.ask(stored.name, "search/groups", body)
    check(stored, answer, grouped(stored, "doc", wanted, size))
    assert [condition.root.operator for condition in few_candidates] == ["$exists"]


async def test_points_that_are_replaced_meanwhile_are_found_again(served, monkeypatch):
    engine, _ = served
    engine.declare("moving")
    await engine.put("moving", a=1, b=2, c=3)
    real = grouping.with_contents
    overtaken = []

    def replaced(*values, **options):
        if not overtaken:
            overtaken.append(engine.collection("moving").commit([upsert(a=1)]))
        return real(*values, **options)

    monkeypatch.setattr(grouping, "with_contents", replaced)
    body = {"vector": [1.0] * 4, "group_by": "v", "limit": 3}
    answer = await Asker(engine, packed=False).ask("moving", "search/groups", body)
    assert overtaken
    assert {group["hits"][0]["id"] for group in answer["groups"]} == {"a", "b", "c"}
