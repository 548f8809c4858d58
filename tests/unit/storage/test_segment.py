"""A log segment's bytes are those of docs/storage-format.md, and nothing else is taken for one."""

import re
import struct
from io import BytesIO
from pathlib import Path

import pytest
from crc32c import crc32c

from tests.unit.store_on_disk import upsert
from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.log.segment import (
    DELETE,
    HEADER_BYTES,
    RECORD_HEADER_BYTES,
    UPSERT,
    Delete,
    Record,
    SegmentHeader,
    Upsert,
    decode_effect,
    decode_header,
    encode_effect,
    encode_header,
    encode_record,
)
from vecstow_engine.storage.log.segment_reader import iterate_records

DOCUMENT = Path(__file__).parents[3] / "docs" / "storage-format.md"
IDENTITY = Identity("00112233445566778899aabbccddeeff", "notes", 4, DistanceMetric.MANHATTAN, VectorType.INT8)
HEADER = SegmentHeader(IDENTITY, first_sequence=8, synced=7, seed=0xDEADBEEF)
EXAMPLE = bytes.fromhex(
    "07000000 af9e1a3c 0700000000000000 06000000000000000600000000000000 020000000000000001000000 0100 61"
)


def with_version(header: bytes, version: int) -> bytes:
    body = header[:8] + struct.pack("<I", version) + header[12:-4]
    return body + struct.pack("<I", crc32c(body))


def crc32c_by_definition(raw: bytes) -> int:
    """RFC 3720, section B.4, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in raw:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def records_of(*parts: bytes, seed: int = 1) -> list[Record]:
    return list(iterate_records(BytesIO(b"".join(parts)), seed, 0))


def record_bytes(sequence: int, payload: bytes, seed: int = 1) -> bytes:
    return encode_record(seed, sequence, sequence - 1, sequence - 1, UPSERT, payload) + payload


def test_worked_example_of_the_format_document_is_what_is_written():
    record_type, payload = encode_effect(Delete(["a"]))
    assert record_type == DELETE
    assert encode_record(0, 7, 6, 6, record_type, payload) + payload == EXAMPLE


def test_worked_example_has_castagnolis_checksum():
    assert struct.unpack_from("<I", EXAMPLE, 4) == (crc32c_by_definition(EXAMPLE[:4] + EXAMPLE[8:]),)


def test_worked_example_stands_in_the_format_document():
    blocks = re.findall(r"```\n([0-9a-f\s]+)```", DOCUMENT.read_text())
    assert [bytes.fromhex(block) for block in blocks] == [EXAMPLE]


def test_worked_example_reads_back():
    [record] = iterate_records(BytesIO(EXAMPLE), 0, 0)
    assert record == Record(7, 6, 6, DELETE, EXAMPLE[40:], 0)
    assert decode_effect(record) == Delete(["a"])


def test_header_has_the_documented_bytes():
    raw = encode_header(HEADER)
    assert len(raw) == HEADER_BYTES == 128
    assert raw[:12] == b"VSTWWAL1\x01\0\0\0"
    assert raw[12:28].hex() == IDENTITY.uid
    assert raw[28:36] == b"\x04\0\0\0\x03\x02\0\0"
    assert struct.unpack_from("<QQI", raw, 36) == (8, 7, 0xDEADBEEF)
    assert raw[56:62] == b"\x05notes"
    assert not any(raw[62:124])
    assert struct.unpack_from("<I", raw, 124) == (crc32c(raw[:124]),)


def test_header_reads_back():
    assert decode_header(encode_header(HEADER), "f") == HEADER


def test_longest_name_reads_back():
    identity = Identity(IDENTITY.uid, "n" * 64, 65_536, DistanceMetric.COSINE, VectorType.FLOAT32)
    header = SegmentHeader(identity, 1, 0, 0)
    assert decode_header(encode_header(header), "f") == header


@pytest.mark.parametrize("place", range(HEADER_BYTES))
def test_flipped_bit_anywhere_in_the_header_is_damage(place):
    raw = bytearray(encode_header(HEADER))
    raw[place] ^= 0x10
    with pytest.raises(DamagedFile, match="f at byte 0"):
        decode_header(bytes(raw), "f")


@pytest.mark.parametrize("length", [0, 7, 8, HEADER_BYTES - 1])
def test_cut_header_is_damage(length):
    with pytest.raises(DamagedFile):
        decode_header(encode_header(HEADER)[:length], "f")


def test_newer_version_is_refused():
    with pytest.raises(NewerFormat, match="version 2"):
        decode_header(with_version(encode_header(HEADER), 2), "f")


def test_other_magic_is_no_segment():
    with pytest.raises(DamagedFile, match="no segment header"):
        decode_header(b"VSTWROWS" + encode_header(HEADER)[8:], "f")


def test_records_read_back_in_order():
    raw = record_bytes(1, b"one") + record_bytes(2, b"") + record_bytes(3, b"three")
    found = records_of(raw)
    assert [(r.sequence, r.previous, r.synced, r.payload) for r in found] == [
        (1, 0, 0, b"one"), (2, 1, 1, b""), (3, 2, 2, b"three"),
    ]  # fmt: skip
    assert [r.offset for r in found] == [0, 43, 83]


def test_flipped_bit_anywhere_in_a_record_ends_the_run_before_it():
    raw = record_bytes(1, b"one") + record_bytes(2, b"two")
    for place in range(RECORD_HEADER_BYTES + 3, len(raw)):
        flipped = bytearray(raw)
        flipped[place] ^= 1
        assert [r.sequence for r in records_of(bytes(flipped))] == [1], place


def test_truncated_trailing_record_is_ignored():
    raw = record_bytes(1, b"one") + record_bytes(2, b"two")
    for length in range(RECORD_HEADER_BYTES + 3, len(raw)):
        assert [r.sequence for r in records_of(raw[:length])] == [1], length


def test_record_of_another_seed_is_not_taken():
    """Records that an earlier file of the same blocks left behind never count."""
    assert records_of(record_bytes(1, b"one", seed=2), seed=1) == []


def test_zeros_are_no_record():
    assert records_of(bytes(1000), seed=0) == []


@pytest.mark.parametrize(
    "effect",
    [
        pytest.param(upsert(a=1, b=0), id="payload and none"),
        pytest.param(upsert(**{"ключ": 1, "日本/語": 2, "x" * 256: 3}), id="unicode and long ids"),
        pytest.param(Delete(["a", "ключ"]), id="delete"),
        pytest.param(Delete([]), id="empty delete"),
    ],
)
def test_effect_reads_back(effect):
    record_type, payload = encode_effect(effect)
    found = decode_effect(Record(1, 0, 0, record_type, payload))
    assert found.ids == effect.ids
    if isinstance(effect, Upsert):
        assert isinstance(found, Upsert)
        assert found.rows.tolist() == effect.rows.tolist()
        assert found.payloads == effect.payloads


def test_empty_payload_differs_from_none():
    effect = upsert(a=1, b=1)
    payloads = [b"", None]
    _, raw = encode_effect(Upsert(effect.ids, effect.rows, payloads))
    assert decode_effect(Record(1, 0, 0, UPSERT, raw)).payloads == payloads


@pytest.mark.parametrize("previous", [7, 8], ids=["itself", "a later one"])
def test_record_that_follows_what_is_not_before_it_is_none(previous):
    raw = encode_record(0, 7, previous, 0, DELETE, b"x") + b"x"
    assert list(iterate_records(BytesIO(raw), 0, 0)) == []
