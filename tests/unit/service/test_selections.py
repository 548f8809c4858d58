"""Scroll, count, facet, delete and changes of payloads against a naive evaluation, on a real engine."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections import Counter

import pytest

from tests.unit.running_engine import wait_until
from tests.unit.selected_points import PACKED, Selecting, matching, random_payload
from vecstow_engine.api import selection_routes
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.metrics import VectorType
from vecstow_engine.query import facet as facet_module
from vecstow_engine.query import scroll
from vecstow_engine.service import selections
from vecstow_engine.storage.store import Store
from vecstow_engine.storage.walk import Walk

FILTERS = [
    None,
    {"year": {"$gte": 2005}},
    {"a": 1},
    {"a.b": 1},
    {"$or": [{"c": "a"}, {"c": {"$exists": False}}]},
    {"n": {"$contains": 1}},
    {"$not": {"year": 2003}},
    {"year": 1},
]


INDEXES = (PayloadIndex("year", "integer"), PayloadIndex("c", "keyword"), PayloadIndex("n", "integer"))


@pytest.fixture(params=["overlay", "table", "mixed", "indexed"])
async def points(request, engine):
    """A hundred and fifty points, in the layers that the parameter names, and a client for them."""
    choose = random.Random(request.param)
    names = [choose.choice("aBé\U0001f600") + str(number) for number in range(150)]
    name = "many"
    engine.declare(name, payload_indexes=INDEXES if request.param == "indexed" else ())
    asking = Selecting(engine, name)
    asking.points = {name: random_payload(choose) for name in names}
    await asking.put({name: random_payload(choose) for name in names[:100]} | {"gone": None, "x": None})
    if request.param != "overlay":
        engine.checkpoint(name)
    await asking.put(asking.points)
    await engine.delete_points(name, ["gone", "x"])
    if request.param == "table":
        engine.checkpoint(name)
    if request.param == "indexed":
        wait_until(lambda: engine.collection(name).payload_indexes.complete is not None)
    return asking


def placed(point_id, value):
    return isinstance(value, str), value, point_id


def in_order(points, field, descending=False):
    """Ids in the order of a field of the payload itself."""
    having = {
        i: payload[field]
        for i, payload in points.items()
        if payload and type(payload.get(field)) in (int, float, str)
    }
    ids = sorted(having)
    return sorted(ids, key=lambda i: placed("", having[i])[:2], reverse=descending)


@pytest.mark.parametrize("limit", [1, 7, 100, 10_000])
async def test_scroll_by_id(points, limit):
    for wanted in FILTERS if limit > 1 else FILTERS[:2]:
        found = await points.pages(limit=limit, filter=wanted)
        expected = matching(points.points, wanted)
        assert [point["id"] for point in found] == sorted(expected)
        assert {point["id"]: point["metadata"] for point in found} == expected


@pytest.mark.parametrize(
    ("limit", "is_walked"),
    [
        pytest.param(100, False, id="few match: all of them are read"),
        pytest.param(10, True, id="many match: the ids are walked"),
    ],
)
async def test_scroll_by_id_takes_the_cheaper_way(points, monkeypatch, limit, is_walked):
    """A column says that 79 of 150 points match. The square of 79 is below 100 * 150, above 10 * 150."""
    is_indexed = points.engine.collection(points.collection).payload_indexes.complete is not None
    blocks = []
    block = Walk.block
    monkeypatch.setattr(Walk, "block", lambda walk, *values: blocks.append(values) or block(walk, *values))
    wanted = {"year": {"$gte": 2005}}
    found = [point["id"] for point in await points.pages(limit=limit, filter=wanted)]
    assert found == sorted(matching(points.points, wanted))
    assert bool(blocks) == (is_walked or not is_indexed)


@pytest.mark.parametrize("limit", [3, 100])
@pytest.mark.parametrize("field", ["year", "a", "c", "none"])
async def test_scroll_by_a_field(points, field, limit, monkeypatch):
    monkeypatch.setattr(scroll, "SPARE_POINTS", 2)
    for wanted in FILTERS[:4]:
        for direction in ("asc", "desc"):
            found = await points.pages(
                limit=limit, filter=wanted, order_by={"field": field, "direction": direction}
            )
            expected = in_order(matching(points.points, wanted), field, direction == "desc")
            assert [point["id"] for point in found] == expected
    assert await points.pages(order_by=field) == await points.pages(order_by={"field": field})


async def test_scroll_answers_what_is_chosen(points):
    stored = {
        point.id: point.vector.tolist()
        for point in await points.engine.get_points(points.collection, list(points.points))
    }
    for order in ({}, {"order_by": "year"}, {"filter": {"year": {"$gt": 2003}}}):
        for point in await points.pages(**order, with_vectors=True, limit=40):
            assert point["data"] == stored[point["id"]]
            assert point["metadata"] == points.points[point["id"]]
        for point in await points.pages(**order, with_metadata=False):
            assert list(point) == ["id"]
        for point in await points.pages(**order, with_metadata=["year", "a.b"]):
            whole = points.points[point["id"]]
            if whole is None:
                assert point["metadata"] is None
                continue
            chosen = {"year": whole["year"]}
            if isinstance(whole.get("a"), dict):
                chosen["a"] = {"b": whole["a"]["b"]}
            assert point["metadata"] == chosen


async def test_count(points):
    for wanted in FILTERS:
        expected = len(matching(points.points, wanted))
        assert await points.read("count", filter=wanted) == {"count": expected}
    assert (await points.client.call("POST", "/collections/many/points/count")).data == {"count": 150}


def facet_of(points, field):
    """The counts of a field of the payload itself, ordered as the answer is."""
    counts = Counter()
    for payload in points.values():
        value = (payload or {}).get(field, {})
        scalars = value if isinstance(value, list) else [value]
        counts.update({(type(v) is bool, v) for v in scalars if not isinstance(v, list | dict)})

    def key(entry):
        (_, value), count = entry
        kind = [type(None), bool, int, str].index(int if type(value) is float else type(value))
        return -count, kind, 0 if value is None else value

    return [(value, count) for (_, value), count in sorted(counts.items(), key=key)]


async def test_facet(points):
    for wanted in FILTERS:
        for field in ("a", "c", "n", "year", "none"):
            expected = facet_of(matching(points.points, wanted), field)
            for limit in (1, 10, 1000):
                data = await points.read("facet", field=field, filter=wanted, limit=limit)
                found = [(entry["value"], entry["count"]) for entry in data["values"]]
                assert found == expected[:limit]
                assert [type(value) for value, _ in found if not isinstance(value, float | int)] == [
                    type(value) for value, _ in expected[:limit] if not isinstance(value, float | int)
                ]
    nested = await points.read("facet", field="a.b")
    assert {entry["value"] for entry in nested["values"]} <= {1, "x"}
    assert nested["values"]


async def test_a_facet_bounds_what_it_counts(points, monkeypatch):
    monkeypatch.setattr(facet_module, "DISTINCT_MAX", 9)
    reply = await points.ask("facet", {"field": "year"})
    assert (reply.status, reply.json["details"]["kind"]) == (413, "TooLarge")
    assert reply.json["error"].startswith("field 'year' has more than 9 different values")
    monkeypatch.setattr(facet_module, "DISTINCT_MAX", 10)
    assert len((await points.read("facet", field="year"))["values"]) == 10


async def test_a_facet_takes_its_memory_from_the_account(points, monkeypatch):
    monkeypatch.setattr(facet_module, "WEIGHED_BYTES", 0)
    monkeypatch.setattr(facet_module, "ENTRY_BYTES", 100 << 20)
    reply = await points.ask("facet", {"field": "year"})
    assert (reply.status, reply.json["details"]["field"]) == (413, "field")


async def test_an_order_takes_its_memory_from_the_account(points, monkeypatch):
    monkeypatch.setattr(scroll, "SPARE_BYTES", 1000)
    assert (await points.ask("scroll", {"order_by": "c"})).status == 200
    monkeypatch.setattr(scroll, "_value_bytes", lambda point: 100 << 20)
    reply = await points.ask("scroll", {"order_by": "c"})
    assert (reply.status, reply.json["details"]["field"]) == (413, "order_by")
    assert "field 'c'" in reply.json["error"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("wanted", FILTERS[1:])
async def test_delete_by_filter(points, monkeypatch, wanted, packed):
    monkeypatch.setattr(selections, "DELETED_POINTS", 7)
    doomed = matching(points.points, wanted)
    assert await points.change("delete", filter=wanted, packed=packed) == len(doomed)
    left = {i: payload for i, payload in points.points.items() if i not in doomed}
    assert await points.stored() == left
    assert (await points.read("count"))["count"] == len(left)
    assert await points.change("delete", filter=wanted) == 0
    with points.engine.copied() as again:
        assert await Selecting(again, points.collection).stored() == left


async def test_delete_by_ids_and_of_everything(points):
    some = [*list(points.points)[::3], "unknown"]
    assert await points.change("delete", ids=some, packed=True) == len(some) - 1
    assert await points.change("delete", ids=[]) == 0
    assert sorted(await points.stored()) == sorted(set(points.points) - set(some))
    assert await points.change("delete", all=True) == len(points.points) - len(some) + 1
    assert await points.stored() == {}


CHANGES = [
    ({"set": {"n": 1}}, lambda payload: {"n": 1}),
    ({"set": {}}, lambda payload: None),
    ({"merge": {"a": None, "new": [1]}}, lambda payload: (payload or {}) | {"a": None, "new": [1]}),
    ({"unset": ["year", "a.b"]}, lambda payload: without(payload, "year", "b") or None),
    (
        {"merge": {"c": {"d": 1}}, "unset": ["year"]},
        lambda payload: without(payload, "year") | {"c": {"d": 1}},
    ),
]


def without(payload, field, nested=None):
    found = {name: value for name, value in (payload or {}).items() if name != field}
    if nested and isinstance(found.get("a"), dict):
        found["a"] = {name: value for name, value in found["a"].items() if name != nested}
    return found


@pytest.mark.parametrize("wanted", [FILTERS[1], FILTERS[4], {}])
@pytest.mark.parametrize(
    ("change", "expected"), CHANGES, ids=lambda value: None if callable(value) else str(value)[:30]
)
async def test_payloads_change_by_filter(points, monkeypatch, change, expected, wanted):
    monkeypatch.setattr(selections, "CHANGED_POINTS", 11)
    vectors = {point["id"]: point["data"] for point in await points.pages(with_vectors=True)}
    chosen = matching(points.points, wanted)
    assert await points.change("payload", filter=wanted, **change, packed=True) == len(chosen)
    after = {i: expected(payload) if i in chosen else payload for i, payload in points.points.items()}
    assert await points.stored() == after
    assert {point["id"]: point["data"] for point in await points.pages(with_vectors=True)} == vectors
    with points.engine.copied() as again:
        assert await Selecting(again, points.collection).stored() == after


async def test_payloads_change_by_ids(points):
    some = [*list(points.points)[::5], "unknown"]
    assert await points.change("payload", ids=some, merge={"k": 1}) == len(some) - 1
    after = {i: (payload or {}) | {"k": 1} if i in some else payload for i, payload in points.points.items()}
    assert await points.stored() == after
    sequence = points.engine.collection(points.collection).store.last_sequence
    assert await points.change("payload", ids=some, merge={"k": 1}) == len(some) - 1, (
        "they are as they should be"
    )
    assert points.engine.collection(points.collection).store.last_sequence == sequence, (
        "nothing is written again"
    )
    assert await points.change("payload", ids=["unknown"], set={"k": 1}) == 0


@pytest.mark.parametrize("kind", ["Float16", "Int8"])
async def test_a_changed_payload_leaves_the_row_as_it_is(engine, kind):
    engine.declare("small", vector_type=VectorType(kind))
    asking = Selecting(engine, "small")
    await asking.put({f"p{number}": {"n": number} for number in range(20)})
    store = engine.collection("small").store
    before = {
        i: store.view.as_upsert(store.view.labels_of([i])).rows.tobytes() for i in await asking.stored()
    }
    assert await asking.change("payload", filter={"n": {"$gte": 0}}, merge={"m": 1}) == 20
    assert {i: store.view.as_upsert(store.view.labels_of([i])).rows.tobytes() for i in before} == before


async def test_a_payload_that_would_be_too_large_names_its_point(points):
    await points.put({"big": {"x": "y" * 60_000}})
    reply = await points.ask("payload", {"ids": ["big"], "merge": {"z": "y" * 6_000}})
    assert (reply.status, reply.json["details"]["id"]) == (413, "big")
    assert "metadata of point 'big' has 66015 bytes" in reply.json["error"]


async def test_reads_see_what_was_answered_before(points):
    await points.put({"new": {"year": 2050}})
    assert (await points.read("count", filter={"year": 2050}))["count"] == 1
    newest = await points.read("scroll", order_by={"field": "year", "direction": "desc"}, limit=1)
    assert [point["id"] for point in newest["points"]] == ["new"]
    assert await points.change("payload", filter={"year": 2050}, merge={"year": 2051}) == 1
    assert (await points.read("facet", field="year", filter={"$id": "new"}))["values"] == [
        {"value": 2051, "count": 1}
    ]
    assert await points.change("delete", filter={"year": 2051}) == 1
    assert "new" not in [point["id"] for point in await points.pages()]


async def test_a_collection_without_data_answers_nothing(engine):
    engine.declare("empty")
    asking = Selecting(engine, "empty")
    assert await asking.read("scroll") == {"points": [], "next_cursor": None}
    assert await asking.read("scroll", order_by="a", filter={"a": 1}) == {"points": [], "next_cursor": None}
    assert await asking.read("count", filter={"a": 1}) == {"count": 0}
    assert await asking.read("facet", field="a") == {"values": []}
    assert await asking.change("delete", all=True) == 0
    assert await asking.change("delete", ids=["a"]) == 0
    assert await asking.change("payload", filter={"a": 1}, set={"b": 1}) == 0


async def test_a_cursor_survives_a_restart_and_writes(points):
    """Between two pages the points before and behind the cursor change."""
    for order in ({}, {"order_by": "year"}, {"order_by": {"field": "year", "direction": "desc"}}):
        body = order | {"limit": 40, "filter": {"year": {"$gte": 2000}}}
        whole = [point["id"] for point in await points.pages(**body)]
        first = await points.read("scroll", **body)
        with points.engine.copied() as again:
            asking = Selecting(again, points.collection)
            before, behind = whole[3], whole[90]
            await asking.change("delete", ids=[before, behind])
            updated = whole[20], whole[100]
            await asking.change("payload", ids=list(updated), merge={"k": 1})
            again.checkpoint(points.collection)
            rest = await asking.pages(**body, cursor=first["next_cursor"])
        assert [point["id"] for point in rest] == [i for i in whole[40:] if i != behind]
        assert {point["id"]: point["metadata"].get("k") for point in rest}[updated[1]] == 1


@pytest.mark.parametrize(
    "order", [{}, {"order_by": "year"}, {"order_by": {"field": "year", "direction": "desc"}}]
)
@pytest.mark.parametrize("seed", range(3))
async def test_a_scroll_under_writes_shows_each_point_that_stays_once(points, order, seed, monkeypatch):
    """Writers change other fields and insert, delete and move other points; checkpoints come between."""
    choose = random.Random(seed)
    monkeypatch.setattr(selection_routes, "READ_POINTS", 3)
    having = [i for i, payload in points.points.items() if payload]
    stay, others = having[::2], having[1::2]
    done = asyncio.Event()

    async def write():
        for number in itertools.count():
            one = choose.choice(stay)
            await points.change("payload", ids=[one], merge={"n": number})
            other = choose.choice(others)
            if choose.random() < 0.5:
                await points.change("delete", ids=[other])
            else:
                await points.put(
                    {other: {"year": choose.randrange(2000, 2010)}, f"new{number % 9}": {"year": 2004}}
                )
            if number % 10 == 0:
                await asyncio.to_thread(points.engine.checkpoint, points.collection)
            if done.is_set():
                return

    writer = asyncio.create_task(write())
    for _ in range(4):
        found, cursor = [], {}
        while True:
            reply = await points.ask(
                "scroll", order | cursor | {"limit": 11, "with_vectors": True, "filter": {"year": {"$gt": 0}}}
            )
            page = reply.data
            found += [point["id"] for point in page["points"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        counts = Counter(found)
        assert {i: counts[i] for i in stay} == dict.fromkeys(stay, 1)
    done.set()
    await writer


def before_commit(monkeypatch, call, times=1):
    """Call `call` before the next commit with guards, which has read its points already."""
    commit = Store.commit
    left = iter(range(times))

    def raced(store, effects, announce=None):
        if any(effect.guards is not None for effect in effects) and next(left, None) is not None:
            call(store, functools.partial(commit, store, announce=announce))
        return commit(store, effects, announce)

    monkeypatch.setattr(Store, "commit", raced)


def set_payload(payload, *ids):
    """A write of another client that comes first."""

    def write(store, commit):
        found = store.view.as_upsert(store.view.labels_of(list(ids)))
        commit([type(found)(found.ids, found.rows, [payload] * len(found.ids))])

    return write


async def test_a_delete_keeps_a_point_that_an_update_took_out_of_the_filter(points, monkeypatch):
    """Planted race: the point is read as matching, updated, and then the delete is committed."""
    doomed = list(matching(points.points, {"year": {"$gte": 2005}}))
    before_commit(monkeypatch, set_payload(b'{"year":1999}', doomed[0]))
    assert await points.change("delete", filter={"year": {"$gte": 2005}}) == len(doomed) - 1
    assert (await points.stored())[doomed[0]] == {"year": 1999}


async def test_a_delete_looks_again_at_a_point_that_still_matches(points, monkeypatch):
    doomed = list(matching(points.points, {"year": {"$gte": 2005}}))
    before_commit(monkeypatch, set_payload(b'{"year":2050}', doomed[0], doomed[1]))
    assert await points.change("delete", filter={"year": {"$gte": 2005}}) == len(doomed)
    assert not set(doomed) & set(await points.stored())


@pytest.mark.parametrize("by", ["ids", "filter"])
async def test_a_merge_is_made_on_what_an_update_left(points, monkeypatch, by):
    chosen = list(matching(points.points, {"year": {"$gte": 2005}}))
    before_commit(monkeypatch, set_payload(b'{"year":2050,"theirs":1}', chosen[0]))
    selection = {"ids": chosen} if by == "ids" else {"filter": {"year": {"$gte": 2005}}}
    assert await points.change("payload", **selection, merge={"mine": 2}) == len(chosen)
    stored = await points.stored()
    assert stored[chosen[0]] == {"year": 2050, "theirs": 1, "mine": 2}
    assert all(stored[i]["mine"] == 2 for i in chosen)


async def test_a_change_gives_up_on_points_that_are_always_written(points, monkeypatch):
    """The batches that were made stay, and the error says how many points they changed."""
    doomed = list(matching(points.points, {"year": {"$gte": 2005}}))
    before_commit(monkeypatch, set_payload(b'{"year":2050}', doomed[0]), times=selections.ROUNDS_MAX)
    reply = await points.ask("delete", {"filter": {"year": {"$gte": 2005}}})
    assert (reply.status, reply.json["details"]["kind"]) == (409, "Conflict")
    assert f"{len(doomed) - 1} points were changed" in reply.json["error"]
    assert "retry-after" in reply.headers
    assert await points.change("delete", filter={"year": {"$gte": 2005}}) == 1


async def test_an_update_of_the_same_request_is_not_made_twice(points, monkeypatch):
    """A second round, which a race makes necessary, leaves out what the first one did."""
    chosen = list(matching(points.points, {"year": {"$gte": 2005}}))
    before_commit(monkeypatch, set_payload(b'{"year":2050}', chosen[0]))
    sequences = points.engine.collection(points.collection).store.last_sequence
    assert await points.change("payload", filter={"year": {"$gte": 2005}}, merge={"k": 1}) == len(chosen)
    assert points.engine.collection(points.collection).store.last_sequence == sequences + 3


async def test_a_failed_batch_leaves_the_batches_before_it(points, monkeypatch):
    monkeypatch.setattr(selections, "CHANGED_POINTS", 10)
    await points.put({"zzz": {"year": 2050, "x": "y" * 60_000}})
    reply = await points.ask("payload", {"filter": {"year": {"$gte": 2000}}, "merge": {"z": "y" * 10_000}})
    assert (reply.status, reply.json["details"]["id"]) == (413, "zzz")
    changed = sum("z" in (payload or {}) for payload in (await points.stored()).values())
    assert changed % 10 == 0
    await points.change("delete", ids=["zzz"])
    assert (
        await points.change("payload", filter={"year": {"$gte": 2000}}, merge={"z": "y" * 10_000}) > changed
    )


async def test_progress_is_shown_while_a_large_change_goes_on(points, monkeypatch):
    monkeypatch.setattr(selections, "DELETED_POINTS", 20)
    seen = []
    commit = Store.commit

    def watched(store, *values):
        seen.append(points.engine.describe(points.collection)["progress"])
        return commit(store, *values)

    monkeypatch.setattr(Store, "commit", watched)
    await points.change("delete", all=True)
    assert seen == [{"task": "delete", "done": done, "total": 150} for done in range(0, 150, 20)]
    wait_until(lambda: points.engine.describe(points.collection)["progress"] is None)


async def test_other_writers_get_their_turn_between_batches(points, monkeypatch):
    monkeypatch.setattr(selections, "DELETED_POINTS", 5)
    order = []
    commit = Store.commit

    def watched(store, effects, announce=None):
        order.extend(type(effect).__name__ for effect in effects)
        return commit(store, effects, announce)

    monkeypatch.setattr(Store, "commit", watched)
    deleting = asyncio.create_task(points.change("delete", all=True))
    for number in range(5):
        await points.put({f"other{number}": None})
    await deleting
    last_delete = len(order) - 1 - order[::-1].index("Delete")
    assert order.index("Upsert") < last_delete


async def test_withheld_points_are_left_out(points):
    """A row that fails its checksum is no point for any of the routes, and stays for a repair."""
    engine = points.engine
    engine.checkpoint(points.collection)
    collection = engine.collection(points.collection)
    bad = sorted(points.points)[5]
    [slot] = [label & 0xFFFFFFFF for label in points.view.labels_of([bad]).tolist()]
    with collection.store.layers.rows() as rows:
        offset = rows.offset(slot)
    path = collection.store.layers.folder / "vectors.bin"
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)
    found = await points.pages(with_vectors=True)
    assert [point["id"] for point in found] == [i for i in sorted(points.points) if i != bad]
    assert (await points.read("count"))["count"] == 149
    assert (await points.read("count", filter={"$id": bad}))["count"] == 0
    assert await points.change("payload", filter={}, merge={"k": 1}) == 149
    reply = await points.ask("payload", {"ids": [bad], "merge": {"k": 1}})
    assert (reply.status, reply.json["details"]["kind"]) == (503, "Unavailable")
    assert await points.change("delete", all=True) == 149
    assert engine.describe(points.collection)["vector_count"] == 1


async def test_a_page_ends_early_when_it_is_large(points, monkeypatch):
    monkeypatch.setattr(selection_routes, "PAGE_BYTES_MAX", 1000)
    monkeypatch.setattr(selection_routes, "READ_POINTS", 4)
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        page = (await points.ask("scroll", {"limit": 10_000, "cursor": cursor})).data
        assert page["points"]
        found += [point["id"] for point in page["points"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert found == sorted(points.points)
    assert pages > 3


async def test_vectors_of_a_page_are_limited(engine):
    engine.declare("wide", dimension=5000)
    asking = Selecting(engine, "wide")
    reply = await asking.ask("scroll", {"limit": 801, "with_vectors": True})
    assert (reply.status, reply.json["details"]["limit"]) == (413, 4_000_000)
    assert (await asking.ask("scroll", {"limit": 800, "with_vectors": True})).status == 200
    assert (await asking.ask("scroll", {"limit": 10_000})).status == 200


INVALID = [
    ("scroll", {"limit": 0}, 400, "limit"),
    ("scroll", {"limit": 10_001}, 400, "limit"),
    ("scroll", {"limit": "1"}, 422, "limit"),
    ("scroll", {"cursor": "x"}, 400, "cursor"),
    ("scroll", {"cursor": 1}, 422, "cursor"),
    ("scroll", {"order_by": ["a"]}, 422, "order_by"),
    ("scroll", {"order_by": {"field": "a", "direction": "up"}}, 400, "order_by.direction"),
    ("scroll", {"with_vectors": 1}, 422, "with_vectors"),
    ("scroll", {"with_metadata": []}, 400, "with_metadata"),
    ("scroll", {"with_metadata": "a"}, 422, "with_metadata"),
    ("scroll", {"with_payload": True}, 422, "with_payload"),
    ("scroll", {"filter": {"a": {"$gt": None}}}, 400, "filter.a.$gt"),
    ("count", {"filter": []}, 422, "filter"),
    ("count", {"limit": 1}, 422, "limit"),
    ("facet", {}, 422, "field"),
    ("facet", {"field": None}, 422, "field"),
    ("facet", {"field": 1}, 422, "field"),
    ("facet", {"field": "$id"}, 400, "field"),
    ("facet", {"field": "a", "limit": 1001}, 400, "limit"),
    ("delete", {}, 422, "body"),
    ("delete", {"filter": None}, 422, "body"),
    ("delete", {"filter": {}}, 400, "filter"),
    ("delete", {"all": False}, 400, "all"),
    ("delete", {"all": 1}, 422, "all"),
    ("delete", {"all": True, "filter": {"a": 1}}, 400, "all"),
    ("delete", {"ids": ["a"], "filter": {"a": 1}}, 400, "filter"),
    ("delete", {"ids": ["a", "a"]}, 400, "ids[1]"),
    ("delete", {"ids": [1]}, 422, "ids[0]"),
    ("delete", {"ids": "a"}, 422, "ids"),
    ("payload", {"ids": ["a"]}, 422, "body"),
    ("payload", {"set": {"a": 1}}, 422, "body"),
    ("payload", {"ids": ["a"], "set": {"a": 1}, "merge": {"b": 1}}, 400, "merge"),
    ("payload", {"ids": ["a"], "set": {"a": 1}, "unset": ["b"]}, 400, "unset"),
    ("payload", {"ids": ["a"], "filter": {"b": 1}, "set": {"a": 1}}, 400, "filter"),
    ("payload", {"ids": ["a"], "set": [1]}, 422, "set"),
    ("payload", {"ids": ["a"], "unset": []}, 400, "unset"),
    ("payload", {"ids": ["a"], "merge": {"a": "x" * 70_000}}, 413, "merge"),
    ("payload", {"ids": [f"i{n}" for n in range(10_001)], "set": {"a": 1}}, 413, "ids"),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("what", "body", "status", "field"), INVALID, ids=lambda value: str(value)[:30])
async def test_what_is_wrong_is_refused_by_its_name(engine, what, body, status, field, packed):
    await engine.put(a=1)
    reply = await Selecting(engine).ask(what, body, packed=packed)
    document = reply.packed if packed else reply.json
    assert (reply.status, document["details"]["field"]) == (status, field), document
    assert await Selecting(engine).stored() == {"a": {"v": 1}}


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("count", b'{"filter": {"a": 1, "a": 2}}'),
        ("count", b'{"filter": null, "filter": {}}'),
        ("scroll", b'{"limit": 1, "order_by": {"field": "a", "field": "b"}}'),
        ("payload", b'{"ids": ["a"], "merge": {"a": 1, "a": 2}}'),
        ("delete", b'{"ids": ["a"], "ids": ["b"]}'),
    ],
)
async def test_repeated_keys_are_refused(engine, what, body):
    reply = await Selecting(engine).client.call("POST", f"/collections/notes/points/{what}", body=body)
    assert (reply.status, reply.json["details"]["kind"]) == (400, "InvalidInput")
    assert "more than once" in reply.json["error"]


async def test_a_payload_of_messagepack_that_json_lacks_is_refused(engine):
    reply = await Selecting(engine).ask("payload", {"ids": ["a"], "set": {"a": b"x"}}, packed=True)
    assert (reply.status, reply.packed["details"]["field"]) == (400, "set.a")
    assert PACKED["accept"] in reply.headers["content-type"]


async def test_a_cursor_of_another_query_says_so(points):
    page = await points.read("scroll", limit=1, filter={"year": {"$gt": 2001}})
    for other in (
        {},
        {"filter": {"year": {"$gt": 2002}}},
        {"order_by": "year", "filter": {"year": {"$gt": 2001}}},
    ):
        reply = await points.ask("scroll", {"cursor": page["next_cursor"]} | other)
        assert reply.status == 400
        assert "another filter or another order_by" in reply.json["error"]
    again = await points.read("scroll", cursor=page["next_cursor"], filter={"year": {"$gt": 2001}}, limit=5)
    assert len(again["points"]) == 5
