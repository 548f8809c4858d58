"""Metadata that d-vecDB 0.2.1 stored without types: found again, or said to be in doubt."""

from __future__ import annotations

import errno
import json
import os
import random
import struct
from typing import Any

import pytest

from tests.unit.dvecdb_records import FILLING, counted, encode, make, untagged, write
from vecstow_engine.importers.dvecdb.field_statistics import FieldStatistics
from vecstow_engine.importers.dvecdb.importer import read_vectors
from vecstow_engine.importers.dvecdb.metadata import KNOWN_COST_MAX
from vecstow_engine.importers.dvecdb.record_file import RecordFile
from vecstow_engine.importers.dvecdb.untyped_metadata import Search, look_of
from vecstow_engine.importers.report import ImportReport
from vecstow_engine.model.errors import StorageError

WORDS = ["a", "vector", "store", "keeps", "collections", "safe", "and", "searchable", "red", "green", "blue"]


def read(path, dimension: int = 4) -> tuple[list[Any], ImportReport]:
    report = ImportReport()
    return [point.metadata for point in read_vectors(path, dimension, report)], report


def texts(metadata: list[Any]) -> list[str]:
    """As text, in which 1, 1.0 and true differ."""
    return [json.dumps(one, sort_keys=True) for one in metadata]


def round_trip(
    tmp_path, count: int, metadata: Any, dimension: int = 4
) -> tuple[list[Any], list[Any], ImportReport]:
    """Return the metadata written, the metadata read, and the report."""
    records = make(count, dimension, metadata)
    write(tmp_path / "f", records, "0.2.1")
    found, report = read(tmp_path / "f", dimension)
    assert report.skipped == []
    return [record.metadata for record in records], found, report


def rich(rng: random.Random) -> dict[str, Any]:
    """A document with every kind of value; fields may be absent, in any order."""
    number = rng.randrange(1_000_000)
    document = {
        "title": " ".join(rng.choices(WORDS, k=rng.randint(1, 9))),
        "url": f"https://x.y/{number}",
        "n": rng.randint(0, 10 ** rng.randint(1, 12)),
        "balance": rng.randint(-1000, 1000),
        "score": rng.random() * 10 ** rng.randint(-5, 5),
        "ratio": rng.choice([0.0, 0.5, 1.0]),
        "at_ns": 1_700_000_000_000_000_000 + number,
        "open": rng.random() < 0.5,
        "owner": rng.choice([None, "ann", "bob", ""]),
        "tags": rng.choices(WORDS, k=rng.randint(0, 4)),
        "weights": [rng.gauss(0, 1) for _ in range(rng.randint(0, 6))],
        "counts": [rng.randint(0, 3) for _ in range(rng.randint(0, 5))],
        "place": {"city": rng.choice(WORDS), "lat": rng.uniform(-90, 90), "zip": rng.choice([None, "0150"])},
        "items": [
            {"sku": rng.choice(WORDS), "quantity": rng.randint(0, 5), "ok": rng.random() < 0.5}
            for _ in range(rng.randint(0, 3))
        ],
        "note": "line\n\tnext \x1b[0m",
    }
    kept = [key for key in document if rng.random() > 0.1]
    rng.shuffle(kept)
    return {key: document[key] for key in kept}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_documents_of_every_kind_come_back_as_they_were(tmp_path, seed):
    rng = random.Random(seed)
    given, found, report = round_trip(tmp_path, 300, lambda at: rich(rng))
    assert texts(found) == texts(given)
    assert {doubt.field for doubt in report.doubts.values()} <= {"*"}
    assert sum(doubt.records for doubt in report.doubts.values()) <= 3


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param(lambda at: {"k": None, "abc": WORDS[at % 11]}, id="null before a text"),
        pytest.param(lambda at: {"abc": WORDS[at % 11], "k": None}, id="null behind a text"),
        pytest.param(lambda at: {"a": None, "b": None}, id="nothing but null"),
        pytest.param(lambda at: {"a": [WORDS[at % 11]] * (at % 4)}, id="arrays, some empty"),
        pytest.param(lambda at: {"a": [[1, 2], [3]], "b": at + 1}, id="arrays of arrays"),
        pytest.param(lambda at: {"a": [at % 2 == 0] * 5, "b": at % 3 == 0}, id="truth values"),
        pytest.param(lambda at: {"a": {str(at): {"b": at}}}, id="keys that are data"),
        pytest.param(lambda at: {"a": at - 50, "b": -0.5 * at}, id="zero among numbers"),
        pytest.param(lambda at: {"key with spaces": 1, "clé": "naïve", "🙂": "🙂"}, id="any Unicode"),
        pytest.param(lambda at: {"a": "x" * 70_000}, id="long texts"),
        pytest.param(lambda at: {"a": [0.5] * 1_000}, id="long arrays"),
        pytest.param(lambda at: {"p": 10.0 ** -(1 + at * 3)}, id="tiny floats among others"),
        pytest.param(
            lambda at: {"a": 1.7e18 + at * 1e9, "b": 1_700_000_000_000_000_000 + at}, id="nanoseconds"
        ),
    ],
)
def test_what_other_records_hold_settles_a_field(tmp_path, metadata):
    given, found, _ = round_trip(tmp_path, 60, metadata)
    assert texts(found) == texts(given)


@pytest.mark.parametrize(
    ("metadata", "dimension"),
    [
        pytest.param(
            lambda at: {"vector_dimension": 384, "n": at}, 384, id="a key of 16 letters, and the dimension"
        ),
        pytest.param(lambda at: {"url": "https://x.y/1234"}, 16, id="a text of 16 letters at the end"),
        pytest.param(lambda at: {"h": ["0123456789abcdef"] * 3}, 16, id="texts of 16 letters in a row"),
        pytest.param(lambda at: {"n": [16, 1, 2, 4] * 3}, 4, id="numbers that look like a head"),
    ],
)
def test_what_looks_like_a_head_inside_metadata_is_none(tmp_path, metadata, dimension):
    given, found, report = round_trip(tmp_path, 40, metadata, dimension)
    assert texts(found) == texts(given)
    assert report.points == 40


def test_a_kind_that_appears_late_is_still_read(tmp_path):
    """Behind the surveyed records, a field may become another kind, and new fields may come."""
    _, found, report = round_trip(
        tmp_path, 2_100, lambda at: {"a": at + 1} if at < 2_050 else {"a": f"text {at}", "new": [True, False]}
    )
    assert found[2_049:2_052] == [
        {"a": 2_050},
        {"a": "text 2050", "new": [True, False]},
        {"a": "text 2051", "new": [True, False]},
    ]
    assert report.points == 2_100


@pytest.mark.parametrize("key", [pytest.param(b"team", id="a text"), pytest.param(b"tags", id="an array")])
@pytest.mark.parametrize("byte", range(8))
def test_a_damaged_length_is_not_read_as_unusual_data(tmp_path, key, byte):
    """Bytes can nearly always be read in some way; what no other record is like is damage."""
    records = make(
        30, 4, lambda at: {"i": at, "team": "green", "ok": at % 2 == 0, "tags": ["a"], "owner": "ann"}
    )
    offsets = write(tmp_path / "f", records, "0.2.1")
    raw = bytearray((tmp_path / "f").read_bytes())
    raw[raw.index(key, offsets[9]) + 4 + byte] ^= 64
    (tmp_path / "f").write_bytes(raw)
    found, report = read(tmp_path / "f")
    assert found == [record.metadata for record in records[:9] + records[10:]]
    assert [skipped.offset for skipped in report.skipped] == [offsets[9]]


def test_a_damaged_key_is_not_read_as_one_with_a_control_character(tmp_path):
    records = make(30, 4, lambda at: {"i": at, "team": "green", "ok": at % 2 == 0, "owner": "ann"})
    offsets = write(tmp_path / "f", records, "0.2.1")
    raw = bytearray((tmp_path / "f").read_bytes())
    raw[raw.index(b"ok", offsets[9]) - 8] ^= 1  # one letter longer: "ok\0", which then is null
    (tmp_path / "f").write_bytes(raw)
    found, _ = read(tmp_path / "f")
    assert found == [record.metadata for record in records[:9] + records[10:]]


def test_a_damaged_last_value_is_not_read_as_null(tmp_path):
    """Null takes no byte, so it always fits when nothing says where the record ends."""
    records = make(30, 4, lambda at: {"i": at, "owner": None if at % 3 == 0 else f"user {at}"})
    offsets = write(tmp_path / "f", records, "0.2.1")
    raw = bytearray((tmp_path / "f").read_bytes())
    raw[raw.index(b"owner", offsets[10]) + 5] ^= 128
    (tmp_path / "f").write_bytes(raw)
    found, report = read(tmp_path / "f")
    assert found == [record.metadata for record in records[:10] + records[11:]]
    assert [skipped.offset for skipped in report.skipped] == [offsets[10]]


def test_data_that_takes_another_form_is_read_once_it_comes_again(tmp_path):
    """Two fields become arrays at once, late in the file: the first two such records are taken for damage."""
    old = {"team": "green", "tag": "a", "n": 1}
    new = {"team": ["green", "red"], "tag": ["a"], "n": 1}
    records = make(2_100, 4, lambda at: old if at < 2_050 else new)
    write(tmp_path / "f", records, "0.2.1")
    found, report = read(tmp_path / "f")
    assert found == [old] * 2_050 + [new] * 48
    assert report.skipped_count == 2


def test_a_field_that_is_always_eight_zeros_is_in_doubt(tmp_path):
    _, found, report = round_trip(tmp_path, 10, lambda at: {"note": "", "n": at + 1})
    assert {one["note"] for one in found} == {0}
    (doubt,) = report.doubts.values()
    assert (doubt.field, doubt.offset, doubt.records) == ("note", 0, 10)
    assert "may be" in doubt.reason


def test_zeros_in_a_field_of_two_kinds_are_in_doubt(tmp_path):
    _, _, report = round_trip(tmp_path, 30, lambda at: {"v": [0, at + 1, f"text {at}"][at % 3]})
    assert [doubt.field for doubt in report.doubts.values()] == ["v"]
    assert "number or string" in next(iter(report.doubts.values())).reason


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        pytest.param([2**63 + 5, 2**63 + 6], "negative or above", id="sign"),
        pytest.param([2.5, 3.5, 1e-60], "huge integer or a float", id="integer or float"),
    ],
)
def test_numbers_that_may_be_others_are_in_doubt(tmp_path, numbers, reason):
    given, found, report = round_trip(tmp_path, 9, lambda at: {"v": numbers[at % len(numbers)]})
    assert found == given
    assert reason in next(iter(report.doubts.values())).reason


def test_hashes_are_integers_though_some_look_like_floats(tmp_path):
    """One in nine bit patterns is a float of usual size."""
    hashes = [0x4012_3456_789A_BCDE, 0x7012_3456_789A_BCDE, 0x6012_3456_789A_BCDE, 0x5512_3456_789A_BCDE]
    given, found, report = round_trip(tmp_path, 40, lambda at: {"hash": hashes[at % 4] + at})
    assert texts(found) == texts(given)
    assert [doubt.field for doubt in report.doubts.values()] == ["hash"]


def test_negative_numbers_of_any_size_are_so_where_small_ones_are(tmp_path):
    given, found, _ = round_trip(tmp_path, 20, lambda at: {"v": [-5, -(2**60) - at][at % 2]})
    assert found == given


def test_metadata_above_the_limit_is_skipped(tmp_path):
    records = make(3, 4, lambda at: {"text": "x" * (1_100_000 if at == 1 else 10)})
    write(tmp_path / "f", records, "0.2.1")
    found, report = read(tmp_path / "f")
    assert found == [records[0].metadata, records[2].metadata]
    assert "above 1 MiB" in report.skipped[0].reason


@pytest.mark.parametrize("release", ["0.2.1", "0.2.6"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"[1]", id="an array"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": 1', id="cut short"),
        pytest.param(b'{"a": "\\ud800"}', id="half a pair of surrogates"),
        pytest.param(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="nested without end"),
        pytest.param(b"\xff{}", id="no UTF-8"),
    ],
)
def test_broken_json_is_skipped(tmp_path, release, text):
    first, second = make(2, 4, lambda at: None), make(1, 4, lambda at: None)
    body = encode(second[0], "0.2.1")[:-1] + b"\1" + counted(text)
    framed = struct.pack("<I", len(body)) + body if release == "0.2.6" else body
    parts = [encode(first[0], release), framed, encode(first[1], release)]
    (tmp_path / "f").write_bytes(b"".join(parts) + FILLING)
    found, report = read(tmp_path / "f")
    assert found == [None, None]
    assert [skipped.offset for skipped in report.skipped] == [len(parts[0])]


def test_json_without_a_frame_is_read(tmp_path):
    """No release is known to write it, but nothing else it could be."""
    records = make(3, 4, lambda at: {"a": [at, None, True]})
    (tmp_path / "f").write_bytes(b"".join(encode(record, "0.2.6")[4:] for record in records) + FILLING)
    assert read(tmp_path / "f")[0] == [record.metadata for record in records]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(struct.pack("<Q", 50) + struct.pack("<Q", 1) * 400 + b"\7", id="ones"),
        pytest.param(struct.pack("<Q", 1) + counted(b"a") + bytes(4_000) + b"\7", id="zeros"),
        pytest.param(struct.pack("<Q", 1) + counted(b"a") + struct.pack("<Q", 2) * 500 + b"\7", id="nests"),
        pytest.param(struct.pack("<Q", 200) + counted(b"a") * 220 + b"\7", id="texts"),
    ],
)
def test_a_search_without_result_ends_after_its_steps(raw):
    """A search ends after its steps on bytes with endlessly many readings, all of them wrong."""
    expected = CountingOptions()
    assert Search(raw, len(raw), expected, 2_000).run() == []
    assert expected.asked <= 2_000


def test_ways_that_meet_again_are_followed_once():
    """An array of small numbers can be read in three ways at every item."""
    expected = CountingOptions()
    raw = untagged({"a": [1, 0, 1, 0] * 6, "b": "x"})
    assert Search(raw, len(raw), expected, 100_000).run()
    assert expected.asked < 300


def test_a_long_array_of_objects_is_no_less_likely_than_a_short_one():
    """The fields that an array's objects have in common add little to its cost each time."""
    raws = [untagged({"items": [{"sku": "x", "n": at, "ok": True}] * 2}) for at in range(1, 9)]
    fields = FieldStatistics()
    for raw in raws:
        fields.learn(Search(raw, len(raw), fields.any_kinds, 5_000).run())
    long = untagged({"items": [{"sku": "x", "n": 5, "ok": True}] * 100})
    [known, *_] = Search(long, len(long), fields.known_kinds, 5_000, oddness_costs=False).run()
    assert known.cost < KNOWN_COST_MAX


class CountingOptions:
    """Any field may be anything; counts the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self._fields = FieldStatistics()

    def __call__(self, path):
        self.asked += 1
        return self._fields.any_kinds(path)


@pytest.mark.parametrize(
    ("number", "look"),
    [
        pytest.param(struct.pack("<Q", 2**53 - 1), "small", id="the largest small integer"),
        pytest.param(struct.pack("<q", -(2**53)), "negative", id="the smallest small negative"),
        pytest.param(struct.pack("<d", -1.5), "real", id="a float"),
        pytest.param(struct.pack("<d", 1e-60), "tiny", id="a p-value"),
        pytest.param(struct.pack("<Q", 1_700_000_000_000_000_000), "tiny", id="a time in nanoseconds"),
        pytest.param(struct.pack("<d", 1e300), "other", id="a huge float"),
        pytest.param(struct.pack("<d", float("nan")), "other", id="NaN"),
    ],
)
def test_the_look_of_a_number(number, look):
    assert look_of(struct.unpack("<Q", number)[0]) == look


def test_a_source_reads_across_its_blocks(tmp_path):
    """Whatever the block size, what is found and read is the same."""
    raw = bytes(100) + b"needle" + bytes(37) + b"needle" + bytes(11)
    (tmp_path / "f").write_bytes(raw)
    for block_bytes in (1, 3, 7, 64, 1_000):
        source = RecordFile(tmp_path / "f", 4, block_bytes)
        first = source.find(b"needle", 0, source.size)
        assert (first, source.find(b"needle", first + 1, source.size)) == (100, 143)
        assert source.find(b"needle", 0, 105) == -1
        assert source.find(b"needle", 144, source.size) == -1
        assert source.read(98, 10) == raw[98:108]
        assert source.read(155, 100) == raw[155:]
        assert (source.zeros_end(0), source.zeros_end(100), source.zeros_end(149)) == (100, 100, len(raw))
        source.close()


def test_a_disk_that_fails_is_a_storage_error(tmp_path, monkeypatch):
    """Through a memory map it would be a signal that ends the process."""

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    write(tmp_path / "f", make(2, 4), "0.2.6")
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(StorageError, match="at byte 0: Input/output error"):
        read(tmp_path / "f")


def test_a_file_that_shrinks_while_it_is_read_just_ends(tmp_path):
    (tmp_path / "f").write_bytes(bytes(1_000))
    source = RecordFile(tmp_path / "f", 4, 64)
    os.truncate(tmp_path / "f", 100)
    assert source.read(90, 100) == bytes(10)
    assert source.size == 100
    source.close()
