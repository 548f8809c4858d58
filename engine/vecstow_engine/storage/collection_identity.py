"""The identity of a data file: the fields that `vectors.bin` and each log segment have in common."""

from __future__ import annotations

from dataclasses import dataclass

from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.model.manifest import DIMENSION_MAX, Manifest, Shape
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.names import is_collection_name

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
    name = identity.name.encode("ascii")
    return (
        bytes.fromhex(identity.uid), identity.dimension, identity.metric.code,
        identity.vector_type.code, len(name), name,
    )  # fmt: skip


def unpack_identity(
    uid: bytes, dimension: int, metric: int, vector_type: int, name_length: int, name: bytes, file: str
) -> Identity:
    """Reverse `pack_identity`; raise DamagedFile for an impossible code, dimension or name."""
    text = name[:name_length].decode("ascii", "replace")
    known = metric in _METRICS and vector_type in _TYPES and 1 <= dimension <= DIMENSION_MAX
    if not known or not is_collection_name(text):
        raise DamagedFile("the header names an impossible collection", file=file, offset=0)
    return Identity(uid.hex(), text, dimension, _METRICS[metric], _TYPES[vector_type])
