"""The rows that `import` sends: vectors of a .npy file, with ids and payloads of .jsonl or text files.

Vectors are mapped, not loaded, and payloads are read line by line, so a file may be larger than memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from vecstow_engine.api.parsing import check_text
from vecstow_engine.api.undecodable import beyond_float64, reason_of
from vecstow_engine.cli.input_files import GZIP, InputFileError, check_regular, count_lines, lines
from vecstow_engine.model.errors import InvalidInput, WrongShape
from vecstow_engine.model.names import check_point_id
from vecstow_engine.model.payloads import PAYLOAD_DEPTH_MAX, encode_payload

BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of vectors in one request, well below the engine's limit of a body."""
MAGIC_PREFIX: Final = b"\x93NUMPY"
_ARCHIVE: Final = b"PK\x03\x04"

_decode = msgspec.json.Decoder()
_encode = msgspec.msgpack.Encoder()


def open_vectors(npy: Path) -> np.ndarray:
    """Return the array of a .npy file, memory-mapped: (n, d) of float16, float32 or float64.

    Raises InputFileError for a file that cannot be mapped, WrongShape for another array.
    """
    check_regular(npy)
    try:
        with np.errstate(over="raise"):
            array = np.lib.format.open_memmap(npy, mode="r")
    except OSError as error:
        raise InputFileError(npy, f"cannot be read: {error.strerror or error}") from error
    except Exception as broken:  # NumPy evaluates a header as a Python literal: it may fail in any way.
        raise InputFileError(npy, _explained(npy, broken)) from broken
    if array.dtype.kind != "f" or array.dtype.itemsize not in (2, 4, 8):
        raise WrongShape(f"{npy} has dtype {array.dtype}; it must be float16, float32 or float64")
    if array.ndim != 2 or 0 in array.shape:
        raise WrongShape(
            f"{npy} has shape {array.shape}; it must be an array of rows and columns, none of them empty"
        )
    return array


def as_float32(rows: np.ndarray) -> np.ndarray:
    """Return rows as little-endian float32, C order.

    A value beyond float32 becomes infinite; a later check refuses it.
    """
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype="<f4")


def _explained(npy: Path, broken: Exception) -> str:
    """Return the problem of the file, in the user's terms if the cause is known."""
    with npy.open("rb") as file:
        beginning = file.read(len(MAGIC_PREFIX))
    if not beginning:
        return "is empty"
    if beginning.startswith(_ARCHIVE):
        return "is an archive of arrays (.npz); save one array alone with numpy.save"
    if beginning.startswith(GZIP):
        return f"is compressed with gzip; vectors are read from a plain .npy file: gunzip {npy}"
    if beginning[:1] in (b"{", b"["):
        return "is JSON; vectors come as .npy (numpy.save writes it), and --payload takes JSON lines"
    if beginning != MAGIC_PREFIX:
        return "is no .npy file; vectors come as .npy, as numpy.save writes it"
    if "Python objects" in str(broken):
        return "holds Python objects; it must hold float16, float32 or float64"
    if "mmap length" in str(broken):
        return f"is cut off: it has {npy.stat().st_size:,} bytes, but its header says {_bytes_of(npy):,}"
    return f"is no .npy file that can be mapped: {str(broken)[:200] or type(broken).__name__}"


def _bytes_of(npy: Path) -> int:
    """Return the length in bytes that the header, which is valid, requires."""
    with npy.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format
        read_header = header.read_array_header_1_0 if version == (1, 0) else header.read_array_header_2_0
        shape, _, dtype = read_header(file)
        return file.tell() + math.prod(shape) * dtype.itemsize


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows `start` to `start + len(ids) - 1` of the file."""

    start: int
    ids: list[str]
    vectors: np.ndarray
    """float32, (len(ids), dimension), C order."""
    payloads: list[dict[str, Any]] | None

    def positions(self) -> list[int]:
        """Return the positions of the rows to send: the last row of each id. An engine takes no id twice."""
        last = {point_id: position for position, point_id in enumerate(self.ids)}
        return sorted(last.values())

    def body(self) -> bytes:
        """Return the body of a batch insert in MessagePack."""
        ids, vectors, payloads = self.ids, self.vectors, self.payloads
        if len(sent := self.positions()) < len(ids):
            ids, vectors = [ids[position] for position in sent], vectors[sent]
            payloads = payloads and [payloads[position] for position in sent]
        return _encode.encode({"ids": ids, "vectors": vectors.tobytes(), "metadata": payloads})


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one import, and the source of the rows' ids."""

    vectors: np.ndarray
    payload_file: Path | None
    ids_file: Path | None
    id_field: str | None
    """The field of each payload line that becomes the id; None when ids come from elsewhere."""

    @property
    def dimension(self) -> int:
        """Return the number of values in each row."""
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.vectors)

    def name_row(self, row: int) -> str:
        """Return `row 27`, with the file and line of its payload, or else of its id."""
        file = self.payload_file or self.ids_file
        return f"row {row}" if file is None else f"row {row} ({file} line {row + 1})"


def open_source(npy: Path, payload_file: Path | None, ids_file: Path | None, id_field: str | None) -> Source:
    """Return the files of an import, with the vectors mapped, and check that their numbers of rows agree.

    Without an ids file and without an id field, the row's number is its id. Raises InvalidInput, or
    WrongShape for the vectors, when a file has the wrong format or length.
    """
    source = Source(
        vectors=open_vectors(npy), payload_file=payload_file, ids_file=ids_file, id_field=id_field
    )
    for file in (payload_file, ids_file):
        if file is not None and (count := count_lines(file)) != len(source):
            empty = next((number for number, line in lines(file) if not line.strip()), None)
            raise InvalidInput(
                f"{file} has {count} lines, but {npy} has {len(source)} rows",
                hint=None if empty is None else f"line {empty} is empty",
            )
    return source


def batch_rows(dimension: int, wanted: int) -> int:
    """Return the number of rows of one request: `wanted`, or fewer if they exceed BATCH_BYTES_MAX."""
    return max(1, min(wanted, BATCH_BYTES_MAX // (4 * dimension)))


def batches(source: Source, rows: int, first: int = 0) -> Iterator[Batch]:
    """Yield the source from row `first` on in batches of `rows`; raise InvalidInput with file and line."""
    points = islice(_points(source), first, None)
    for start in range(first, len(source), rows):
        vectors = as_float32(source.vectors[start : start + rows])
        pairs = list(islice(points, len(vectors)))
        payloads = [payload for _, payload in pairs if payload is not None]
        yield Batch(start, [point_id for point_id, _ in pairs], vectors, payloads or None)


def ids(source: Source) -> Iterator[str]:
    """Return an iterator over the id of each row; it raises InvalidInput with file and line."""
    return (point_id for point_id, _ in _points(source))


def _points(source: Source) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield the id and the payload of each row, in order."""
    ids_file, payload_file = source.ids_file, source.payload_file
    given = (
        None
        if ids_file is None
        else (check_point_id(line, f"{ids_file} line {number}: id") for number, line in lines(ids_file))
    )
    payloads = (
        None
        if payload_file is None
        else (_payload(line, payload_file, number) for number, line in lines(payload_file))
    )
    for row in range(len(source)):
        payload = None if payloads is None else next(payloads)
        if given is not None:
            yield next(given), payload
        elif payload is not None and source.id_field is not None:
            yield _take_id(payload, source.id_field, f"{payload_file} line {row + 1}"), payload
        else:
            yield str(row), payload


def _take_id(payload: dict[str, Any], field: str, where: str) -> str:
    if field not in payload:
        raise WrongShape(
            f"{where} has no {field!r}",
            hint="name the field with --id-field, bring ids with --ids FILE, or use --number-rows",
        )
    return check_point_id(payload.pop(field), f"{where}: {field}")


def _payload(line: str, file: Path, number: int) -> dict[str, Any]:
    if not line.strip():
        raise InputFileError(file, "is empty", line=number)
    try:
        payload = _decode.decode(line)
    except RecursionError:
        problem = f"nests too deep; at most {PAYLOAD_DEPTH_MAX} levels are allowed"
        raise InputFileError(file, problem, line=number) from None
    except (msgspec.MsgspecError, ValueError) as broken:
        beyond = beyond_float64(line.encode(), f"{file} line {number}: payload")
        raise beyond or InputFileError(file, f"is no valid JSON: {reason_of(broken)}", line=number) from None
    if not isinstance(payload, dict):
        raise WrongShape(f"{file} line {number} must be a JSON object")
    check_text(line.encode(), payload, f"{file} line {number}")
    encode_payload(payload, f"{file} line {number}: payload")
    return payload
