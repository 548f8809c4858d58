"""The reading of one segment, block by block: memory holds one block, or one payload.

`heads` verifies records without keeping their payloads; `iterate_records` yields whole records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

import numpy as np
from crc32c import crc32c

from vecstow_engine.storage.log.segment import (
    DELETE,
    HEADER_BYTES,
    RECORD_HEADER_BYTES,
    UPSERT,
    Record,
    RecordHead,
    decode_record_head,
)

BLOCK_BYTES: Final = 1 << 20
"""The number of bytes read at a time."""


def iterate_records(stream: BinaryIO, seed: int, start: int = HEADER_BYTES) -> Iterator[Record]:
    """Yield valid records from the offset `start` on, up to the first that is cut or fails its checksum."""
    size = size_of(stream)
    while (head := _head_at(stream, seed, start, size)) is not None:
        payload = stream.read(head.length)
        if len(payload) < head.length or crc32c(payload, head.begun) != head.checksum:
            return
        yield head.with_payload(payload)
        start = head.end


def heads(stream: BinaryIO, seed: int, start: int = HEADER_BYTES) -> Iterator[RecordHead]:
    """Yield the heads of the records that `iterate_records` yields."""
    size = size_of(stream)
    while (head := _head_at(stream, seed, start, size)) is not None:
        checksum = head.begun
        for block in blocks(stream, head.length):
            checksum = crc32c(block, checksum)
        if checksum != head.checksum:
            return
        yield head
        start = head.end


def heads_beyond(stream: BinaryIO, seed: int, start: int) -> Iterator[RecordHead]:
    """Yield valid records after a bad one, at any offset: they can prove that the bad one was synced."""
    position = start
    for offset in _plausible_offsets(stream, start):
        if offset >= position:
            for head in heads(stream, seed, offset):
                position = head.end
                yield head


def has_content(stream: BinaryIO, start: int) -> bool:
    """Whether a byte from `start` on is not zero."""
    size = size_of(stream)
    stream.seek(start)
    return any(block.strip(b"\0") for block in blocks(stream, size - start))


def blocks(stream: BinaryIO, count: int) -> Iterator[bytes]:
    """Yield the next `count` bytes of a stream in blocks; fewer when the stream ends."""
    while count > 0 and (block := stream.read(min(count, BLOCK_BYTES))):
        count -= len(block)
        yield block


def size_of(stream: BinaryIO) -> int:
    """Return the length of the file, and move the stream to its end."""
    return stream.seek(0, 2)


def _head_at(stream: BinaryIO, seed: int, offset: int, size: int) -> RecordHead | None:
    if offset + RECORD_HEADER_BYTES > size:
        return None
    stream.seek(offset)
    head = decode_record_head(stream.read(RECORD_HEADER_BYTES), seed, offset)
    return head if head is not None and head.end <= size else None


def _plausible_offsets(stream: BinaryIO, start: int) -> Iterator[int]:
    """Yield the offsets, ascending, where the fixed fields can be those of a record header."""
    for begin in range(start, size_of(stream), BLOCK_BYTES):
        stream.seek(begin)
        raw = stream.read(BLOCK_BYTES + RECORD_HEADER_BYTES - 1)
        for offset in _plausible_in(raw):
            yield begin + offset


def _plausible_in(raw: bytes) -> list[int]:
    """Return the plausible offsets in one block, found in eight vectorised passes."""
    found: list[int] = []
    for shift in range(8):
        room = len(raw) - shift
        if room < RECORD_HEADER_BYTES:
            break
        words = np.frombuffer(raw, dtype="<u8", offset=shift, count=room // 8)
        sequence, previous, synced, kind = words[1:-3], words[2:-2], words[3:-1], words[4:]
        hits = ((kind == UPSERT) | (kind == DELETE)) & (sequence > previous) & (previous >= synced)
        found += (np.flatnonzero(hits) * 8 + shift).tolist()
    return sorted(found)
