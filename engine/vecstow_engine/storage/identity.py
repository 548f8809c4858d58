"""The identity of a collection's files, and the header page of `vectors.bin`, which holds it.

The header of each log segment holds the same fields. No numpy: the operator imports this module.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crc32c import crc32c

from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.model.manifest import DIMENSION_MAX, Manifest, Shape
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.names import is_collection_name

MAGIC: Final = b"VSTWROWS"
VERSION: Final = 1
HEADER_BYTES: Final = 4096
_HEADER = struct.Struct("<8sI16sIBB2xIB64s")
_CHECKSUM = struct.Struct("<I")
_METRICS = {metric.code: metric for metric in DistanceMetric}
_TYPES = {vector_type.code: vector_type for vector_type in VectorType}


@dataclass(frozen=True, slots=True)
class Identity:
    """One incarnation of a collection: its uid, and its name and shape when the file was made."""

    uid: str
    name: str
    dimension: int
    metric: DistanceMetric
    vector_type: VectorType

    @property
    def stride(self) -> int:
        """Bytes of one stored row."""
        return self.vector_type.row_bytes(self.dimension)

    @property
    def shape(self) -> Shape:
        """The properties that never change while data exists; the same as `Manifest.shape`."""
        return self.dimension, self.metric, self.vector_type


def identity_of(manifest: Manifest, uid: str) -> Identity:
    """Return the identity that the files of this manifest and uid carry."""
    return Identity(uid, manifest.name, *manifest.shape)


def pack_identity(identity: Identity) -> tuple[bytes, int, int, int, int, bytes]:
    """Return uid (16 bytes), dimension, metric code, type code, length of name, name (at most 64 bytes)."""
    uid, name = bytes.fromhex(identity.uid), identity.name.encode("ascii")
    return uid, identity.dimension, identity.metric.code, identity.vector_type.code, len(name), name


def unpack_identity(
    uid: bytes, dimension: int, metric: int, vector_type: int, name_length: int, name: bytes, file: str
) -> Identity:
    """Reverse `pack_identity`; raise DamagedFile for an impossible code, dimension or name."""
    text = name[:name_length].decode("ascii", "replace")
    known = metric in _METRICS and vector_type in _TYPES and 1 <= dimension <= DIMENSION_MAX
    if not known or not is_collection_name(text):
        raise DamagedFile("the header names an impossible collection", file=file, offset=0)
    return Identity(uid.hex(), text, dimension, _METRICS[metric], _TYPES[vector_type])


def encode_header(identity: Identity) -> bytes:
    """Return the header page of a rows file."""
    uid, dimension, metric, vector_type, name_length, name = pack_identity(identity)
    fields = uid, dimension, metric, vector_type, identity.stride, name_length, name
    body = _HEADER.pack(MAGIC, VERSION, *fields).ljust(HEADER_BYTES - 4, b"\0")
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
