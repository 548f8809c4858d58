"""The standard streams, and the output of commands: for people, or one JSON document for programs."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from vecstow_engine.model.errors import VecstowError

if TYPE_CHECKING:
    from rich.console import Console

LAST_COLUMN_WIDTH_MIN: Final = 10
PIPE_WIDTH: Final = 4096
"""Width of a table without a terminal, in characters: nothing is cut for `grep` and `awk`."""
_STREAM_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}
"""The mode of each standard stream, in the order of the file descriptors."""


def open_streams() -> None:
    """Open the null device for each stream that the caller closed, and let stdout print any text.

    Otherwise a file of the volume would get the free descriptor, and everything that is printed.
    """
    for number, (name, mode) in enumerate(_STREAM_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this stream's
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flush_stdout() -> None:
    """Write the buffered text. Raises OSError, after which nothing more is printed."""
    try:
        sys.stdout.flush()
    except OSError:
        # Python flushes again when it ends, and would report the error a second time.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise


def print_json(document: object) -> None:
    """Write one JSON document and a newline to stdout."""
    _write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_json_line(document: object) -> None:
    """Write one JSON document to stdout as one line."""
    _write(json.dumps(document, ensure_ascii=False) + "\n")


def print_line(text: str) -> None:
    """Write one line to stdout."""
    _write(printable(text) + "\n")


def print_answer(answer: object, line: str, *, as_json: bool) -> None:
    """Write an answer to stdout: as JSON for programs, or as one line for people."""
    if as_json:
        print_json(answer)
    else:
        print_line(line)


def print_note(text: str) -> None:
    """Write one line about the work, which is not part of the result, to stderr."""
    sys.stderr.write(printable(text) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table to stdout: one line per row, plain and whole when stdout is not a terminal.

    A column whose name ends in `#` holds numbers and is aligned right; the `#` is not printed. On a terminal
    the last column is cut to the rest of the line.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(_cell(value)) for value in row] for row in rows]
    widths = [
        max(map(cell_len, column)) for column in zip([c.rstrip("#") for c in columns], *cells, strict=True)
    ]
    out = console()
    left = max(LAST_COLUMN_WIDTH_MIN, out.width - sum(width + 1 for width in widths[:-1]))
    widths[-1] = min(widths[-1], left)
    out.width = max(out.width, sum(width + 1 for width in widths))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            column.rstrip("#"), justify="right" if column.endswith("#") else "left", width=width, no_wrap=True
        )
    for row in cells:
        table.add_row(*(Text(text, overflow="ellipsis") for text in row))
    with out.capture() as captured:
        out.print(table)
    _write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def print_facts(facts: Mapping[str, object]) -> None:
    """Write names and values to stdout, a pair per line, values in one column; leave out empty values."""
    pairs = []
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            parts = value.items() if isinstance(value, dict) else ()
            text = ", ".join(f"{part} {_cell(chosen)}" for part, chosen in parts) or _cell(value)
            pairs.append((name.replace("_", " "), printable(text)))
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        _write(f"{name + ':':<{width + 1}} {value}\n")


def print_error(error: VecstowError) -> None:
    """Write the error's message to stderr in one line, and its hint in another."""
    sys.stderr.write(f"vecstow: {printable(error.message)}\n")
    if error.hint:
        sys.stderr.write(f"hint: {printable(error.hint)}\n")


def console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr; without a terminal the console is wide and without colour."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def counted(count: int, noun: str) -> str:
    """Return count and noun, for example `1 point` or `2 points`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on stderr for each name that is reported, if stderr is a terminal.

    Yields a function of name, done and total.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    out = console(stderr=True)
    tasks: dict[str, TaskID] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as bars:

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield advance


def printable(text: str) -> str:
    """Return `text` with control characters escaped: stored text must not control the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise VecstowError(f"stdout cannot be written: {error.strerror or error}") from error


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "-"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
