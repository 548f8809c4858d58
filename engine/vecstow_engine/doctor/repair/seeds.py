"""The seed of a segment whose header is lost: what the first record's checksum must have begun with.

A CRC is linear, so it can be run backwards. Any bytes would have some seed; it is proven only by a second
record that passes its checksum with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from crc32c import crc32c

from vecstow_engine.storage.log.segment import HEADER_BYTES, RECORD_HEADER_BYTES, decode_record_head
from vecstow_engine.storage.log.segment_reader import blocks, size_of

_ALL: Final = 0xFFFFFFFF


def _step(byte: int) -> int:
    """What eight zero bits make of a state that holds `byte` alone."""
    return (crc32c(b"\0", byte ^ _ALL) ^ _ALL) & _ALL


_FORWARD: Final = [_step(byte) for byte in range(256)]
_BYTE_OF: Final = {entry >> 24: byte for byte, entry in enumerate(_FORWARD)}
"""The top bytes of the table's entries are all different."""


def seed_before(path: Path) -> int | None:
    """Return the seed with which the record behind a segment's header would pass its checksum.

    None when there is no such record.
    """
    with path.open("rb") as stream:
        size = size_of(stream)
        stream.seek(HEADER_BYTES)
        head = decode_record_head(stream.read(RECORD_HEADER_BYTES), 0, HEADER_BYTES)
        if head is None or head.end > size:
            return None
        state = head.begun
        for block in blocks(stream, head.length):
            state = crc32c(block, state)
    return _back(head.checksum ^ state, RECORD_HEADER_BYTES - 4 + head.length)


def _back(state: int, count: int) -> int:
    """The state before `count` zero bytes."""
    for _ in range(count):
        byte = _BYTE_OF[state >> 24]
        state = ((state ^ _FORWARD[byte]) << 8 | byte) & _ALL
    return state
