"""The rows that `import` sends: vectors of a .npy file, with ids and payloads of .jsonl or text files.

Vectors are mapped, not loaded, and payloads are read line by line, so a file may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from vecstow_engine.api.repeated_keys import check_text
from vecstow_engine.cli.input_files import InputFileError, count_lines, lines
from vecstow_engine.cli.vector_files import as_float32, open_vectors
from vecstow_engine.model.errors import InvalidInput, WrongShape
from vecstow_engine.model.names import check_point_id
from vecstow_engine.model.payloads import encode_payload

BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
"""Bytes of vectors in one request, well below the engine's limit of a body."""

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
    given = None if source.ids_file is None else _ids(source.ids_file)
    payloads = None if source.payload_file is None else _payloads(source.payload_file)
    for row in range(len(source)):
        payload = None if payloads is None else next(payloads)
        if given is not None:
            yield next(given), payload
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
    for number, line in lines(file):
        yield check_point_id(line, f"{file} line {number}: id")


def _payloads(file: Path) -> Iterator[dict[str, Any]]:
    for number, line in lines(file):
        yield _payload(line, file, number)


def _payload(line: str, file: Path, number: int) -> dict[str, Any]:
    if not line.strip():
        raise InputFileError(file, "is empty", line=number)
    try:
        payload = _decode.decode(line)
    except RecursionError:
        raise InputFileError(file, "is nested too deeply", line=number) from None
    except (msgspec.MsgspecError, ValueError) as broken:
        raise InputFileError(file, f"is no valid JSON: {broken}", line=number) from None
    if not isinstance(payload, dict):
        raise WrongShape(f"{file} line {number} must be a JSON object")
    check_text(line.encode(), payload, f"{file} line {number}")
    encode_payload(payload, f"{file} line {number}: payload")
    return payload
