"""The seed of a segment whose header is lost: what the first record's checksum must have begun with.

A CRC is linear, so it can be run backwards. Any bytes would have some seed; it is proven only by a second
record that passes its checksum with it.
"""

from __future__ import annotations

from typing import Final

from crc32c import crc32c

from vecstow_engine.storage.segment import HEADER_BYTES, PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES

_ALL: Final = 0xFFFFFFFF


def _step(byte: int) -> int:
    """What eight zero bits make of a state that holds `byte` alone."""
    return (crc32c(b"\0", byte ^ _ALL) ^ _ALL) & _ALL


_FORWARD: Final = [_step(byte) for byte in range(256)]
_BYTE_OF: Final = {entry >> 24: byte for byte, entry in enumerate(_FORWARD)}
"""The top bytes of the table's entries are all different."""


def seed_before(raw: bytes) -> int | None:
    """The seed with which the record behind the header would pass its checksum; None when there is none."""
    at = HEADER_BYTES
    length = int.from_bytes(raw[at : at + 4], "little")
    end = at + RECORD_HEADER_BYTES + length
    if not at + RECORD_HEADER_BYTES <= end <= len(raw) or length > PAYLOAD_BYTES_MAX:
        return None
    covered = raw[at : at + 4] + raw[at + 8 : end]
    checksum = int.from_bytes(raw[at + 4 : at + 8], "little")
    return _back(checksum ^ crc32c(covered), len(covered))


def _back(state: int, count: int) -> int:
    """The state before `count` zero bytes."""
    for _ in range(count):
        byte = _BYTE_OF[state >> 24]
        state = ((state ^ _FORWARD[byte]) << 8 | byte) & _ALL
    return state
