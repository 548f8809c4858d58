"""Reading d-vecDB's `vectors.bin`: real files of both releases, and whatever damage may do to one."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.dvecdb_records import FILLING, Record, encode, make, unpack, write
from vecstow_engine.importers.dvecdb.importer import ForeignPoint, build, read_batches, read_vectors
from vecstow_engine.importers.dvecdb.record_file import RecordFile, detect
from vecstow_engine.importers.report import ImportReport
from vecstow_engine.model.errors import InvalidInput, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.storage.layout import Layout

RELEASES = ["0.2.1", "0.2.6"]
DIMENSION = 4
ROW_BYTES = 8 + 16 + 8 + 4 * DIMENSION + 1


def payload(at: int) -> dict[str, Any]:
    """Metadata as people write it; each field keeps its kind."""
    return {
        "i": at,
        "team": ["red", "green", "blue"][at % 3],
        "open": at % 2 == 1,
        "score": at / 7 + 0.25,
        "tags": ["a", "b"][: at % 3],
        "owner": None if at % 4 == 0 else f"user {at}",
    }


def read(path: Path, dimension: int = DIMENSION) -> tuple[list[ForeignPoint], ImportReport]:
    report = ImportReport()
    return list(read_vectors(path, dimension, report)), report


def rows(points: list[ForeignPoint]) -> list[tuple[str, list[float], Any]]:
    return [(point.id, point.vector.tolist(), point.metadata) for point in points]


def expected(records: list[Record]) -> list[tuple[str, list[float], Any]]:
    return [(record.text, record.vector, record.metadata) for record in records]


@pytest.fixture(params=RELEASES)
def release(request):
    return request.param


@pytest.mark.parametrize("collection", ["incidents", "users", "empty"])
def test_reads_back_exactly_what_a_real_server_was_given(release, collection, tmp_path):
    data, truth = unpack(release, tmp_path)
    known = truth[collection]
    points, report = read(data / collection / "vectors.bin", known["dimension"])
    assert [point.id for point in points] == known["ids"]
    assert [point.metadata for point in points] == known["metadata"]
    assert [json.dumps(point.metadata, sort_keys=True) for point in points] == [
        json.dumps(metadata, sort_keys=True) for metadata in known["metadata"]
    ], "1, 1.0 and true differ in their text"
    vectors = [point.vector for point in points]
    assert np.array_equal(vectors, np.array(known["vectors"], np.float32).reshape(np.shape(vectors)))
    assert all(vector.dtype == np.float32 for vector in vectors)
    assert report.format == (release if points else None)
    assert report.points == len(points)
    assert (report.skipped_count, report.doubts) == (0, {})


def test_detects_release_and_dimension(release, tmp_path):
    path = tmp_path / "vectors.bin"
    write(path, make(1, DIMENSION), release)
    assert detect(path.read_bytes()[:36]) == (release, DIMENSION)


@pytest.mark.parametrize(
    "first_bytes",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(36), id="zeros"),
        pytest.param(b"VSTWROWS" + bytes(28), id="ours"),
        pytest.param(struct.pack("<Q16sQ", 16, b"x" * 16, 0), id="dimension 0"),
        pytest.param(struct.pack("<Q16sQ", 16, b"x" * 16, 65_537), id="dimension too large"),
        pytest.param(struct.pack("<Q16s", 16, b"x" * 16), id="short"),
    ],
)
def test_detects_nothing_in_what_is_not_dvecdbs(first_bytes):
    assert detect(first_bytes) is None


def test_offsets_are_those_of_the_file(release, tmp_path):
    offsets = write(tmp_path / "f", make(5, DIMENSION, payload), release)
    points, report = read(tmp_path / "f")
    assert [point.offset for point in points] == offsets[:-1]
    assert report.skipped == []


def test_another_dimension_is_refused_by_name(release, tmp_path):
    write(tmp_path / "f", make(2, DIMENSION), release)
    with pytest.raises(InvalidInput, match="dimension 4, not 7") as refusal:
        read(tmp_path / "f", 7)
    assert refusal.value.details == {"field": "dimension", "value": 7, "limit": 4}


def test_a_missing_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot be opened"):
        read(tmp_path / "nowhere")


def test_the_file_is_left_as_it_was(release, tmp_path):
    path = tmp_path / "f"
    write(path, make(3, DIMENSION, payload), release)
    path.chmod(0o400)
    before = path.read_bytes(), path.stat().st_mtime_ns
    read(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_records_with_and_without_metadata_may_be_mixed(release, tmp_path):
    records = make(30, DIMENSION, lambda at: payload(at) if at % 3 else None)
    write(tmp_path / "f", records, release)
    assert rows(read(tmp_path / "f")[0]) == expected(records)


def test_an_empty_map_is_not_the_same_as_none(release, tmp_path):
    records = make(4, DIMENSION, lambda at: {} if at % 2 else None)
    write(tmp_path / "f", records, release)
    assert rows(read(tmp_path / "f")[0]) == expected(records)


def test_a_later_record_of_an_id_wins(release, tmp_path):
    """d-vecDB appends an update; read in order and upserted, the last one stays, in any batch size."""
    records = make(6, DIMENSION, payload)
    for at in (3, 5):
        records[at].id = records[0].id
    write(tmp_path / "f", records, release)
    for size in (1, 2, 4, 100):
        kept: dict[str, Any] = {}
        for batch in read_batches(read_vectors(tmp_path / "f", DIMENSION, ImportReport()), size):
            ids = [point.id for point in batch]
            assert len(set(ids)) == len(ids) <= size
            kept.update((point.id, point.metadata) for point in batch)
        assert kept == {record.text: record.metadata for record in records}


# Damage. The fields are learnt from whole records, so the files have some of them.


def test_truncation_at_any_byte_yields_a_prefix(release, tmp_path):
    """A file cut short yields whole records only, and says where it ends."""
    records = make(5, DIMENSION, lambda at: payload(3 * at + 1) | {"owner": "x"})  # little to learn from
    offsets = write(tmp_path / "f", records, release, filling=b"")
    for cut in range(offsets[-1]):
        check_prefix(tmp_path / "f", cut, records, offsets)


def test_truncation_behind_many_records_yields_a_prefix(release, tmp_path):
    """Values that take no byte, or only zeros, are not made up at the end either."""
    records = make(20, DIMENSION, payload)
    offsets = write(tmp_path / "f", records, release, filling=b"")
    for cut in range(offsets[-5], offsets[-1], 3):
        check_prefix(tmp_path / "f", cut, records, offsets)


def check_prefix(path: Path, cut: int, records: list[Record], offsets: list[int]) -> None:
    """Check that the first `cut` bytes give all whole records, or all but the last of them."""
    shorter = path.with_name("cut")
    shorter.write_bytes(path.read_bytes()[:cut])
    points, report = read(shorter)
    assert rows(points) == expected(records)[: len(points)], cut
    whole = sum(offset <= cut for offset in offsets[1:])
    assert whole - 1 <= len(points) <= whole, cut
    assert report.skipped_count or cut == offsets[len(points)], cut


def test_truncation_of_a_real_file_yields_a_prefix(release, tmp_path):
    data, truth = unpack(release, tmp_path)
    known = truth["incidents"]
    raw = (data / "incidents" / "vectors.bin").read_bytes().rstrip(b"\0")
    for cut in range(3_000, 3_700, 7):
        (tmp_path / "cut").write_bytes(raw[:cut])
        points, _ = read(tmp_path / "cut", known["dimension"])
        assert [point.metadata for point in points] == known["metadata"][: len(points)]
        assert [point.id for point in points] == known["ids"][: len(points)]
        assert len(points) >= 8


def test_flipped_bits_never_crash_and_cost_few_records(release, tmp_path):
    """Whatever bit flips, the records that it does not touch come out as they were, and in order."""
    rng = random.Random(7)
    records = make(24, DIMENSION, payload)
    offsets = write(tmp_path / "f", records, release)
    raw = (tmp_path / "f").read_bytes()
    for _ in range(60):
        at = rng.randrange(offsets[-1])
        flipped = bytearray(raw)
        flipped[at] ^= 1 << rng.randrange(8)
        (tmp_path / "flipped").write_bytes(flipped)
        points, report = read(tmp_path / "flipped")
        unharmed = {row[0]: row for row in expected(records)}
        hit = next(number for number in range(24) if at < offsets[number + 1])
        around = {record.text for record in records[max(hit - 1, 0) : hit + 2]}
        got = [row for row in rows(points) if row[0] not in around and row[0] in unharmed]
        assert got == [row for row in expected(records) if row[0] not in around], at
        assert len(points) >= 22, (at, report)


def test_random_bytes_never_crash(tmp_path):
    """Bytes of no meaning, with heads strewn among them, are read to their end."""
    rng = random.Random(3)
    for _ in range(60):
        parts = []
        for _ in range(rng.randint(1, 12)):
            head = struct.pack("<Q16sQ", 16, rng.randbytes(16), DIMENSION)
            words = [struct.pack("<Q", rng.choice([0, 1, 2, 3, 8, 16])) for _ in range(rng.randint(0, 12))]
            row = head + bytes(4 * DIMENSION) + bytes([rng.randint(0, 1)]) + b"".join(words)
            parts.append(rng.choice([row, b"\0" * rng.randint(0, 40), rng.randbytes(rng.randint(0, 40))]))
            parts.append(rng.choice([b"", struct.pack("<I", rng.choice([len(row), ROW_BYTES, 70]))]))
        (tmp_path / "f").write_bytes(b"".join(parts) + rng.choice([b"", FILLING]))
        points, report = read(tmp_path / "f")
        assert report.points == len(points)


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        pytest.param(0, b"\x11", "hold no record", id="the id's length"),
        pytest.param(24, b"\x05", "hold no record", id="the dimension"),
        pytest.param(32, b"\0\0\xc0\x7f", "NaN", id="NaN in the vector"),
        pytest.param(32, b"\0\0\x80\xff", "infinity", id="infinity in the vector"),
        pytest.param(48, b"\7", "byte 7 where 0 or 1 must be", id="the mark of metadata"),
        pytest.param(48, b"\0", "metadata", id="a mark that says there is none"),
        pytest.param(49, b"\xff", "metadata", id="the metadata's length or count"),
    ],
)
def test_a_damaged_record_is_skipped_and_named(release, tmp_path, at, value, reason):
    """The records before and after are whole, and the report has the offset and the reason."""
    records = make(20, DIMENSION, payload)
    offsets = write(tmp_path / "f", records, release)
    body = offsets[10] + (4 if release == "0.2.6" else 0)
    raw = bytearray((tmp_path / "f").read_bytes())
    raw[body + at : body + at + len(value)] = value
    (tmp_path / "f").write_bytes(raw)
    points, report = read(tmp_path / "f")
    assert rows(points) == expected(records[:10] + records[11:])
    assert [skipped.offset for skipped in report.skipped] == [offsets[10]]
    assert reason in report.skipped[0].reason


@pytest.mark.parametrize(
    ("hole", "reason"),
    [
        pytest.param(b"\0", "zeros between records", id="zeros"),
        pytest.param(b"\xa5", "bytes that hold no record", id="garbage"),
    ],
)
def test_a_hole_is_reported_and_reading_goes_on_behind_it(release, tmp_path, hole, reason):
    records = make(40, DIMENSION, payload)
    offsets = write(tmp_path / "f", records, release)
    raw = bytearray((tmp_path / "f").read_bytes())
    raw[offsets[10] : offsets[14]] = hole * (offsets[14] - offsets[10])
    (tmp_path / "f").write_bytes(raw)
    points, report = read(tmp_path / "f")
    assert rows(points) == expected(records[:10] + records[14:])
    assert report.skipped == [(offsets[10], f"{offsets[14] - offsets[10]} {reason}")]


@pytest.mark.parametrize(
    "metadata", [pytest.param(True, id="with metadata"), pytest.param(False, id="without")]
)
def test_a_server_that_began_at_byte_0_again_leaves_its_old_records_behind_the_new(tmp_path, metadata):
    """0.2.1 does so after a restart: new records, what is left of an old one, old records."""
    old = make(30, DIMENSION, payload if metadata else lambda at: None, seed=1)
    new = make(7, DIMENSION, (lambda at: payload(at + 100)) if metadata else lambda at: None, seed=2)
    offsets = write(tmp_path / "f", old, "0.2.1")
    over = b"".join(encode(record, "0.2.1") for record in new)
    if not metadata:  # all records are of one length, so the new ones end inside an old one
        offsets = write(tmp_path / "f", [Record(b"x" * 16, [1.0] * DIMENSION, {"a": "b"}), *old], "0.2.1")
        old = [Record(b"x" * 16, [1.0] * DIMENSION, {"a": "b"}), *old]
    assert len(over) not in offsets
    raw = bytearray((tmp_path / "f").read_bytes())
    raw[: len(over)] = over
    (tmp_path / "f").write_bytes(raw)
    left = next(at for at, offset in enumerate(offsets) if offset >= len(over))
    points, report = read(tmp_path / "f")
    assert rows(points) == expected(new + old[left:])
    assert [skipped.offset for skipped in report.skipped] == [len(over)]


def test_a_file_that_a_later_release_went_on_writing_is_read_as_mixed(tmp_path):
    first, second = make(5, DIMENSION, payload, seed=1), make(5, DIMENSION, payload, seed=2)
    raw = b"".join(encode(record, "0.2.1") for record in first)
    (tmp_path / "f").write_bytes(raw + b"".join(encode(record, "0.2.6") for record in second) + FILLING)
    points, report = read(tmp_path / "f")
    assert rows(points) == expected(first + second)
    assert (report.format, report.skipped_count) == ("mixed", 0)


@pytest.mark.parametrize("mark", [b"\0", b"\7"])
def test_a_damaged_mark_costs_the_record_before_nothing(tmp_path, mark):
    """Its end is where a head stands, though no record follows that head; its last value takes no byte."""
    records = make(20, DIMENSION, payload)
    offsets = write(tmp_path / "f", records, "0.2.1")
    raw = bytearray((tmp_path / "f").read_bytes())
    raw[offsets[9] + 48] = mark[0]
    (tmp_path / "f").write_bytes(raw)
    assert records[8].metadata["owner"] is None
    points, _ = read(tmp_path / "f")
    assert rows(points) == expected(records[:9] + records[10:])


def test_a_framed_record_that_is_cut_short_says_so(tmp_path):
    offsets = write(tmp_path / "f", make(2, DIMENSION, payload), "0.2.6", filling=b"")
    (tmp_path / "f").write_bytes((tmp_path / "f").read_bytes()[:-3])
    assert read(tmp_path / "f")[1].skipped == [(offsets[1], "the file ends inside this record")]


def test_a_frame_that_is_longer_than_its_record_is_refused(tmp_path):
    first, second = make(2, DIMENSION)
    longer = encode(first, "0.2.6") + b"abc"
    longer = struct.pack("<I", len(longer) - 4) + longer[4:]
    (tmp_path / "f").write_bytes(longer + encode(second, "0.2.6") + FILLING)
    points, report = read(tmp_path / "f")
    assert rows(points) == expected([second])
    assert "does not fit a record without metadata" in report.skipped[0].reason


def test_no_head_begins_before_the_place_that_is_searched_from(tmp_path):
    """Else reading could go round in circles."""
    write(tmp_path / "f", make(1, DIMENSION), "0.2.6")
    source = RecordFile(tmp_path / "f", DIMENSION)
    assert [(head.offset, head.format) for head in source.heads(0, 100)] == [(0, "0.2.6")]
    assert [(head.offset, head.format) for head in source.heads(2, 100)] == [(4, "0.2.1")]
    source.close()


@pytest.mark.parametrize(
    ("behind", "is_record"),
    [
        pytest.param(b"\1" + struct.pack("<QQ", 2, 4) + b"team", True, id="a map with a key"),
        pytest.param(b"\1" + struct.pack("<QQ", 2, 5_000) + b"team", False, id="a key beyond reason"),
        pytest.param(b"\1" + struct.pack("<QQ", 1 << 40, 4) + b"team", False, id="a count beyond reason"),
        pytest.param(b"\1" + struct.pack("<Q", 9) + b'{"a": 12}', True, id="JSON"),
        pytest.param(b"\0" + FILLING, True, id="the filling"),
        pytest.param(b"\0" + struct.pack("<Q16sQ", 16, b"x" * 16, DIMENSION), True, id="another record"),
        pytest.param(b"\0" + b"something else, and long enough", False, id="something else"),
        pytest.param(b"\7" + FILLING, False, id="no mark"),
        pytest.param(b"", True, id="the end of the file"),
    ],
)
def test_a_head_counts_by_what_is_behind_its_vector(tmp_path, behind, is_record):
    head = struct.pack(f"<Q16sQ{DIMENSION}f", 16, b"x" * 16, DIMENSION, *[1.0] * DIMENSION)
    (tmp_path / "f").write_bytes(head + behind)
    source = RecordFile(tmp_path / "f", DIMENSION)
    assert (source.next_record(0) is not None) == is_record
    source.close()


def test_a_file_of_zeros_or_nothing_is_empty(tmp_path):
    for content in (b"", bytes(5), bytes(1024 * 1024)):
        (tmp_path / "f").write_bytes(content)
        points, report = read(tmp_path / "f")
        assert (points, report.skipped_count, report.format) == ([], 0, None)


def test_the_lists_of_a_report_are_bounded(tmp_path):
    """A ruined file of many records needs no more memory than a sound one."""
    ruined = struct.pack("<Q16sQ", 16, b"x" * 16, DIMENSION) + b"\0\0\xc0\x7f" * DIMENSION + b"\0"
    (tmp_path / "f").write_bytes(ruined * 1_500 + FILLING)
    points, report = read(tmp_path / "f")
    assert (points, report.skipped_count, len(report.skipped)) == ([], 1_500, 1_000)


@pytest.mark.parametrize("count", [1, 5])
def test_file_whose_records_all_break_a_limit_is_imported_as_an_empty_collection(count, tmp_path):
    """Each record is reported as skipped."""
    deep: Any = "x"
    for _ in range(150):
        deep = [deep]
    source = tmp_path / "source"
    source.mkdir()
    write(source / "vectors.bin", make(count, DIMENSION, lambda at: {"deep": deep}), "0.2.6")
    wanted = Manifest("notes", DIMENSION, DistanceMetric.COSINE)
    _, report = build(Layout(tmp_path / "data"), source, tmp_path / "staging", wanted)
    assert len(report.skipped) == count
