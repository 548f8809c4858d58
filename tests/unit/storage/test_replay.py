"""Rule 6 as a table: which records of a log count, what is a torn tail, and what is damage."""

import tracemalloc
from dataclasses import dataclass, field

import pytest

from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.log.replay import LogChanged, read_log, records_of, select_records
from vecstow_engine.storage.log.segment import (
    DELETE,
    HEADER_BYTES,
    UPSERT,
    Record,
    SegmentHeader,
    encode_header,
    encode_record,
)
from vecstow_engine.storage.log.segment_reader import BLOCK_BYTES

IDENTITY = Identity("0" * 32, "notes", 4, DistanceMetric.COSINE, VectorType.FLOAT32)
SEED = 77


def record(sequence, previous=None, synced=None, payload=b""):
    previous = sequence - 1 if previous is None else previous
    return Record(sequence, previous, previous if synced is None else synced, UPSERT, payload)


@dataclass
class Segment:
    """A segment that begins with `first`, to be written; by default all before it was durable."""

    first: int
    records: tuple[Record, ...]
    synced: int
    tail: bytes
    headless: bool


def segment(first, *records, synced=None, tail=b"", headless=False):
    return Segment(first, records, first - 1 if synced is None else synced, tail, headless)


@dataclass
class Case:
    segments: list[Segment]
    applied: int = 0
    chain: list[int] = field(default_factory=list)
    damage: str | None = None
    torn: int = 0
    warnings: int = 0


R = record
CASES = {
    "no segment at all": Case([], applied=9),
    "an empty segment": Case([segment(10)], applied=9),
    "one record": Case([segment(1, R(1))], chain=[1]),
    "a chain over two segments": Case([segment(1, R(1), R(2)), segment(3, R(3))], chain=[1, 2, 3]),
    "gaps in the sequences, chained": Case([segment(1, R(3, 0), R(9, 3))], chain=[3, 9]),
    "records below applied are passed over": Case([segment(1, R(1), R(2), R(3))], applied=2, chain=[3]),
    "everything is applied": Case([segment(1, R(1), R(2))], applied=2),
    "applied ahead of the log, as in a copy": Case([segment(1, R(1), R(2))], applied=9),
    "a bad last record is a torn tail": Case([segment(1, R(1), tail=b"\0x")], chain=[1], torn=1),
    "preallocated zeros are no torn tail": Case([segment(1, R(1), tail=bytes(9))], chain=[1]),
    "a bad record of the same group, not known synced": Case(
        [segment(1, R(1), R(3, 2, synced=1), tail=b"x")], chain=[1], torn=1
    ),
    "a bad record that a later one says was synced": Case(
        [segment(1, R(1), R(3, 2, synced=2), tail=b"x")], damage="after sequence 1 .* though 2 was durable"
    ),
    "a bad record far before one that says so": Case(
        [segment(1, R(1), R(4, 3, synced=1), R(5, 4, synced=4), tail=b"x")], damage="though 4 was durable"
    ),
    "a later header says that it was synced": Case(
        [segment(1, R(1)), segment(3, R(3))], damage="after sequence 1 .* though 2 was durable"
    ),
    "an empty later segment's header says so": Case(
        [segment(1, R(1)), segment(3)], damage="after sequence 1 .* though 2 was durable"
    ),
    "a segment of which nothing is known durable": Case(
        [segment(1, R(1)), segment(3, R(3, synced=1), synced=1)], chain=[1]
    ),
    "first segment begins above applied + 1": Case(
        [segment(6, R(6))], applied=4, damage="begins at sequence 6"
    ),
    "first segment begins at applied + 1": Case([segment(5, R(5))], applied=4, chain=[5]),
    "an empty segment above applied + 1": Case([segment(6)], applied=4, damage="begins at sequence 6"),
    "a missing middle segment": Case(
        [segment(1, R(1)), segment(5, R(5))], applied=1, damage="though 4 was durable"
    ),
    "a missing middle segment, all applied": Case([segment(1, R(1)), segment(5, R(5))], applied=4, chain=[5]),
    "damage at or below applied is a warning": Case(
        [segment(1, headless=True, tail=b"x"), segment(5, R(5))], applied=4, chain=[5], torn=1, warnings=1
    ),
    "the only segment has no valid header": Case(
        [segment(5, headless=True)], applied=4, damage="header fails its checksum"
    ),
    "the newest segment has no valid header": Case(
        [segment(1, R(1)), segment(2, headless=True)], applied=1, damage="header fails its checksum"
    ),
    "a headless segment in the middle, not applied": Case(
        [segment(1, R(1)), segment(2, headless=True), segment(4, R(4))],
        applied=1,
        damage="header fails its checksum",
    ),
    "records carried over by a recovery, the old segment still there": Case(
        [segment(1, R(1), R(2), R(3, synced=2), synced=3), segment(3, R(3))], applied=0, chain=[1, 2, 3]
    ),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_rule_06_torn_or_damaged(case, on_disk):
    segments = on_disk.found(*case.segments)
    if case.damage is not None:
        with pytest.raises(DamagedFile, match=case.damage):
            select_records(segments, case.applied)
        return
    verdict = select_records(segments, case.applied)
    assert [found.sequence for found in records_of(verdict.extents)] == case.chain
    assert verdict.count == len(case.chain)
    assert verdict.last == (case.chain[-1] if case.chain else case.applied)
    assert len(verdict.torn) == case.torn
    assert len(verdict.warnings) == case.warnings


def test_rule_06_of_two_records_with_one_previous_the_later_segments_counts(on_disk):
    old, new = record(2, payload=b"old"), record(2, payload=b"new")
    verdict = select_records(on_disk.found(segment(1, record(1), old, synced=0), segment(2, new)), 0)
    assert [found.payload for found in records_of(verdict.extents)] == [b"", b"new"]


OLD, NEW = b"old", b"new"


@pytest.mark.parametrize("applied", range(8))
@pytest.mark.parametrize(("begins", "ends"), [(1, 6), (3, 6), (3, 4), (5, 9), (6, 8)])
def test_rule_06_newer_segment_counts_as_far_as_it_reaches(on_disk, applied, begins, ends):
    """Records that stand in two segments are read from the newer one, from any sequence on."""
    old = segment(1, *[record(n, synced=0, payload=OLD) for n in range(1, 7)], synced=0)
    newer = [record(n, synced=min(n - 1, 6), payload=NEW) for n in range(begins, ends + 1)]
    verdict = select_records(on_disk.found(old, segment(begins, *newer, synced=1)), applied)
    last = max(applied, 6, ends if applied >= begins - 1 or begins <= 7 else 0)
    wanted = [(n, NEW if begins <= n <= ends else OLD) for n in range(applied + 1, last + 1)]
    assert [(found.sequence, found.payload) for found in records_of(verdict.extents)] == wanted
    assert verdict.count == len(wanted)


def test_rule_06_damage_names_file_and_offset(on_disk):
    with pytest.raises(DamagedFile) as raised:
        select_records(on_disk.found(segment(1, record(1), record(3, 2, synced=2), tail=b"x")), 0)
    assert raised.value.file.endswith("00000000000000000001.log")
    assert raised.value.offset is not None


def test_records_that_are_no_longer_there_are_not_passed_over(on_disk):
    verdict = select_records(on_disk.found(segment(1, record(1), record(2, payload=b"x"))), 0)
    path = verdict.extents[0].segment.path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LogChanged, match="after sequence 1"):
        list(records_of(verdict.extents))


def test_reading_a_log_keeps_no_payload_and_one_run_for_any_number_of_records(on_disk):
    on_disk.write(1, *[record(number, payload=bytes(100_000)) for number in range(1, 101)])
    tracemalloc.start()
    [found] = read_log(on_disk.folder)
    assert sum(1 for _ in records_of(select_records([found], 0).extents)) == 100
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * BLOCK_BYTES < found.size
    assert len(found.runs) == 1


class OnDisk:
    """Segments as files, written with the encoders."""

    def __init__(self, folder):
        self.folder = folder

    def found(self, *segments):
        """Write these, and read them back."""
        for s in segments:
            header = SegmentHeader(IDENTITY, s.first, s.synced, SEED)
            raw = bytes(HEADER_BYTES) if s.headless else encode_header(header)
            self.write(s.first, *s.records, tail=s.tail, header=raw)
        return read_log(self.folder)

    def write(self, first, *records, tail=b"", header=None):
        raw = header or encode_header(SegmentHeader(IDENTITY, first, first - 1, SEED))
        for r in records:
            raw += encode_record(SEED, r.sequence, r.previous, r.synced, r.type, r.payload) + r.payload
        path = self.folder / f"{first:020d}.log"
        path.write_bytes(raw + tail)
        return path


@pytest.fixture
def on_disk(tmp_path):
    return OnDisk(tmp_path)


def test_log_folder_that_is_not_there_has_no_segments(tmp_path):
    assert read_log(tmp_path / "none") == []


def test_other_files_in_the_log_folder_are_passed_over(on_disk):
    on_disk.write(1, record(1))
    for name in ("00000000000000000009.log.tmp", "x.log", "9.log", "notes.txt"):
        (on_disk.folder / name).write_bytes(b"x")
    assert [found.path.name for found in read_log(on_disk.folder)] == ["00000000000000000001.log"]


@pytest.mark.parametrize("length", range(1, 50))
def test_rule_06_torn_tail_of_any_length_is_normal(on_disk, length):
    on_disk.write(1, record(1), tail=(encode_record(SEED, 2, 1, 1, UPSERT, b"x" * 20) + b"x" * 20)[:length])
    verdict = select_records(read_log(on_disk.folder), 0)
    assert (verdict.last, len(verdict.torn)) == (1, 1)


def test_read_segment_says_where_its_good_records_end(on_disk):
    on_disk.write(1, record(1, payload=b"abc"), tail=b"torn")
    [found] = read_log(on_disk.folder)
    assert (found.valid_bytes, found.tail_bytes, found.is_torn) == (HEADER_BYTES + 43, 4, True)
    assert [r.sequence for r in found.records()] == [1]


@pytest.mark.parametrize("length", range(1, 17), ids=lambda n: f"{n} bytes of payload")
def test_rule_06_records_beyond_a_bad_one_are_found_wherever_they_begin(on_disk, length):
    """They may say that the bad one was synced."""
    path = on_disk.write(1, record(1), record(2, payload=b"x" * length), record(3), record(4))
    raw = bytearray(path.read_bytes())
    raw[HEADER_BYTES + 40 + 40] ^= 1  # the first byte of the payload of record 2
    path.write_bytes(raw)
    [found] = read_log(on_disk.folder)
    assert [r.sequence for r in found.records()] == [1, 3, 4]
    with pytest.raises(DamagedFile, match="though"):
        select_records([found], 0)


def test_rule_06_cut_length_field_does_not_hide_later_records(on_disk):
    path = on_disk.write(1, record(1), record(2, payload=b"payload"), record(3))
    raw = bytearray(path.read_bytes())
    raw[HEADER_BYTES + 40 : HEADER_BYTES + 44] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    with pytest.raises(DamagedFile, match="though 2 was durable"):
        select_records(read_log(on_disk.folder), 0)


def test_payload_that_looks_like_records_is_no_record(on_disk):
    """Only what a chain or a checksum reaches counts, however plausible it looks."""
    fake = encode_record(SEED + 1, 3, 2, 2, DELETE, b"")
    on_disk.write(1, record(1), tail=b"bad" + fake)
    [found] = read_log(on_disk.folder)
    assert [r.sequence for r in found.records()] == [1]
    assert select_records([found], 0).last == 1
