"""The columns of payload indexes against the oracle of filters, at the limits of their types, and while they
are written.
"""

import threading
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.filter_cases import FILTERS, PAYLOADS
from tests.filter_oracle import oracle
from tests.unit.index.columned import Columned, declared, matching
from vecstow_engine.index.payload import arrays, coders
from vecstow_engine.index.payload.columns_file import file_parts, load_columns
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.model.errors import OutOfMemory
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.model.points import make_labels, slots_of

IDS = ["a", "b", "ab", "aB", "A", "1", "true", "é", "\uffff", "\U0001f600", "2024-05-01T10:00:00Z"]
"""The id of the point in each slot."""
FIELDS = ("a", "b", "c", "a.b", "a.a", "b.a", "a.lat", "a.lon", "b.lat", "b.lon", "a.b.lat", "a.b.lon")
TYPES = ("keyword", "integer", "float", "boolean", "datetime")
DECLARATIONS = st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(TYPES), max_size=len(FIELDS)).map(
    lambda fields: tuple(PayloadIndex(field, kind) for field, kind in fields.items())
)
PLACES = tuple(PayloadIndex(f"{field}.{axis}", "float") for field in "ab" for axis in ("lat", "lon"))
NOON = "2024-05-01T12:00:00Z"
SLOTS = st.integers(0, len(IDS) - 1)
STEPS = st.lists(
    st.one_of(
        st.dictionaries(SLOTS, PAYLOADS, min_size=1, max_size=6),
        st.dictionaries(SLOTS, PAYLOADS, min_size=1, max_size=6),
        st.lists(SLOTS, min_size=1, max_size=4),
        st.sampled_from(["save and load", "declare less"]),
    ),
    min_size=1,
    max_size=8,
)
"""Writes of points by slot, deletes of slots, and other steps."""


@settings(max_examples=400, deadline=None)
@given(st.one_of(DECLARATIONS, st.just(PLACES)), STEPS, st.lists(FILTERS, min_size=1, max_size=8))
def test_columns_are_exact_or_say_that_they_do_not_know(tmp_path_factory, indexes, steps, documents):
    points = Columned(indexes)
    for step in steps:
        if isinstance(step, dict):
            points.put(step)
        elif isinstance(step, list):
            points.delete(step)
        elif step == "save and load":
            points.save_and_load(tmp_path_factory.getbasetemp() / "payload.bin")
        else:
            points.columns = points.columns.narrowed(points.columns.declared[::2])
    ids = {slot: IDS[slot] for slot in points.points}
    for document in documents:
        sure, possible = points.bounds(document, ids)
        matching = {slot for slot, payload in points.points.items() if oracle(document, payload, ids[slot])}
        assert sure <= matching <= possible, document


def test_columns_know_the_answers_of_values_of_their_type():
    """The test above holds for columns that know nothing, too."""
    indexes = declared(
        i="integer", f="float", b="boolean", k="keyword", d="datetime", p_lat="float", p_lon="float"
    )
    points = Columned(indexes)
    points.put(
        {
            slot: {
                "i": slot - 5, "f": slot / 2, "b": slot % 2 == 0, "k": chr(97 + slot),
                "d": f"2024-05-{slot + 1:02}T10:00:00Z", "p": {"lat": slot, "lon": -slot},
                "tags": [slot],
            }
            for slot in range(10)
        }
    )  # fmt: skip
    points.put({10: None, 11: {"i": [1, 2], "k": ["x", "y"], "d": [], "f": None}})
    known: list[tuple[dict[str, Any], set[int]]] = [
        ({"i": {"$gte": 2}}, {7, 8, 9}),
        ({"f": {"$lt": 1}}, {0, 1}),
        ({"b": True}, {0, 2, 4, 6, 8}),
        ({"k": {"$in": ["a", "j", "zz"]}}, {0, 9}),
        ({"k": {"$gt": "h"}}, {8, 9}),
        ({"k": {"$startsWith": "c"}}, {2}),
        ({"d": {"$gt": {"datetime": "2024-05-09T10:00:00Z"}}}, {9}),
        ({"d": {"$eq": {"datetime": "2024-05-01T12:00:00+02:00"}}}, {0}),
        ({"p": {"$within": {"box": {"south": 1, "north": 3, "west": -2, "east": 0}}}}, {1, 2}),
        ({"i": {"$contains": 2}}, {11}),
        ({"k": {"$contains": "y"}}, {11}),
        ({"i": {"$size": 2}}, {11}),
        ({"d": {"$empty": True}}, {10, 11}),
        ({"f": {"$exists": False}}, {10}),
        ({"f": None}, {11}),
        ({"$not": {"i": {"$ne": 4}}}, {9}),
        ({"$or": [{"i": -5}, {"$and": [{"b": False}, {"i": {"$gt": 3}}]}]}, {0, 9}),
    ]
    for document, slots in known:
        assert points.bounds(document) == (slots, slots), document


@pytest.mark.parametrize(
    ("kind", "value", "document", "found"),
    [
        pytest.param("integer", 2**53 + 1, {"$gt": 2.0**53}, True, id="integer beyond those of floats"),
        pytest.param("float", 2**53 + 1, {"$eq": 2**53}, None, id="integer that a float rounds"),
        pytest.param("float", 2**53, {"$eq": 2**53}, True, id="integer that a float holds"),
        pytest.param("float", 2.0**53, {"$lt": 2**53 + 1}, True, id="operand that a float rounds down"),
        pytest.param("float", 2.0**53 + 2, {"$lt": 2**53 + 3}, True, id="operand that a float rounds up"),
        pytest.param("float", 2.0**53 + 4, {"$lte": 2**53 + 3}, False, id="number above a rounded operand"),
        pytest.param("integer", 2**63 - 1, {"$eq": 2**63 - 1}, True, id="largest code of an integer"),
        pytest.param("integer", 2**63, {"$eq": 2**63}, None, id="integer beyond the codes"),
        pytest.param("integer", 2**63 - 1, {"$lt": 2**63}, True, id="operand beyond the codes"),
        pytest.param("integer", 2**63 - 1, {"$gt": -(2.0**64)}, True, id="operand below the codes"),
        pytest.param("integer", -(2**63), {"$gte": -(2**63)}, True, id="smallest code of an integer"),
        pytest.param("integer", 2**64 - 1, {"$gt": 1}, None, id="largest integer"),
        pytest.param("float", 2**64 - 1, {"$gt": 1}, None, id="largest integer among floats"),
        pytest.param("float", 2**63, {"$eq": 2**63}, True, id="power of two among floats"),
        pytest.param("integer", 2.0, {"$eq": 2}, True, id="whole float among integers"),
        pytest.param("integer", 2.5, {"$gt": 2}, None, id="fraction among integers"),
        pytest.param("integer", 2, {"$gt": 1.5}, True, id="fraction as the operand"),
        pytest.param("integer", -2, {"$lt": -1.5}, True, id="negative fraction as the operand"),
        pytest.param("float", -0.0, {"$eq": 0}, True, id="negative zero is zero"),
        pytest.param("float", -0.0, {"$lt": 0}, False, id="negative zero is not below zero"),
        pytest.param("integer", -0.0, {"$in": [0.0]}, True, id="negative zero among integers"),
        pytest.param("float", 1e308, {"$gt": 2**64 - 1}, True, id="largest numbers"),
        pytest.param("integer", True, {"$eq": 1}, None, id="truth value is no number"),
        pytest.param("boolean", 1, {"$eq": True}, None, id="number is no truth value"),
        pytest.param("boolean", True, {"$gt": 0}, False, id="truth values have no order"),
        pytest.param("datetime", NOON, {"$eq": NOON}, None, id="spelling of a datetime"),
        pytest.param("datetime", "2024-05-01", {"$gt": {"datetime": NOON}}, None, id="date without a time"),
        pytest.param("keyword", NOON, {"$eq": {"datetime": NOON}}, None, id="keyword as a datetime"),
        pytest.param("keyword", "\U0001f600", {"$gt": "\uffff"}, True, id="order of code points"),
        pytest.param("keyword", "", {"$empty": True}, True, id="empty string"),
        pytest.param("keyword", {}, {"$empty": True}, None, id="empty object"),
        pytest.param("keyword", ["a", 1], {"$contains": "a"}, None, id="array of two types"),
        pytest.param("keyword", ["a", 1], {"$size": 2}, True, id="size of an array of two types"),
    ],
)  # fmt: skip
def test_value_at_the_edge_of_a_type(kind, value, document, found):
    assert matching(declared(v=kind), {"v": document}, {"v": value}) == [found]


def test_keyword_longer_than_256_bytes_is_in_doubt():
    longest, longer = "ä" * 128, "ä" * 128 + "a"
    found = matching(
        declared(k="keyword"), {"k": longest}, {"k": longest}, {"k": longer}, {"k": ["a", longer]}
    )
    assert found == [True, None, False]
    assert matching(declared(k="keyword"), {"k": longer}, {"k": longest}, {"k": longer}) == [False, None]
    assert matching(declared(k="keyword"), {"k": {"$contains": longer}}, {"k": ["a", longer]}) == [None]


def test_keywords_beyond_the_most_are_in_doubt(monkeypatch):
    monkeypatch.setattr(coders, "KEYWORDS_MAX", 2)
    points = Columned(declared(k="keyword"))
    points.put({0: {"k": "a"}, 1: {"k": "b"}})
    points.put({2: {"k": "c"}, 3: {"k": ["b", "c"]}, 4: {"k": ["a", "b"]}})
    assert points.bounds({"k": "a"}) == ({0}, {0, 2})
    assert points.bounds({"k": "c"}) == (set(), {2})
    assert points.bounds({"k": {"$contains": "b"}}) == ({4}, {3, 4})


def test_key_with_dots_hides_a_place():
    indexes = declared(p_lat="float", p_lon="float")
    within = {"p": {"$within": {"box": {"south": 0, "north": 9, "west": 0, "east": 9}}}}
    inside, outside = {"p": {"lat": 1, "lon": 1}}, {"p": {"lat": 80, "lon": 1}}
    assert matching(indexes, within, inside, outside) == [True, False]
    assert matching(indexes, within, inside, outside, {"p.lat": 80, **inside}) == [None] * 3
    assert matching(indexes, {"p.lat": 80}, {"p.lat": 80, **inside}) == [True]


@pytest.mark.parametrize("at_once", [True, False])
def test_slots_have_room_however_they_come(at_once):
    points = Columned(declared(i="integer", t="keyword"))
    for begin, end in ((0, 1000), (1000, 1001), (1001, 1100), (1100, 1600), (5000, 5001)):
        new = {slot: {"i": slot, "t": ["x"]} for slot in range(begin, end)}
        for batch in [new] if at_once else [{slot: payload} for slot, payload in new.items()]:
            points.put(batch)
    assert points.bounds({"i": {"$in": [1000, 1050, 5000]}}) == ({1000, 1050, 5000},) * 2
    assert points.bounds({"t": {"$contains": "x"}}) == (set(points.points),) * 2


def test_elements_of_slots_that_are_used_again_are_given_up(tmp_path):
    points = Columned(declared(t="keyword"))
    for turn in range(40):
        points.put({slot: {"t": ["all", f"turn {turn}", f"slot {slot}"]} for slot in range(100)})
        points.put({slot: {"t": None} for slot in range(50, 100)})
    elements = points.columns.columns["t"].arrays.elements
    assert elements.used < 3 * arrays.ELEMENTS_MIN
    for _ in range(2):
        assert points.bounds({"t": {"$contains": "slot 7"}}) == ({7}, {7})
        assert points.bounds({"t": {"$contains": "turn 39"}}) == (set(range(50)),) * 2
        assert points.bounds({"t": {"$contains": "turn 38"}}) == (set(), set())
        points.save_and_load(tmp_path / "payload.bin")


def test_file_has_only_the_keywords_that_are_in_use(tmp_path):
    points = Columned(declared(k="keyword"))
    points.put({slot: {"k": f"old {slot}"} for slot in range(1000)})
    before = points.columns.memory_bytes
    points.put({slot: {"k": "new" if slot else ["new", "other"]} for slot in range(1000)})
    points.save_and_load(tmp_path / "payload.bin")
    words = points.columns.columns["k"].coder.words
    assert set(words) <= {"new", "other"} | {f"old {slot}" for slot in (0,)}
    assert points.columns.memory_bytes < before - 100_000
    assert points.bounds({"k": "new"}) == (set(range(1, 1000)),) * 2
    assert points.bounds({"k": {"$contains": "other"}}) == ({0}, {0})


def test_file_leaves_out_what_is_written_while_it_is_made(tmp_path):
    points = Columned(declared(i="integer", t="keyword"))
    points.put({slot: {"i": slot, "t": ["x"]} for slot in range(10)})
    path = tmp_path / "payload.bin"
    written = b""
    for number, part in enumerate(file_parts(points.columns)):
        written += bytes(part)
        points.put({number % 3: {"i": 0, "t": [number]}, 20 + number: {"i": 0, "t": ["y"]}})
    path.write_bytes(written)
    points.columns = load_columns(path, points.columns.declared, points.columns.may_take)
    labels = make_labels(list(points.epochs), list(points.epochs.values()))
    begun = 21  # The first part comes before the first copy.
    lacking = [*range(3), *range(begun, 20 + number + 1)]
    assert slots_of(points.columns.missing(labels)).tolist() == lacking
    sure, possible = points.bounds({"t": {"$contains": "x"}})
    assert sure == set(range(3, 10))
    assert possible == sure | set(lacking)


def test_point_that_the_columns_lack_or_have_in_another_version_may_match():
    points = Columned(declared(i="integer"))
    points.put({0: {"i": 1}, 1: {"i": 2}, 2: {"i": 1}})
    points.epochs[1] = 9
    points.epochs[5000] = 9
    assert points.bounds({"i": 1}) == ({0, 2}, {0, 1, 2, 5000})
    assert points.bounds({"$not": {"i": 1}}) == (set(), {1, 5000})


def test_point_whose_slot_is_used_again_during_an_evaluation_may_match():
    """Two conditions can see two points."""
    points = Columned(declared(i="integer", j="integer"))
    points.put({0: {"i": 1, "j": 0}, 1: {"i": 1, "j": 1}})
    before = points.live_epochs()

    def overtaken(_ids):
        points.put({0: {"i": 0, "j": 1}})
        return np.ones(2, np.bool_)

    both = parse_filter({"$and": [{"i": 1}, {"$id": "x"}, {"j": 1}]})
    found = points.columns.match(both, before, overtaken)
    assert (found.sure.tolist(), found.possible.tolist()) == ([False, True], [True, True])


def test_columns_of_fewer_fields_take_the_place_of_the_others():
    points = Columned(declared(i="integer", k="keyword"))
    points.put({0: {"i": 1, "k": "a"}, 1: {"i": 2, "k": "a"}})
    points.columns.is_complete = True
    old = points.columns
    assert old.narrowed(declared(i="integer", j="integer")) is None
    assert old.narrowed(declared(i="float")) is None
    points.columns = old.narrowed(declared(i="integer"))
    assert points.columns.is_complete
    points.put({1: {"i": 1, "k": "b"}})
    assert points.bounds({"i": 1}) == ({0, 1}, {0, 1})
    old.put(make_labels([0], 3), [b'{"i": 7}'])  # a writer that still has them
    assert points.bounds({"i": 1}) == ({0, 1}, {0, 1})
    points.columns = old
    assert points.bounds({"k": "b"}) == (set(), {0, 1})  # a reader that still has them


def test_nothing_is_written_without_memory_for_it():
    allowed = 0
    columns = PayloadColumns(declared(i="integer", k="keyword", t="integer"), lambda size: size <= allowed)
    payloads = [msgspec.json.encode({"i": n, "k": f"word {n}", "t": list(range(50))}) for n in range(1000)]
    labels = make_labels(np.arange(1000), 1)
    for allowed in (0, 30_000, 250_000, 800_000):  # noqa: B007  # The columns ask for it.
        with pytest.raises(OutOfMemory, match=r"take \d+ bytes more with 1000 more points"):
            columns.put(labels, payloads)
        assert columns.filled == 0
        assert not columns.is_torn
    allowed = 10**6
    columns.put(labels, payloads)
    assert 800_000 < columns.memory_bytes <= allowed
    allowed = 1000
    columns.put(make_labels(np.arange(10), 2), [b'{"k": "word 1"}'] * 10)
    with pytest.raises(OutOfMemory):
        columns.put(make_labels(np.arange(10), 3), [b'{"k": "word %d"}' % n for n in range(2000, 2010)])


def test_columns_are_torn_by_an_error_in_the_midst_of_a_write(monkeypatch):
    points = Columned(declared(i="integer", k="keyword"))
    points.put({0: {"i": 1, "k": "a"}})

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(points.columns.columns["k"], "put", fail)
    with pytest.raises(MemoryError):
        points.columns.put(make_labels([0], 2), [b'{"i": 2, "k": "b"}'])
    assert points.columns.is_torn
    assert points.columns.narrowed(declared(i="integer")) is None
    assert points.bounds({"i": 2}) == (set(), {0})


def test_counts_of_untouched_points_stay_constant_while_slots_are_used_again():
    points = Columned(declared(i="integer", k="keyword", t="keyword", f="float"))
    points.put({slot: {"i": 1, "k": "kept", "t": ["kept", "x"], "f": 0.5} for slot in range(0, 3000, 3)})
    others = [slot for slot in range(3000) if slot % 3]
    documents = [
        {"i": 1}, {"k": "kept"}, {"t": {"$contains": "kept"}}, {"f": {"$lt": 1}}, {"t": {"$size": 2}},
        {"$and": [{"i": {"$gte": 1}}, {"k": {"$in": ["kept", "gone"]}}, {"$not": {"f": {"$gt": 1}}}]},
    ]  # fmt: skip
    filters = [parse_filter(document) for document in documents]
    kept = np.zeros(10_000, np.bool_)
    kept[list(points.points)] = True
    live = points.live_epochs()
    ended = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        while not ended.is_set():
            for document, parsed in zip(documents, filters, strict=True):
                found = points.columns.match(parsed, live, lambda ids: np.zeros(0, np.bool_))
                sure = np.flatnonzero(found.sure)
                if not np.array_equal(sure, np.flatnonzero(kept)) or not found.possible[sure].all():
                    wrong.append((document, len(sure)))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(150):
            value = turn % 2 + 2
            some = others[turn % 7 :: 7] + [3000 + turn * 20 + n for n in range(20)]
            points.put(
                {slot: {"i": value, "k": f"k{turn}", "t": ["x"] * value * 2, "f": 2.0} for slot in some}
            )
            live = points.live_epochs()
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert wrong == []
