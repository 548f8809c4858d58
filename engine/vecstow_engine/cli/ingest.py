"""Sending a file's rows to an engine, batch after batch, so that an interrupted import can go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vecstow_engine.cli.client import Client, RequestRefused
from vecstow_engine.cli.output import console, print_note
from vecstow_engine.cli.rows import Batch, Source, batch_rows, batches
from vecstow_engine.model.errors import InvalidInput, VecstowError

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass(slots=True)
class Report:
    """What an import did so far."""

    collection: str
    rows: int
    """Rows of the file."""
    skipped: int = 0
    """Rows that the engine had already."""
    acknowledged: int = 0
    seconds: float = 0.0

    @property
    def vectors_per_second(self) -> float:
        """Acknowledged rows by the time they took."""
        return self.acknowledged / self.seconds if self.seconds > 0 else 0.0

    def document(self) -> dict[str, Any]:
        """The report as a JSON-ready mapping."""
        return {
            "collection": self.collection,
            "rows": self.rows,
            "skipped": self.skipped,
            "acknowledged": self.acknowledged,
            "seconds": round(self.seconds, 3),
            "vectors_per_second": round(self.vectors_per_second),
        }

    def summary(self) -> str:
        """The report in one line."""
        skipped = f", {self.skipped:,} were there already" if self.skipped else ""
        return (
            f"{self.collection}: {self.acknowledged:,} vectors acknowledged in {self.seconds:.2f} s "
            f"({self.vectors_per_second:,.0f} vectors/s){skipped}"
        )


def send_rows(client: Client, collection: str, source: Source, *, rows: int, resume: bool) -> Report:
    """Bring every row of `source` into `collection`; with `resume`, skip the rows it has already.

    One request is on its way at a time, so what was acknowledged is always the file's beginning. Raises
    InvalidInput for another dimension, and the engine's or the file's error with a hint how to go on. Ctrl-C
    is told with what was acknowledged, and goes on as KeyboardInterrupt.
    """
    _check_dimension(client, collection, source)
    report = Report(collection, rows=len(source))
    started = time.perf_counter()
    prepared = _ahead((batch, batch.body()) for batch in batches(source, batch_rows(source.dimension, rows)))
    try:
        with _progress(len(source)) as advance:
            for batch, body in prepared:
                resume = resume and _has_row(client, collection, batch.ids[-1])
                if resume:
                    report.skipped += len(batch.ids)
                else:
                    _send(client, collection, batch, body)
                    report.acknowledged += len(batch.ids)
                    report.seconds = time.perf_counter() - started
                advance(len(batch.ids))
    except KeyboardInterrupt:
        done = report.skipped + report.acknowledged
        print_note(
            f"interrupted; {done:,} of {report.rows:,} rows were acknowledged. "
            "Go on with the same command and --resume"
        )
        raise
    except VecstowError as error:
        done = report.skipped + report.acknowledged
        error.hint = error.hint or f"{done:,} of {report.rows:,} rows are in; --resume goes on from there"
        raise
    return report


def _check_dimension(client: Client, collection: str, source: Source) -> None:
    expected = client.get("collections", collection)["dimension"]
    if expected != source.dimension:
        raise InvalidInput(
            f"the file's rows have {source.dimension} values, but collection {collection!r} has "
            f"dimension {expected}"
        )


def _send(client: Client, collection: str, batch: Batch, body: bytes) -> None:
    try:
        client.post_messagepack("collections", collection, "vectors", "batch", body=body)
    except RequestRefused as refused:
        last = batch.start + len(batch.ids) - 1
        refused.message = f"rows {batch.start} to {last}: {refused.message}"
        raise


def _has_row(client: Client, collection: str, point_id: str) -> bool:
    found = client.post("collections", collection, "vectors", "get", document={"ids": [point_id]})
    return any(point is not None for point in found)


def _ahead(items: Iterator[tuple[Batch, bytes]]) -> Iterator[tuple[Batch, bytes]]:
    """The same items, each made in another thread while its predecessor is in use."""
    with ThreadPoolExecutor(max_workers=1) as worker:
        following = worker.submit(next, items, None)
        while (item := following.result()) is not None:
            following = worker.submit(next, items, None)
            yield item


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on stderr, where that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    out = console(stderr=True)
    bar: Progress = Progress(
        BarColumn(), MofNCompleteColumn(), _rate_column(), TimeRemainingColumn(),
        console=out, disable=not out.is_terminal, transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task("rows", total=total)
        yield lambda rows: bar.advance(task, rows)


def _rate_column() -> Any:
    from rich.progress import Task, TextColumn

    class Rate(TextColumn):
        """Rows per second, as measured lately."""

        def render(self, task: Task) -> Any:
            return f"{task.speed or 0:,.0f} vectors/s"

    return Rate("")
