"""Writes records as d-vecDB does, independently of the reader, and unpacks the real ones."""

from __future__ import annotations

import json
import random
import struct
import tarfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dvecdb"
FILLING = bytes(4096)


@dataclass
class Record:
    """The content of one record; vectors are given as float32 can hold them."""

    id: bytes
    vector: list[float]
    metadata: dict[str, Any] | None

    @property
    def text(self) -> str:
        return str(uuid.UUID(bytes=self.id))


def unpack(release: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A release's data directory, and what was inserted."""
    with tarfile.open(FIXTURES / f"dvecdb-{release}.tar.xz") as archive:
        for member in archive:
            file = folder / member.name
            file.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            file.write_bytes(content.read())
    home = folder / f"dvecdb-{release}"
    return home / "data", json.loads((home / "truth.json").read_text())


def make(count: int, dimension: int, metadata: Any = lambda at: None, seed: int = 1) -> list[Record]:
    """Random records; `metadata` is called with each one's number."""
    rng = random.Random(seed)
    return [
        Record(rng.randbytes(16), [rng.randint(-64, 64) / 8 for _ in range(dimension)], metadata(at))
        for at in range(count)
    ]


def untagged(value: Any) -> bytes:
    """A value as bincode writes serde_json's: without its type."""
    if value is None:
        return b""
    if isinstance(value, bool):
        return bytes([value])
    if isinstance(value, int):
        return struct.pack("<q" if value < 0 else "<Q", value)
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, str):
        return counted(value.encode())
    if isinstance(value, list):
        return struct.pack("<Q", len(value)) + b"".join(map(untagged, value))
    entries = [counted(key.encode()) + untagged(inner) for key, inner in value.items()]
    return struct.pack("<Q", len(value)) + b"".join(entries)


def counted(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def encode(record: Record, release: str) -> bytes:
    """One record as that release writes it."""
    vector = record.vector
    body = counted(record.id) + struct.pack(f"<Q{len(vector)}f", len(vector), *vector)
    if record.metadata is None:
        body += b"\0"
    elif release == "0.2.6":
        body += b"\1" + counted(json.dumps(record.metadata).encode())
    else:
        body += b"\1" + untagged(record.metadata)
    return struct.pack("<I", len(body)) + body if release == "0.2.6" else body


def write(path: Path, records: list[Record], release: str, filling: bytes = FILLING) -> list[int]:
    """Write a file; returns where each record begins, and where the last one ends."""
    offsets = [0]
    raw = b""
    for record in records:
        raw += encode(record, release)
        offsets.append(len(raw))
    path.write_bytes(raw + filling)
    return offsets
