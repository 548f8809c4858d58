"""The upload of a file's rows to an engine, in batches, so that an interrupted import can go on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

import numpy as np

from vecstow_engine.cli.client import Client, RequestRefused
from vecstow_engine.cli.output import console, counted, print_note
from vecstow_engine.cli.rows import Batch, Source, batch_rows, batches, ids
from vecstow_engine.model.errors import Conflict, InvalidInput, TooLarge, VecstowError

GET_POINTS: Final = 100
GET_VALUES: Final = 100_000
"""The most points, and numbers in their vectors, that one request asks for."""
CONTENT_STATUSES: Final = (400, 413, 422)
_POSITION: Final = re.compile(r"(?:vectors|(?<=metadata)|(?<=ids))\[(\d+)\]\.?")
"""The position of a point in a request, in the form of the engine's messages."""


@dataclass(slots=True)
class Report:
    """The progress or the result of an import."""

    collection: str
    rows: int
    """Rows of the file."""
    skipped: int = 0
    """Rows that the engine had already."""
    acknowledged: int = 0
    repeated_ids: int = 0
    """Number of ids that several rows of the file have; the last of these rows is stored."""
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Return the number of rows that the engine has."""
        return self.skipped + self.acknowledged

    @property
    def vectors_per_second(self) -> float:
        """Return the acknowledged rows per second; 0 before the first."""
        return self.acknowledged / self.seconds if self.seconds > 0 else 0.0

    def document(self) -> dict[str, Any]:
        """Return the report as a JSON-ready mapping."""
        rounded = {"seconds": round(self.seconds, 3), "vectors_per_second": round(self.vectors_per_second)}
        return asdict(self) | rounded

    def summary(self) -> str:
        """Return the report in one line."""
        skipped = f", {self.skipped:,} were there already" if self.skipped else ""
        repeated = ""
        if self.repeated_ids:
            ids = counted(self.repeated_ids, "id")
            repeated = f"; {ids} occurred more than once, and the last row of each won"
        return (
            f"{self.collection}: {self.acknowledged:,} vectors acknowledged in {self.seconds:.2f} s "
            f"({self.vectors_per_second:,.0f} vectors/s){skipped}{repeated}"
        )


def _hashes(ids: Iterable[str]) -> np.ndarray:
    """Return a hash of each id, int64 (n,): 8 bytes a row for ids of any length.

    Two of 10 million different ids share a hash with a probability of 3 in a million.
    """
    return np.fromiter(map(hash, ids), np.int64)


def send_rows(client: Client, collection: str, source: Source, *, rows: int, resume: bool) -> Report:
    """Send every row of `source` to `collection`; with `resume`, skip the rows that it has already.

    One request is under way at a time, so the acknowledged rows are always the beginning of the file. Raises
    InvalidInput for another dimension, Conflict when the collection was replaced, and errors of the engine or
    the file with a hint how to go on. After Ctrl-C a note reports the number of acknowledged rows, and
    KeyboardInterrupt is raised again.
    """
    described = client.get("collections", collection)
    if (expected := described["dimension"]) != source.dimension:
        raise InvalidInput(
            f"the file's rows have {source.dimension} values, but collection {collection!r} has "
            f"dimension {expected}"
        )
    uid: str | None = described["collection_uid"]  # None before the first write
    report, hashed = Report(collection, rows=len(source)), np.zeros(len(source), np.int64)
    rows = batch_rows(source.dimension, rows)
    if resume:
        hashed = _hashes(ids(source))
        is_first = np.zeros(len(hashed), bool)
        is_first[np.unique(hashed, return_index=True)[1]] = True
        report.skipped = _stored_rows(client, collection, source, rows, is_first)
    try:
        with _progress(len(source)) as advance:
            advance(report.skipped)
            started = time.perf_counter()
            for batch, body in _ahead((b, b.body()) for b in batches(source, rows, report.skipped)):
                _send(client, collection, source, batch, body)
                hashed[batch.start : batch.start + len(batch.ids)] = _hashes(batch.ids)
                report.acknowledged += len(batch.ids)
                report.seconds = time.perf_counter() - started
                uid = uid or _uid_of(client, collection)
                advance(len(batch.ids))
        if _uid_of(client, collection) != uid:
            raise Conflict(
                f"collection {collection!r} was dropped and created again during the import: "
                "the one that is served now has a part of the rows",
                collection=collection,
                hint="import the whole file again, without --resume",
            )
    except KeyboardInterrupt:
        print_note(
            f"interrupted; {report.done:,} of {report.rows:,} rows were acknowledged. "
            "Go on with the same command and --resume"
        )
        raise
    except VecstowError as error:
        first = "mend the file first; " if _is_about_content(error) else ""
        error.hint = error.hint or (
            f"{report.done:,} of {report.rows:,} rows are in; {first}--resume goes on from there"
        )
        raise
    _, counts = np.unique(hashed, return_counts=True)
    report.repeated_ids = int(np.count_nonzero(counts > 1))
    return report


def _is_about_content(error: VecstowError) -> bool:
    """Whether the error concerns the content of rows, so that the same rows would be refused again."""
    if isinstance(error, RequestRefused):
        return error.status in CONTENT_STATUSES
    return isinstance(error, InvalidInput | TooLarge)


def _uid_of(client: Client, collection: str) -> str | None:
    uid: str | None = client.get("collections", collection)["collection_uid"]
    return uid


def _send(client: Client, collection: str, source: Source, batch: Batch, body: bytes) -> None:
    """Send a batch. A refusal names the row of the file in place of the position in the request."""
    try:
        client.post_messagepack("collections", collection, "vectors", "batch", body=body)
    except RequestRefused as refused:
        message, sent = refused.message, batch.positions()
        positions = {int(found[1]) for found in _POSITION.finditer(message)}
        # The text of an id or a key may look like a position.
        if len(positions) == 1 and (position := positions.pop()) < len(sent):
            row = source.name_row(batch.start + sent[position])
            refused.message = f"{row}: {_POSITION.sub('', message)}"
        else:
            refused.message = f"rows {batch.start} to {batch.start + len(batch.ids) - 1}: {message}"
        raise


def _stored_rows(client: Client, collection: str, source: Source, step: int, is_first: np.ndarray) -> int:
    """Return the number of rows at the file's beginning that an interrupted import has certainly stored.

    A stored row that is the first with its id proves that all rows before it were sent. The search asks for
    the last such row in each `step` rows, and where that row is missing, for the rows before it. The result
    is therefore the same for every `step`.

    A smaller result would send older rows again, which replace the newest row of their id until the end.
    After another interruption, a larger result would then skip that newest row.
    """
    stored, points = 0, ids(source)
    for start in range(0, len(source), step):
        part = list(islice(points, step))
        rows = np.flatnonzero(is_first[start : start + step]).tolist()
        there = _count_there(client, collection, source, [part[row] for row in rows[-1:]])
        if there < len(rows[-1:]):
            there = _count_there(client, collection, source, [part[row] for row in rows])
            return start + rows[there - 1] + 1 if there else stored
        if rows:
            stored = start + rows[-1] + 1
    return stored


def _count_there(client: Client, collection: str, source: Source, wanted: list[str]) -> int:
    """Return the number of ids before the first one whose point the collection lacks."""
    step = max(1, min(GET_POINTS, GET_VALUES // source.dimension))
    for start in range(0, len(wanted), step):
        document = {"ids": wanted[start : start + step]}
        points = client.post("collections", collection, "vectors", "get", document=document)
        if None in points:
            return start + int(points.index(None))
    return len(wanted)


def _ahead(items: Iterator[tuple[Batch, bytes]]) -> Iterator[tuple[Batch, bytes]]:
    """Yield the same items; another thread makes the next item while the caller uses the current one."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        following = worker.submit(next, items, None)
        while (item := following.result()) is not None:
            following = worker.submit(next, items, None)
            yield item


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and remaining time on stderr, if that is a terminal; yield its function."""
    from rich import progress

    class Rate(progress.ProgressColumn):
        """The recent rate in rows per second."""

        def render(self, task: progress.Task) -> str:
            return f"{task.speed or 0:,.0f} vectors/s"

    out = console(stderr=True)
    columns = progress.BarColumn(), progress.MofNCompleteColumn(), Rate(), progress.TimeRemainingColumn()
    with progress.Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as bar:
        task = bar.add_task("rows", total=total)
        yield lambda rows: bar.advance(task, rows)
