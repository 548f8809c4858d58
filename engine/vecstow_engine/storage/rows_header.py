"""The header page of `vectors.bin`: the identity of its rows. No numpy, so the operator can import it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from crc32c import crc32c

from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.storage.collection_identity import Identity, pack_identity, unpack_identity

MAGIC: Final = b"VSTWROWS"
VERSION: Final = 1
HEADER_BYTES: Final = 4096
_HEADER = struct.Struct("<8sI16sIBB2xIB64s")
_CHECKSUM = struct.Struct("<I")


def encode_header(identity: Identity) -> bytes:
    """Return the header page of a rows file."""
    uid, dimension, metric, vector_type, name_length, name = pack_identity(identity)
    body = _HEADER.pack(
        MAGIC, VERSION, uid, dimension, metric, vector_type, identity.stride, name_length, name
    ).ljust(HEADER_BYTES - 4, b"\0")
    return body + _CHECKSUM.pack(crc32c(body))


def decode_header(raw: bytes, file: str) -> Identity:
    """Decode a header page; raise DamagedFile or NewerFormat."""
    if len(raw) < HEADER_BYTES or raw[:8] != MAGIC:
        raise DamagedFile("no header page", file=file, offset=0)
    body = raw[: HEADER_BYTES - 4]
    if _CHECKSUM.unpack_from(raw, HEADER_BYTES - 4)[0] != crc32c(body):
        raise DamagedFile("the header page fails its checksum", file=file, offset=0)
    _, version, uid, dimension, metric, vector_type, stride, length, name = _HEADER.unpack_from(body)
    if version > VERSION:
        raise NewerFormat(f"{file} has version {version}; this release reads up to {VERSION}")
    identity = unpack_identity(uid, dimension, metric, vector_type, length, name, file)
    if stride != identity.stride:
        raise DamagedFile(f"stride {stride} does not fit the shape", file=file, offset=36)
    return identity


def read_header(path: Path) -> Identity:
    """Return the identity in the header page of `path`; raise OSError, DamagedFile or NewerFormat."""
    with path.open("rb", buffering=0) as stream:
        return decode_header(stream.read(HEADER_BYTES), str(path))
