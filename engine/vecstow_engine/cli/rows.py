"""What `import` sends: the rows of a .npy file with the ids and payloads of a .jsonl file beside it.

Vectors are mapped, not loaded, and payloads are read line by line: a file larger than memory passes through.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np

from vecstow_engine.model.errors import InvalidInput, WrongShape
from vecstow_engine.model.names import check_point_id

BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of vectors in one request, well below the engine's limit on a body."""

_decode = msgspec.json.Decoder()
_encode = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows `start` to `start + len(ids) - 1` of the file."""

    start: int
    ids: list[str]
    vectors: np.ndarray
    """float32, (len(ids), dimension), C order."""
    payloads: list[dict[str, Any]] | None

    def body(self) -> bytes:
        """The MessagePack form of a batch insert."""
        return _encode.encode({"ids": self.ids, "vectors": self.vectors.tobytes(), "metadata": self.payloads})


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one import, and how their rows get ids."""

    vectors: np.ndarray
    payload_file: Path | None
    ids_file: Path | None
    id_field: str | None
    """The field of each payload line that is the id and no payload; None when ids come from elsewhere."""

    @property
    def dimension(self) -> int:
        """Values in each row."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.vectors)


def open_source(npy: Path, payload_file: Path | None, ids_file: Path | None, id_field: str | None) -> Source:
    """The files, mapped and with equal numbers of rows.

    Without an ids file and without an id field the row's number is its id. Raises InvalidInput when a file
    cannot be what it must be.
    """
    source = Source(
        vectors=open_vectors(npy), payload_file=payload_file, ids_file=ids_file, id_field=id_field
    )
    for file in (payload_file, ids_file):
        if file is not None and (lines := _count_lines(file)) != len(source):
            raise InvalidInput(f"{file} has {lines} lines, but {npy} has {len(source)} rows")
    return source


def open_vectors(npy: Path) -> np.ndarray:
    """The array of a .npy file, memory-mapped: (n, d) of float16, float32 or float64."""
    try:
        array = np.lib.format.open_memmap(npy, mode="r")
    except (ValueError, EOFError) as broken:
        raise InvalidInput(f"{npy} is no .npy file that can be mapped: {broken}") from broken
    if array.ndim != 2 or 0 in array.shape:
        raise WrongShape(f"{npy} must hold an array of rows and columns, none of them empty")
    if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
        raise WrongShape(f"{npy} has dtype {array.dtype}; it must be float16, float32 or float64")
    return array


def as_float32(rows: np.ndarray) -> np.ndarray:
    """A copy in little-endian float32, C order; what is too large becomes infinite and is refused later."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype="<f4")


def batch_rows(dimension: int, wanted: int) -> int:
    """How many rows one request carries: as wanted, unless that were too many bytes."""
    return max(1, min(wanted, BATCH_BYTES_MAX // (4 * dimension)))


def batches(source: Source, rows: int) -> Iterator[Batch]:
    """The whole source in batches of `rows`; raises InvalidInput naming file and line."""
    points = _points(source)
    for start in range(0, len(source), rows):
        vectors = as_float32(source.vectors[start : start + rows])
        pairs = list(islice(points, len(vectors)))
        payloads = [payload for _, payload in pairs if payload is not None]
        yield Batch(start, [point_id for point_id, _ in pairs], vectors, payloads or None)


def _points(source: Source) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The id and the payload of each row, in order."""
    ids = None if source.ids_file is None else _ids(source.ids_file)
    payloads = None if source.payload_file is None else _payloads(source.payload_file)
    for row in range(len(source)):
        payload = None if payloads is None else next(payloads)
        if ids is not None:
            yield next(ids), payload
        elif payload is not None and source.id_field is not None:
            yield _take_id(payload, source.id_field, f"{source.payload_file} line {row + 1}"), payload
        else:
            yield str(row), payload


def _take_id(payload: dict[str, Any], field: str, where: str) -> str:
    if field not in payload:
        raise WrongShape(
            f"{where} has no {field!r}",
            hint="name the field with --id-field, bring ids with --ids FILE, or use --number-rows",
        )
    return check_point_id(payload.pop(field), f"{where}: {field}")


def _ids(file: Path) -> Iterator[str]:
    with _open_text(file) as stream:
        for number, line in enumerate(stream, start=1):
            yield check_point_id(_text(line, file, number).rstrip("\r\n"), f"{file} line {number}: id")


def _payloads(file: Path) -> Iterator[dict[str, Any]]:
    with _open_text(file) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                payload = _decode.decode(line)
            except msgspec.DecodeError as broken:
                raise InvalidInput(f"{file} line {number} is no valid JSON: {broken}") from broken
            if not isinstance(payload, dict):
                raise WrongShape(f"{file} line {number} must be a JSON object")
            yield payload


def _count_lines(file: Path) -> int:
    with _open_text(file) as stream:
        return sum(1 for _ in stream)


def _open_text(file: Path) -> BinaryIO | gzip.GzipFile:
    if file.suffix == ".gz":
        return gzip.open(file, "rb")
    return file.open("rb")


def _text(line: bytes, file: Path, number: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as broken:
        raise InvalidInput(f"{file} line {number} is not UTF-8") from broken
